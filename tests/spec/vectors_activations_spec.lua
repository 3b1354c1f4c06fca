--- Activations against PyTorch and Keras, far out in both tails too.
local bp = require "bp"
local vectors = require "support.vectors"
local nn = bp.nn

local layers = {
  relu = function() return nn.relu() end,
  leaky_relu = function(o) return nn.leaky_relu{ slope = o.slope } end,
  elu = function(o) return nn.elu{ alpha = o.alpha } end,
  gelu = function() return nn.gelu() end,
  gelu_tanh = function() return nn.gelu{ approximate = true } end,
  silu = function() return nn.silu() end,
  sigmoid = function() return nn.sigmoid() end,
  tanh = function() return nn.tanh() end,
  softplus = function() return nn.softplus() end,
  relu6 = function() return nn.relu6() end,
  selu = function() return nn.selu() end,
  mish = function() return nn.mish() end,
  hard_sigmoid = function() return nn.hard_sigmoid() end,
  hard_tanh = function() return nn.hard_tanh() end,
  softsign = function() return nn.softsign() end,
  exponential = function() return nn.exponential() end,
  linear = function() return nn.linear() end,
  -- files count axes from 0
  softmax = function(o) return nn.softmax{ axis = o.axis < 0 and o.axis or o.axis + 1 } end,
  log_softmax = function(o) return nn.log_softmax{ axis = o.axis < 0 and o.axis or o.axis + 1 } end,
}

local tests = {}
for op, make in pairs(layers) do
  tests[op] = function(case)
    for dtype, rtol in pairs{ f64 = 1e-9, f32 = 1e-4 } do
      -- in f32 a gradient is no better than the unit in the last place of its terms
      local least = dtype == "f32" and 0.01 or nil
      local x = vectors.leaf(case.x, dtype)
      local y = make(case.options)(x)
      vectors.near(case.y, y, dtype .. " y", rtol)
      y:backward{ grad = case.dy:to(dtype) }
      vectors.near(case.dx, x.grad, dtype .. " dx", rtol, least)
    end
  end
end

describe("activations agree with PyTorch and Keras:", function()
  vectors.compare("activations", tests, {})
end)

describe("an activation's name", function()
  it("stands for the layer with its defaults", function()
    local x = bp.randn(8, 8) * 5
    for _, name in ipairs{ "relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "softplus", "softmax", "log_softmax",
      "relu6", "selu", "mish", "hard_sigmoid", "hard_tanh", "softsign", "exponential", "linear", "glu" } do
      assert.is_true(nn.activation(name)(x):eq(nn[name]()(x)):all():item(), name)
    end
  end)
end)
