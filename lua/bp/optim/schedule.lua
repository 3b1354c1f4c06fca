--- Learning rates that change from step to step. A schedule is called with the number of the step, from 1, and returns its rate; a Lua
--- function does as well. The first step always sees the rate it was made with (after a warmup: the last step of the warmup does).
---
---     optim.adam{ lr = optim.schedule.cosine{ 1e-3, steps = 10000, warmup = 500 } }
---     optim.sgd{ lr = function(step) return 0.1 / step end }
local options = require "bp.options"

local schedule = {}

local Schedule = { __name = "schedule" }
Schedule.__index = Schedule

function Schedule:__call(step) return self.rate(step - 1, self.options) end

--- What it was made with, for saving.
---@return table config { name, options }
function Schedule:config()
  local plain = {}
  for key, value in pairs(self.options) do plain[key] = getmetatable(value) == Schedule and value:config() or value end
  return { name = self.name, options = plain }
end

--- The schedule that config() described.
---@param config table { name, options }
---@return table schedule
function schedule.from_config(config)
  local given = {}
  for key, value in pairs(config.options) do
    given[key] = type(value) == "table" and value.options and schedule.from_config(value) or value
  end
  return schedule[config.name](given)
end

local function lr(help)
  return { "lr", "number", min = 0, required = true, help = help or "rate of the first step" }
end

-- rate(t, o): t counts steps from 0. check(spec, o) may refuse options.
local function define(name, summary, fields, rate, check)
  local spec = options.define("schedule." .. name, summary, fields)
  schedule[name] = function(given, ...)
    if getmetatable(given) == Schedule then given = { given } end
    local o = spec:read(given, ...)
    if check then check(spec, o) end
    return setmetatable({ name = name, options = o, rate = rate }, Schedule)
  end
end

local steps_field = { "steps", "int", min = 1, required = true, named = true, help = "steps until the rate is the last" }
local min_lr = { "min_lr", "number", min = 0, default = 0, named = true, help = "the last rate" }

define("constant", "The same rate for ever.", { lr("the rate") }, function(_, o) return o.lr end)

