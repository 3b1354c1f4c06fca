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
function Schedule:config() return { name = self.name, options = self.options } end

local function lr(help)
  return { "lr", "number", min = 0, required = true, help = help or "rate of the first step" }
end

-- rate(t, o): t counts steps from 0.
local function define(name, summary, fields, rate)
  local spec = options.define("schedule." .. name, summary, fields)
  schedule[name] = function(given, ...)
    return setmetatable({ name = name, options = spec:read(given, ...), rate = rate }, Schedule)
  end
end

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

--- Whether a learning rate changes with the step.
---@param value any
---@return boolean
function schedule.is_dynamic(value)
  return type(value) == "function" or getmetatable(value) == Schedule
end

return schedule
