--- Optimizers against PyTorch and Keras: fifty steps over fixed gradients, eagerly and as a captured step.
local bp = require "bp"
local vectors = require "support.vectors"
local optim = bp.optim

local EPS_INSIDE = { eps_inside = true }

local function options_of(case)
  local o = {}
  for key, value in pairs(case.options) do
    if key ~= "form" then o[key] = value end
  end
  if EPS_INSIDE[case.options.form] then o.eps_inside = true end
  local rates = case.lr and case.lr:totable()
  if rates then o.lr = function(step) return rates[step] end end
  return o
end

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

local function check(case, cases)
  local shared = cases.shared
  for _, captured in ipairs{ false, true } do
    local params = { vectors.leaf(shared.p0), vectors.leaf(shared.p1) }
    local step = stepper(optim[case.op](params, options_of(case)), params, captured)
    for n = 1, shared.about.steps do
      step(shared.g0[n], shared.g1[n])
      for i, param in ipairs(params) do
        local stored = case[("step%d/p%d"):format(n, i - 1)]
        if stored then vectors.near(stored, param, ("%s, step %d, p%d"):format(captured and "captured" or "eager", n, i - 1)) end
      end
    end
  end
end

local adam = "Keras' place of eps in adam; ours is PyTorch's, with Keras' 1e-7 to be had as eps"

describe("optimizers agree with PyTorch and Keras:", function()
  vectors.compare("optimizers", { sgd = check, adam = check, adamw = check, rmsprop = check }, {
    adam_keras = adam,
    adamw_keras = adam,
    clip_norm_keras = "Keras divides by max(norm, c); ours is PyTorch's min(1, c / (norm + 1e-6))",
  }, { "shared" })
end)