define("step", "lr * gamma^floor(t / every).", {
  lr(),
  { "every", "int", min = 1, required = true, named = true, help = "steps between two changes" },
  { "gamma", "number", above = 0, default = 0.1, named = true, help = "factor of a change" },
}, function(t, o) return o.lr * o.gamma ^ (t // o.every) end)

define("multistep", "lr * gamma^(milestones reached).", {
  lr(),
  { "milestones", "ints", required = true, named = true, help = "numbers of steps after which the rate changes" },
  { "gamma", "number", above = 0, default = 0.1, named = true, help = "factor of a change" },
}, function(t, o)
  local reached = 0
  for _, milestone in ipairs(o.milestones) do
    if t >= milestone then reached = reached + 1 end
  end
  return o.lr * o.gamma ^ reached
end)

define("exp", "lr * gamma^t.", {
  lr(),
  { "gamma", "number", above = 0, required = true, named = true, help = "factor of each step" },
}, function(t, o) return o.lr * o.gamma ^ t end)

define("poly", "(lr - final) * (1 - t / steps)^power + final, flat after.", {
  lr(),
  { "steps", "int", min = 1, required = true, named = true, help = "steps until the rate is final" },
  { "power", "number", above = 0, default = 1, named = true, help = "1 falls in a line" },
  { "final", "number", min = 0, default = 0, named = true, help = "the last rate" },
}, function(t, o) return (o.lr - o.final) * (1 - math.min(t, o.steps) / o.steps) ^ o.power + o.final end)

define("cosine", "Linear from start to lr during the warmup, then half a cosine down to min_lr, flat after (Loshchilov & Hutter 2017).", {
  lr("highest rate"),
  { "steps", "int", min = 1, required = true, named = true, help = "steps until the rate is min_lr, those of the warmup included" },
  { "warmup", "int", min = 0, default = 0, named = true, help = "steps of the warmup" },
  { "start", "number", min = 0, default = 0, named = true, help = "rate of the first step of a warmup" },
  { "min_lr", "number", min = 0, default = 0, named = true, help = "the last rate" },
}, function(t, o)
  if t < o.warmup then return o.start + (o.lr - o.start) * t / o.warmup end
  local done = math.min(1, (t - o.warmup) / math.max(1, o.steps - o.warmup))
  return o.min_lr + (o.lr - o.min_lr) * (1 + math.cos(math.pi * done)) / 2
end)

-- Two halves of cosines, as in PyTorch's OneCycleLR with anneal_strategy "cos" and two phases: from first to top until t = pct_start *
-- steps - 1, from there to last until t = steps - 1.
local function two_cosines(t, o, first, top, last)
  local function cosine(from, to, share) return to + (from - to) / 2 * (1 + math.cos(math.pi * share)) end
  local turn, stop = o.pct_start * o.steps - 1, o.steps - 1
  if t <= turn then return cosine(first, top, t / turn) end
  return cosine(top, last, (math.min(t, stop) - turn) / (stop - turn))
end
local cycle_steps = { "steps", "int", min = 2, required = true, named = true, help = "steps of the whole cycle" }
local pct_start = { "pct_start", "number", above = 0, below = 1, default = 0.3, named = true, help = "share of the steps that go up" }

define("onecycle", "Up from lr / div_factor to lr and down again far below, each along a cosine (Smith & Topin 2018).", {
  lr("highest rate"), cycle_steps, pct_start,
  { "div_factor", "number", above = 0, default = 25, named = true, help = "the first rate is lr / div_factor" },
  { "final_div_factor", "number", above = 0, default = 1e4, named = true, help = "the last rate is the first / final_div_factor" },
}, function(t, o)
  local first = o.lr / o.div_factor
  return two_cosines(t, o, first, o.lr, first / o.final_div_factor)
end)

define("onecycle_momentum",
  "The momentum that goes with onecycle: down from `highest` to `lowest` and up again; for momentum of sgd, beta1 of adam.",
  { cycle_steps, pct_start,
    { "lowest", "number", min = 0, below = 1, default = 0.85, named = true, help = "where the rate is highest" },
    { "highest", "number", min = 0, below = 1, default = 0.95, named = true, help = "at both ends" },
  }, function(t, o) return two_cosines(t, o, o.highest, o.lowest, o.highest) end)

define("cosine_restarts", "Half a cosine down to min_lr, again and again, each time longer or lower (Loshchilov & Hutter 2017).", {
  lr("highest rate"),
  { "steps", "int", min = 1, required = true, named = true, help = "steps of the first fall" },
  { "t_mul", "number", min = 1, default = 2, named = true, help = "how much longer each fall is than the last; Keras: 2, PyTorch: 1" },
  { "m_mul", "number", above = 0, default = 1, named = true, help = "factor of the highest rate from fall to fall" },
  min_lr,
}, function(t, o)
  local length, fall = o.steps
  if o.t_mul == 1 then
    fall, t = t // length, t % length
  else
    fall = math.max(0, math.floor(math.log(t / length * (o.t_mul - 1) + 1, o.t_mul) + 1e-9))
    t = t - length * (o.t_mul ^ fall - 1) / (o.t_mul - 1)
    length = length * o.t_mul ^ fall
  end
  local top = o.min_lr + (o.lr - o.min_lr) * o.m_mul ^ fall
  return o.min_lr + (top - o.min_lr) * (1 + math.cos(math.pi * t / length)) / 2
end)

define("linear", "From lr * start to lr * last in a line, flat after (PyTorch's LinearLR).", {
  lr(), steps_field,
  { "start", "number", min = 0, default = 1 / 3, named = true, help = "factor of the first step" },
  { "last", "number", min = 0, default = 1, named = true, help = "factor after all steps" },
}, function(t, o) return o.lr * (o.start + (o.last - o.start) * math.min(t, o.steps) / o.steps) end)

define("inverse_time", "lr / (1 + rate * t / every) (Keras' InverseTimeDecay).", {
  lr(),
  { "every", "int", min = 1, required = true, named = true, help = "steps in which the divisor grows by rate" },
  { "rate", "number", min = 0, required = true, named = true, help = "growth of the divisor" },
  { "staircase", "boolean", default = false, named = true, help = "fall only every so many steps" },
}, function(t, o) return o.lr / (1 + o.rate * (o.staircase and t // o.every or t / o.every)) end)

define("inverse_sqrt", "Up in a line during the warmup, then lr * sqrt(warmup / step).", {
  lr("highest rate"),
  { "warmup", "int", min = 1, default = 4000, named = true, help = "steps until the highest rate" },
}, function(t, o)
  local step = t + 1
  return o.lr * math.min(step / o.warmup, math.sqrt(o.warmup / step))
end)

define("noam",
  "factor * width^-1/2 * min(step^-1/2, step * warmup^-3/2): what transformers were first trained with (Vaswani et al. 2017).", {
  { "width", "int", min = 1, required = true, help = "features of the model" },
  { "warmup", "int", min = 1, default = 4000, named = true, help = "steps until the highest rate" },
  { "factor", "number", above = 0, default = 1, named = true, help = "factor of the whole" },
}, function(t, o)
  local step = t + 1
  return o.factor * o.width ^ -0.5 * math.min(step ^ -0.5, step * o.warmup ^ -1.5)
end)

define("piecewise",
  "values[1] for the first boundaries[1] steps, values[2] until boundaries[2], and so on; Keras' PiecewiseConstantDecay keeps "
  .. "each one step longer.", {
    { "boundaries", "ints", required = true, help = "numbers of steps after which the next value holds" },
    { "values", "table", required = true, help = "rates: one more than boundaries" },
  }, function(t, o)
    local i = 1
    while o.boundaries[i] and t >= o.boundaries[i] do i = i + 1 end
    return o.values[i]
  end, function(spec, o)
    if #o.values ~= #o.boundaries + 1 then
      spec:fail("%d values for %d boundaries; expected one more than boundaries", #o.values, #o.boundaries)
    end
    for i, value in ipairs(o.values) do
      if type(value) ~= "number" or not (value >= 0) then -- luacheck: ignore 581
        spec:fail("value %d is %s; expected a number at least 0", i, options.describe(value))
      end
      if i > 1 and i < #o.values and o.boundaries[i] <= o.boundaries[i - 1] then
        spec:fail("boundary %d is %d after %d; expected them to grow", i, o.boundaries[i], o.boundaries[i - 1])
      end
    end
  end)

define("warmup", "Up in a line from start to the first rate of another schedule, which begins then.", {
  { "after", "function", required = true, help = "the schedule that follows" },
  { "steps", "int", min = 1, required = true, named = true, help = "steps of the warmup" },
  { "start", "number", min = 0, default = 0, named = true, help = "rate of the first step" },
}, function(t, o)
  if t >= o.steps then return o.after(t - o.steps + 1) end
  return o.start + (o.after(1) - o.start) * t / o.steps
end)

--- Other names for the same.
schedule.exponential, schedule.polynomial = schedule.exp, schedule.poly

-- ---- plateau -------------------------------------------------------------------------------------------------------------------------

local core = require "bp.core"

local plateau_spec = options.define("schedule.plateau", "Falls when a number that report() is given has not become better for a while.", {
  lr(),
  { "factor", "number", above = 0, below = 1, default = 0.1, named = true, help = "what the rate is multiplied with" },
  { "patience", "int", min = 0, default = 10, named = true, help = "reports without becoming better before the rate falls" },
  { "min_delta", "number", min = 0, default = 1e-4, named = true, help = "a smaller change does not count as better" },
  { "threshold_mode", "choice", choices = { "rel", "abs" }, default = "rel",
    named = true, help = '"rel": min_delta is a share of the best value, as in PyTorch; "abs": as in Keras' },
  { "mode", "choice", choices = { "min", "max" }, default = "min", named = true, help = "what is better" },
  { "cooldown", "int", min = 0, default = 0, named = true, help = "reports after a fall that are not counted" },
  { "min_lr", "number", min = 0, default = 0, named = true, help = "the rate falls no lower" },
  { "eps", "number", min = 0, default = 1e-8, named = true, help = "a fall by less is not made" },
})

local RATE, BEST, WAIT, COOLDOWN = 1, 2, 3, 4

--- The learning rate that falls when nothing becomes better: opt = optim.sgd(params, { lr = s }); after every epoch s:report(loss). fit has
--- callbacks.reduce_lr_on_plateau. What it has seen is part of the optimizer's state.
---@param given table { lr, factor = 0.1, patience = 10, min_delta = 1e-4, mode = "min", cooldown = 0, min_lr = 0 }
---@return table schedule with :report(value)
function schedule.plateau(given, ...)
  local o = plateau_spec:read(given, ...)
  local self = setmetatable({ name = "plateau", options = o }, Schedule)
  self.memory = core.pause(core.tensor, { o.lr, 0 / 0, 0, 0 }, { dtype = "f64" })
  self.rate = function() return self.memory[RATE]:item() end
  --- Takes note of a number; the rate may fall.
  function self.report(_, value)
    if core.is_tensor(value) then value = value:item() end
    if type(value) ~= "number" then plateau_spec:fail("report was given %s; expected a number", options.describe(value)) end
    local m = self.memory:totable()
    local sign = o.mode == "min" and 1 or -1
    local delta = o.threshold_mode == "rel" and o.min_delta * math.abs(m[BEST]) or o.min_delta
    if m[BEST] ~= m[BEST] and value == value or sign * (m[BEST] - value) > delta then
      m[BEST], m[WAIT] = value, 0
    else
      m[WAIT] = m[WAIT] + 1
    end
    if m[COOLDOWN] > 0 then m[COOLDOWN], m[WAIT] = m[COOLDOWN] - 1, 0 end
    if m[WAIT] > o.patience then
      local lower = math.max(o.min_lr, m[RATE] * o.factor)
      if m[RATE] - lower > o.eps then m[RATE] = lower end
      m[WAIT], m[COOLDOWN] = 0, o.cooldown
    end
    core.pause(function() self.memory:copy_(core.tensor(m, { dtype = "f64" })) end)
  end
  return self
end

--- Whether a learning rate changes with the step.
---@param value any
---@return boolean
---@private
function schedule.is_dynamic(value)
  return type(value) == "function" or getmetatable(value) == Schedule
end

return schedule
