--- bp.rl: learning to decide. Policies (categorical, normal), returns and advantages, a replay buffer, environments.
---
--- An environment is any table (or object) with two methods, a host's game as well as one written in Lua:
---
---     local observation = env:reset()
---     local observation, reward, done, info = env:step(action)
---
--- An observation is a tensor, a number, or a list of numbers (nested as one likes), always of one shape. A discrete action is a number
--- from 1 to `env.actions`, a continuous one a list of `env.action_size` numbers. `done` is true once the episode is over; `info` is a
--- table or nil, and `info.truncated = true` says that a time limit cut the episode off, so that what follows still has a value.
--- rl.check_env tries an environment out.
local core = require "bp.core"

local rl = {
  categorical = require("bp.rl.categorical").categorical,
  normal = require("bp.rl.normal").normal,
  returns = require("bp.rl.returns").returns,
  gae = require("bp.rl.returns").gae,
  replay = require("bp.rl.replay").replay,
  check_env = require("bp.rl.check_env").check_env,
  vector_env = require("bp.rl.vector_env").vector_env,
  cartpole = require("bp.rl.cartpole").cartpole,
}

return setmetatable(rl, {
  __index = function(_, key)
    if type(key) ~= "string" then return nil end
    local known = {}
    for name in pairs(rl) do known[#known + 1] = name end
    table.sort(known)
    core.error(("bp.rl has no '%s'%s"):format(key, require("bp.options").hint(key, known)))
  end,
})
