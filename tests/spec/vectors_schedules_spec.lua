--- Learning-rate schedules against PyTorch and Keras.
local bp = require "bp"
local vectors = require "support.vectors"
local schedule = bp.optim.schedule

local function compare(make)
  return function(case)
    local rates, made = {}, make(case.options)
    for t = 1, case.lr:numel() do rates[t] = made(t) end
    vectors.near(case.lr, rates, "lr", case.source == "keras" and 1e-6 or 1e-12) -- Keras computes rates in f32
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
  -- Keras counts the steps of the cosine after the warmup, and its alpha is a share of the rate.
  cosine_warmup = compare(function(o)
    return schedule.cosine{ o.lr, warmup = o.warmup, start = o.start, steps = o.warmup + o.steps, min_lr = o.alpha * o.lr }
  end),
}

describe("schedules agree with PyTorch and Keras:", function()
  vectors.compare("schedules", tests, {})
end)
