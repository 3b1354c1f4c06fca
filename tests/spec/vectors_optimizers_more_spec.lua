--- The optimizers of optimizers_more.safetensors against PyTorch and Keras, eagerly and as a captured step: fifty steps over fixed
--- gradients; averages of the weights, gradients gathered over batches, a cycle of rate and momentum; L-BFGS on Rosenbrock's function.
local bp = require "bp"
local vectors = require "support.vectors"
local optim = bp.optim

local function options_of(case)
  local o = {}
  for key, value in pairs(case.options) do o[key] = value end
  return o
end

-- Keras rounds NAdam's 0.96 to f32.
local LOOSER = { nadam_keras = 1e-6 }

-- step(g0, g1) of the optimizer over the parameters, where the loss is the sum of parameter * gradient.
local function stepper(optimizer, params, captured)
  local function step(g0, g1)
    local loss = (params[1] * g0):sum() + (params[2] * g1):sum()
    optimizer:zero_grad()
    loss:backward()
    optimizer:step()
  end
  return captured and bp.capture(step) or step
end

-- make(params, options) gives the optimizer; read(optimizer, fn) calls fn while the parameters are what the case stores.
local function fifty_steps(make, read)
  return function(case, cases)
    local shared = cases.shared
    for _, captured in ipairs{ false, true } do
      local params = { vectors.leaf(shared.p0), vectors.leaf(shared.p1) }
      local optimizer = make(params, options_of(case), case)
      local step = stepper(optimizer, params, captured)
      for n = 1, shared.about.steps do
        step(shared.g0[n], shared.g1[n])
        for i, param in ipairs(params) do
          local stored = case[("step%d/p%d"):format(n, i - 1)]
          local what = ("%s, step %d, p%d"):format(captured and "captured" or "eager", n, i - 1)
          if stored and read then
            read(optimizer, function() vectors.near(stored, param, what) end)
          elseif stored then vectors.near(stored, param, what, LOOSER[case.name]) end
        end
      end
    end
  end
end

local tests = {
  ema = fifty_steps(function(params, o) return optim.sgd(params, o) end, function(optimizer, fn) optimizer:with_average(fn) end),
  accumulate = fifty_steps(function(params, o) return optim.adam(params, o) end),
}
for _, name in ipairs{ "adagrad", "adadelta", "nadam", "adamax", "radam", "rprop", "lion" } do
  tests[name] = fifty_steps(function(params, o) return optim[name](params, o) end)
end

local function cycle(class, momentum)
  return fifty_steps(function(params, o, case)
    local lr = optim.schedule.onecycle{ o.lr, steps = o.steps }
    local moving = optim.schedule.onecycle_momentum{ steps = o.steps }
    for t = 1, o.steps do
      assert.near(case.lr[t]:item(), lr(t), 1e-12)
      assert.near(case.momentum[t]:item(), moving(t), 1e-12)
    end
    return optim[class](params, { lr = lr, [momentum] = moving })
  end)
end
tests.onecycle_sgd, tests.onecycle_adam = cycle("sgd", "momentum"), cycle("adam", "beta1")

local function rosenbrock(x)
  local n = x:shape(1)
  local a, b = x[{ { 1, n - 1 } }], x[{ { 2, n } }]
  return ((b - a:square()):square() * 100 + (a * -1 + 1):square()):sum()
end

-- The rounding of one evaluation grows along the way: thirty of them for a millionth.
function tests.lbfgs(case)
  local x = vectors.leaf(case.start)
  local opt = optim.lbfgs({ x }, options_of(case))
  for call = 1, case.after:shape(1) do
    opt:step(function()
      opt:zero_grad()
      local value = rosenbrock(x)
      value:backward()
      return value
    end)
    vectors.near(case.after[call], x, "call " .. call, 1e-6)
  end
end

describe("more optimizers agree with PyTorch and Keras:", function()
  vectors.compare("optimizers_more", tests, {}, { "shared" })
end)
