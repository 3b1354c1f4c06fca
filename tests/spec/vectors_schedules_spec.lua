--- Learning-rate schedules against PyTorch and Keras.
local bp = require "bp"
local vectors = require "support.vectors"
local schedule = bp.optim.schedule

local function compare(make, rounding)
  return function(case)
    local rates, made = {}, make(case.options)
    for t = 1, case.lr:numel() do rates[t] = made(t) end
    vectors.near(case.lr, rates, "lr", case.source == "keras" and (rounding or 1e-6) or 1e-12) -- Keras computes rates in f32
  end
end

local tests = {
  step = compare(function(o) return schedule.step{ o.lr, every = o.every, gamma = o.gamma } end),
  multi_step = compare(function(o)
    return schedule.multistep{ o.lr, milestones = vectors.list(o.milestones), gamma = o.gamma }
  end),
  exponential = compare(function(o) return schedule.exp{ o.lr, gamma = o.gamma } end),
  polynomial = compare(function(o) return schedule.poly{ o.lr, steps = o.steps, power = o.power, final = o["end"] } end),
  cosine = compare(function(o) return schedule.cosine{ o.lr, steps = o.steps, min_lr = o.min_lr } end),
  linear = compare(function(o) return schedule.linear{ o.lr, steps = o.steps, start = o.start, last = o.last } end),
  noam = compare(function(o) return schedule.noam{ o.width, warmup = o.warmup, factor = o.factor } end),
  -- Keras' value holds up to and with its boundary, steps counted from 0.
  piecewise = compare(function(o)
    local boundaries = {}
    for i, b in ipairs(o.boundaries) do boundaries[i] = b + 1 end
    return schedule.piecewise{ boundaries, vectors.list(o.values) }
  end),
  plateau = function(case)
    local given = {}
    for key, value in pairs(case.options) do given[key] = value end
    local made, rates = schedule.plateau(given), {}
    for i, value in ipairs(case.values:totable()) do
      made:report(value)
      rates[i] = made(i)
    end
    vectors.near(case.lr, rates, "lr", 1e-12)
  end,
  -- Keras counts the steps of the cosine after the warmup, and its alpha is a share of the rate.
  cosine_warmup = compare(function(o)
    return schedule.cosine{ o.lr, warmup = o.warmup, start = o.start, steps = o.warmup + o.steps, min_lr = o.alpha * o.lr }
  end),
}

for _, name in ipairs{ "cosine_restarts", "cosine_restarts_longer", "cosine_restarts_lower" } do
  tests[name] = compare(function(o)
    return schedule.cosine_restarts{ o.lr, steps = o.steps, t_mul = o.t_mul, m_mul = o.m_mul, min_lr = o.min_lr }
  end, 1e-5)
end
for _, name in ipairs{ "inverse_time", "inverse_time_staircase" } do
  tests[name] = compare(function(o)
    return schedule.inverse_time{ o.lr, every = o.every, rate = o.rate, staircase = o.staircase }
  end)
end

describe("schedules agree with PyTorch and Keras:", function()
  vectors.compare("schedules", tests, {})
end)
