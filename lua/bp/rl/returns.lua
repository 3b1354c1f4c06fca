--- Returns and advantages: what a step was worth, from the rewards that came after it. One pass over whole tensors (ops.linear_scan).
local core = require "bp.core"
local options = require "bp.options"
local policy = require "bp.rl.policy"

local ops = core.ops
local returns = {}

local common = {
  { "gamma", "number", min = 0, max = 1, default = 0.99, named = true, help = "what a reward is worth one step earlier" },
  { "done", "tensor|table", named = true, help = "like rewards: 1 or true where the episode ended with this step; default nowhere" },
  { "last", "tensor|number", default = 0, named = true,
    help = "value of what the last step led to, where its episode goes on: a number or one for each environment" },
  { "normalize", "boolean", default = false, named = true, help = "subtract the mean and divide by the standard deviation" },
}
local function fields(first, more)
  local list = table.move(first, 1, #first, 1, {})
  table.move(common, 1, #common, #list + 1, list)
  return table.move(more or {}, 1, more and #more or 0, #list + 1, list)
end

local rewards_field = { "rewards", "table|tensor", required = true,
  help = "[time] or [time][environments]: a tensor, or a list of numbers" }
local returns_spec = options.define("rl.returns", "Discounted sums of the rewards to come.", fields{ rewards_field })
local gae_spec = options.define("rl.gae", "Generalised advantage estimation.", fields({
  rewards_field,
  { "values", "table|tensor", required = true, help = "like rewards: the critic's value of what each step started from" },
}, {
  { "lambda", "number", min = 0, max = 1, default = 0.95, named = true,
    help = "0: one step ahead, leaning on the critic; 1: the whole return, leaning on the rewards" },
  { "cut", "table|tensor", named = true,
    help = "like rewards: where a time limit ended the episode, the value of the observation it stopped at, elsewhere 0" },
}))

-- A tensor f32 or f64 from a list or tensor.
local function floats(spec, name, value)
  if not core.is_tensor(value) then
    local list = {}
    for i, v in ipairs(value) do
      if core.is_tensor(v) then v = v:item() end
      list[i] = type(v) == "boolean" and (v and 1 or 0) or v
    end
    value = core.tensor(list, { dtype = "f32" })
  end
  if value.dtype ~= "f32" and value.dtype ~= "f64" then value = ops.cast(value, { dtype = "f32" }) end
  if value.ndim == 0 then spec:fail("option '%s' is one number; expected [time] or [time][environments]", name) end
  return value:detach()
end

local function like(spec, name, value, rewards)
  local t = floats(spec, name, value)
  local found, expected = policy.shape_text(t:shape()), policy.shape_text(rewards:shape())
  if found ~= expected then spec:fail("option '%s' is %s; expected the shape of rewards, %s", name, found, expected) end
  return t
end

-- gamma where the episode goes on, 0 where it ended.
local function decay_of(spec, o, rewards)
  if o.done == nil then return ops.full{ shape = rewards:shape(), value = o.gamma, dtype = rewards.dtype } end
  return (1 - like(spec, "done", o.done, rewards)) * o.gamma
end

-- Rows 2.. of t, then `last`.
local function next_of(spec, t, last)
  local n = t:size(1)
  local shape = t:shape()
  shape[1] = 1
  if type(last) == "number" then
    last = ops.full{ shape = shape, value = last, dtype = t.dtype }
  else
    if last:numel() ~= t:numel() // n then
      spec:fail("option 'last' is %s; expected one value for each environment, %s", policy.shape_text(last:shape()),
        policy.shape_text(table.move(shape, 2, #shape, 1, {})))
    end
    last = ops.cast(ops.reshape(last:detach(), { shape = shape }), { dtype = t.dtype })
  end
  if n == 1 then return last end
  return ops.concat({ ops.slice(t, { axis = 1, start = 2 }), last }, { axis = 1 })
end

local function normalized(t)
  local centred = t - ops.mean(t)
  return centred / (ops.sqrt(ops.mean(ops.square(centred))) + 1e-8)
end

-- rl.returns(rewards, { gamma = }) as well as rl.returns{ rewards, gamma = } and rl.returns{ 1, 0, 2 }.
local function read(given, ...)
  local more = ...
  if select("#", ...) == 1 and options.is_plain(more) then
    local joined = { given }
    for key, value in pairs(more) do joined[key] = value end
    return returns_spec:read(joined)
  end
  if options.is_plain(given) and #given > 1 and type(given[1]) == "number" then given = { given } end
  return returns_spec:read(given, ...)
end

--- The return of every step: R[t] = r[t] + gamma (1 - done[t]) R[t+1]. No gradient goes through it. rl.returns(rewards, { gamma = 0.99 })
--- is the same as rl.returns{ rewards, gamma = 0.99 }.
---@param given table { rewards, gamma = 0.99, done =, last = 0, normalize = false }
---@return tensor returns like rewards
function returns.returns(given, ...)
  local o = read(given, ...)
  return core.no_grad(function()
    local rewards = floats(returns_spec, "rewards", o.rewards)
    if rewards:numel() == 0 then returns_spec:fail("there are no rewards; expected at least one step") end
    local decay, x = decay_of(returns_spec, o, rewards), rewards
    if o.last ~= 0 then x = x + decay * next_of(returns_spec, ops.full{ shape = x:shape(), value = 0, dtype = x.dtype }, o.last) end
    local result = ops.linear_scan(x, decay, { axis = 1, reverse = true })
    return o.normalize and normalized(result) or result
  end)
end

--- Generalised advantage estimation: A[t] = d[t] + gamma lambda (1 - done[t]) A[t+1] with d[t] = r[t] + gamma (1 - done[t]) V[t+1] - V[t],
--- and the returns A + V that a critic is trained on. No gradient goes through it. Schulman and others, "High-Dimensional Continuous
--- Control Using Generalized Advantage Estimation", 2016.
---@param given table { rewards, values, gamma = 0.99, lambda = 0.95, done =, last = 0, cut =, normalize = false (the advantages) }
---@return tensor advantages like rewards
---@return tensor returns like rewards
function returns.gae(given, ...)
  local o = gae_spec:read(given, ...)
  return core.no_grad(function()
    local rewards = floats(gae_spec, "rewards", o.rewards)
    if rewards:numel() == 0 then gae_spec:fail("there are no rewards; expected at least one step") end
    local values = like(gae_spec, "values", o.values, rewards)
    local decay = decay_of(gae_spec, o, rewards)
    local delta = rewards + decay * next_of(gae_spec, values, o.last) - values
    if o.cut then delta = delta + like(gae_spec, "cut", o.cut, rewards) * o.gamma end
    local advantages = ops.linear_scan(delta, decay * o.lambda, { axis = 1, reverse = true })
    local targets = advantages + values
    return o.normalize and normalized(advantages) or advantages, targets
  end)
end

return returns
