--- rl.vector_env: many copies of an environment, stepped together, so that the net sees a batch.
local check_self = require "bp.methods"
local core = require "bp.core"
local options = require "bp.options"

local vector_env = {}

local spec = options.define("rl.vector_env", "Many environments stepped together.", {
  { "envs", "table", help = "list of environments" },
  { "make", "function", named = true, help = "function (i) -> environment number i, instead of a list" },
  { "count", "int", min = 1, default = 8, named = true, help = "how many make is called for" },
})

local Vector = {}
local meta = { __index = Vector, __name = "rl.vector_env", __len = function(self) return #self.envs end }

--- Environments stepped together. Those whose episode is over start a new one at once.
---@param given table { envs } or { make = function (i) -> env, count = 8 }
---@return table vector #vector is their number
function vector_env.vector_env(given, ...)
  local o = spec:read(given, ...)
  if (o.envs == nil) == (o.make == nil) then spec:fail("expected either a list of environments or make = function (i)") end
  local envs = o.envs or {}
  for i = 1, o.make and o.count or 0 do envs[i] = o.make(i) end
  if #envs == 0 then spec:fail("the list of environments is empty") end
  for i, env in ipairs(envs) do
    if type(env) ~= "table" and type(env) ~= "userdata" or not env.reset or not env.step then
      spec:fail("environment %d is %s; expected a table with methods reset and step", i, options.describe(env))
    end
  end
  return setmetatable({ envs = envs, actions = envs[1].actions, action_size = envs[1].action_size, running = {}, lengths = {} }, meta)
end

local function plain(observation)
  return core.is_tensor(observation) and observation:totable() or observation
end

--- Starts all episodes anew.
---@return tensor observations tensor [environments]...
function Vector:reset()
  local rows = {}
  for i, env in ipairs(self.envs) do
    rows[i] = plain(env:reset())
    self.running[i], self.lengths[i] = 0, 0
  end
  return core.tensor(rows)
end

-- Actions as a list: numbers, or lists of numbers.
local function list_of(self, actions)
  local list = core.is_tensor(actions) and actions:totable() or actions
  if type(list) ~= "table" or #list ~= #self.envs then
    core.error(("vector:step: the actions are %s; expected one for each of %d environments"):format(options.describe(actions), #self.envs))
  end
  return list
end

--- One step of every environment. Where an episode ends, the observation is the first one of the next, and infos[i] tells about the one
--- that ended: { episode_return =, episode_length =, final_observation = (a tensor), truncated = } beside what the environment said.
---@param actions any tensor [environments] or [environments][n], or a list
---@return tensor observations tensor [environments]...
---@return tensor rewards f32 [environments]
---@return tensor dones f32 [environments]: 1 where an episode ended
---@return table infos a table for each environment
function Vector:step(actions)
  if not self.running[1] then core.error "vector:step: called before reset" end
  local observations, rewards, dones, infos = {}, {}, {}, {}
  for i, action in ipairs(list_of(self, actions)) do
    local observation, reward, done, info = self.envs[i]:step(action)
    self.running[i], self.lengths[i] = self.running[i] + reward, self.lengths[i] + 1
    infos[i] = {}
    for key, value in pairs(info or {}) do infos[i][key] = value end
    if done then
      local told = infos[i]
      told.episode_return, told.episode_length, told.final_observation = self.running[i], self.lengths[i], core.tensor(plain(observation))
      told.truncated = told.truncated or false
      self.running[i], self.lengths[i] = 0, 0
      observation = self.envs[i]:reset()
    end
    observations[i], rewards[i], dones[i] = plain(observation), reward, done and 1 or 0
  end
  return core.tensor(observations), core.tensor(rewards), core.tensor(dones), infos
end

check_self(Vector, "vector", function(value) return getmetatable(value) == meta end)

return vector_env
