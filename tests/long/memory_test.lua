--- Every allocation of a script that builds, trains, saves, loads and predicts fails once, and again with all after it: a quarter of an
-- hour.
-- `make test` tries a sample of them each day (tests/host/test_memory.c).
local build = os.getenv "BUILD" or "build/release"
local ok, how, code = os.execute(build .. "/tests/host/test_memory all")
os.exit(ok and how == "exit" and code == 0)
