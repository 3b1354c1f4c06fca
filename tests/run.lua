--- Runs suites of tests and sums them up: BUILD=build/release lua5.4 tests/run.lua c lua scripts embed
-- Each program is a process of its own, so that a crash costs that program's tests and no others'. What it prints is passed on. It
-- says "N passed, N failed" (or busted's summary) and ends with status 0 exactly when nothing failed; a program that does
-- neither, or is killed, counts as one failed test. The last line is the sum: "N passed, N failed".
--
-- WRAP, if set, is put before every program that is under test (valgrind, for one).

local build = os.getenv "BUILD" or "build/release"
local wrap = os.getenv "WRAP" or ""
local bplua = build .. "/bplua"

--- The files that a shell pattern matches, sorted.
local function glob(pattern)
  local files = {}
  local ls <close> = io.popen("ls -d " .. pattern .. " 2>/dev/null")
  for file in ls:lines() do files[#files + 1] = file end
  return files
end

--- A command for each source matching pattern.
local function commands(pattern, make, note)
  local list = {}
  for _, source in ipairs(glob(pattern)) do list[#list + 1] = { name = source .. (note or ""), command = make(source) } end
  return list
end

local function under_bplua(source) return ("%s %s %s"):format(wrap, bplua, source) end
local function compiled(suffix)
  return function(source) return ("%s %s/%s%s"):format(wrap, build, source:gsub("%.c$", ""), suffix) end
end
--- busted is started by name of the interpreter: its own first line says `lua`, which may be a Lua 5.1.
local function spec(source)
  return ("%s %s $(command -v busted) --ignore-lua --output=plainTerminal %s"):format(wrap, bplua, source)
end

local suites = {
  c = { { "tests/c/test_*.c", compiled "" } },
  lua = { { "tests/spec/*_spec.lua", spec } },
  scripts = { { "tests/scripts/*_test.lua", under_bplua } },
  embed = {
    { "tests/host/test_*.c", compiled "" },
    { "tests/host/test_*.c", compiled "_cxx", " as C++" },
    { "tests/host/*_test.lua", under_bplua },
  },
  long = { { "tests/long/*_test.lua", under_bplua } },
}

--- The counts that a line of output states, or nothing.
local function counts(line)
  local passed, failed = line:match "(%d+) passed, (%d+) failed"
  if passed then return tonumber(passed), tonumber(failed) end
  local successes, failures, errors = line:match "^(%d+) success%a* / (%d+) failure%a* / (%d+) error"
  if successes then return tonumber(successes), tonumber(failures) + tonumber(errors) end
end

local function run(test)
  print("== " .. test.name)
  local passed, failed
  local out = io.popen(test.command .. " 2>&1 < /dev/null")
  for line in out:lines() do
    print(line)
    local p, f = counts(line)
    if p then passed, failed = p, f end
  end
  local ok, how, code = out:close()
  if not passed then
    passed, failed = 0, 1
    print(("%s: no summary; ended by %s %d"):format(test.name, how, code))
  elseif not ok and failed == 0 then
    failed = 1
    print(("%s: claims success, ended by %s %d"):format(test.name, how, code))
  end
  return passed, failed
end

io.stdout:setvbuf "line"
local passed, failed, bad = 0, 0, {}
for _, suite in ipairs(arg) do
  local found = 0
  for _, row in ipairs(assert(suites[suite], "no suite of that name: " .. suite)) do
    for _, test in ipairs(commands(row[1], row[2], row[3])) do
      found = found + 1
      local p, f = run(test)
      passed, failed = passed + p, failed + f
      if f > 0 then bad[#bad + 1] = ("  %d in %s"):format(f, test.name) end
    end
  end
  if found == 0 then
    failed = failed + 1
    bad[#bad + 1] = ("  suite %s: no tests found"):format(suite)
  end
end
if failed > 0 then print("failed:\n" .. table.concat(bad, "\n")) end
print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0)
