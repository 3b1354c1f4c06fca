--- scripts/cartpole.lua solves the cart-pole: a mean return of at least 475 over 100 new episodes, by REINFORCE and by PPO, from two seeds
--- each.
local bplua = arg[-1]
local passed, failed = 0, 0
for _, method in ipairs{ "reinforce", "ppo" } do
  for seed = 1, 2 do
    local program <close> = io.popen(("'%s' scripts/cartpole.lua --method %s --seed %d 2>&1"):format(bplua, method, seed))
    local text = program:read "a"
    local reached = tonumber(text:match "mean return over 100 episodes: ([%d.]+)")
    local solved = reached and reached >= 475
    passed, failed = passed + (solved and 1 or 0), failed + (solved and 0 or 1)
    print(("%s, seed %d: mean return %s"):format(method, seed, reached or text))
  end
end
print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0)
