--- rl.check_env: tries an environment out and says what is wrong with it.
local core = require "bp.core"
local options = require "bp.options"
local policy = require "bp.rl.policy"

local check_env = {}

local spec = options.define("rl.check_env", "Tries an environment out with random actions.", {
  { "env", "table", required = true, help = "what is to be tried" },
  { "steps", "int", min = 1, default = 1000, named = true, help = "how many steps are taken, over as many episodes as they make" },
  { "action", "function", named = true,
    help = "function (env) -> an action, where neither env.actions nor env.action_size says what the actions are" },
  policy.stream_field,
})

-- The shape of an observation or nil, and what is wrong with it.
local function shape_of(observation)
  if type(observation) == "number" then observation = core.tensor(observation) end
  if not core.is_tensor(observation) then
    if not options.is_plain(observation) then
      return nil, options.describe(observation) .. "; expected a tensor, a number or a list of numbers"
    end
    local ok, made = pcall(core.tensor, observation)
    if not ok then return nil, "a table that makes no tensor: " .. tostring(made):gsub("^[^\n]-:%d+: ", "") end
    observation = made
  end
  local finite = core.ops.all(core.ops.isfinite(core.ops.cast(observation, { dtype = "f32" }))):item()
  if not finite then return nil, "not finite in every element (NaN or infinity)" end
  return observation:shape()
end

local function callable(value)
  local meta = getmetatable(value)
  return type(value) == "function" or type(meta) == "table" and meta.__call ~= nil
end

-- What gives actions: function () -> action.
local function actions_of(env, o)
  if o.action then return function() return o.action(env) end end
  local state = policy.stream(spec, o.stream)
  if env.actions ~= nil then
    if not math.tointeger(env.actions) or env.actions < 1 then
      spec:fail("env.actions is %s; expected the number of actions, which are 1 to that number", options.describe(env.actions))
    end
    return function() return core.ops.random_integers(state, { shape = {}, low = 1, high = math.tointeger(env.actions) }):item() end
  end
  if env.action_size ~= nil then
    if not math.tointeger(env.action_size) or env.action_size < 1 then
      spec:fail("env.action_size is %s; expected how many numbers an action has", options.describe(env.action_size))
    end
    return function()
      return core.ops.random_uniform(state, { shape = { math.tointeger(env.action_size) }, low = -1, high = 1 }):totable()
    end
  end
  spec:fail("the environment has neither 'actions' (how many) nor 'action_size' (numbers in one); say so in it, or pass action = function")
end

--- Tries an environment out: reset and step with random actions, episode after episode. Raises an error that names the first thing that is
--- wrong; else tells what was seen.
---@param given table { env, steps = 1000, action =, stream = "noise" }, or the environment alone
---@return table report { steps =, episodes =, observation_shape =, mean_return = }
function check_env.check_env(given, ...)
  if type(given) == "table" and (callable(given.reset) or callable(given.step)) then given = { env = given } end
  local o = spec:read(given, ...)
  local env = o.env
  for _, name in ipairs{ "reset", "step" } do
    if not callable(env[name]) then
      spec:fail("env.%s is %s; expected a method: function env:%s(%s)", name, options.describe(env[name]), name,
        name == "step" and "action" or "")
    end
  end
  local act = actions_of(env, o)
  local report = { steps = 0, episodes = 0, returns = 0, running = 0 }
  local function look(what, observation)
    local shape, trouble = shape_of(observation)
    if not shape then spec:fail("step %d: the observation of %s is %s", report.steps, what, trouble) end
    report.observation_shape = report.observation_shape or shape
    local found, expected = policy.shape_text(shape), policy.shape_text(report.observation_shape)
    if found ~= expected then spec:fail("step %d: the observation of %s is %s; it was %s before", report.steps, what, found, expected) end
  end
  look("reset", env:reset())
  while report.steps < o.steps do
    report.steps = report.steps + 1
    local observation, reward, done, info = env:step(act())
    look("step", observation)
    if type(reward) ~= "number" or reward ~= reward or math.abs(reward) == math.huge then
      spec:fail("step %d: the reward is %s; expected a finite number", report.steps, options.describe(reward))
    end
    if type(done) ~= "boolean" then spec:fail("step %d: done is %s; expected true or false", report.steps, options.describe(done)) end
    if info ~= nil and type(info) ~= "table" then
      spec:fail("step %d: info is %s; expected a table or nil", report.steps, options.describe(info))
    end
    report.running = report.running + reward
    if done then
      report.episodes, report.returns, report.running = report.episodes + 1, report.returns + report.running, 0
      look("reset", env:reset())
    end
  end
  return { steps = report.steps, episodes = report.episodes, observation_shape = report.observation_shape,
    mean_return = report.episodes > 0 and report.returns / report.episodes or nil }
end

return check_env
