--- Random architectures: every draw of a seed gives a model of other layers, options and shapes, and inputs for it.
local bp = require "bp"
local nn = bp.nn

local architectures = {}

nn.register("spec_twice", function(x) return x * 2 end)

-- Two branches that share a layer, and a number of its own.
local Branches = nn.module("SpecBranches", function(self, units, layer)
  self.shared, self.first, self.gain = layer, nn.dense(units), nn.parameter{ 1.5 }
  self.again = { layer }
end)
function Branches:forward(x) return self.first(self.shared(x)) + self.again[1](x):mean{ axes = -1, keepdims = true } * self.gain end

-- xorshift64*: the same draws wherever the test runs, whatever else draws.
local function stream(seed)
  local state = seed * 0x9E3779B97F4A7C15 | 1
  return function(n)
    state = state ~ (state >> 12)
    state = state ~ (state << 25)
    state = state ~ (state >> 27)
    return (state * 0x2545F4914F6CDD1D >> 33) % n + 1
  end
end

local ACTIVATIONS = { "linear", "relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "softplus", "softmax", "log_softmax" }
local KERNELS = { "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal", "orthogonal", "uniform",
  "normal", 0.25 }

-- One layer and whether it may follow images (4), rows (2) or both.
local function weights(draw, o)
  o.kernel_init, o.use_bias = KERNELS[draw(#KERNELS)], draw(3) > 1
  if draw(2) == 1 then o.activation = ACTIVATIONS[draw(#ACTIVATIONS)] end
  if draw(3) == 1 then o.l2 = draw(9) / 1000 end
  if draw(4) == 1 then o.l1 = draw(9) / 1000 end
  if draw(3) == 1 then o.bias_init = draw(9) / 10 end
  return o
end

local both = {
  function(draw) return nn.dropout(draw(9) / 10) end,
  function(draw) return nn.batch_norm{ decay = draw(99) / 100, eps = draw(9) * 1e-4, scale = draw(2) == 1, center = draw(2) == 1 } end,
  function(draw) return nn.activation(ACTIVATIONS[draw(#ACTIVATIONS)]) end,
  function(draw) return nn.leaky_relu(draw(9) / 10) end,
  function(draw) return nn.elu(draw(20) / 10) end,
  function(draw) return nn.gelu{ approximate = draw(2) == 1 } end,
  function(draw) return nn.softmax{ axis = draw(2) == 1 and -1 or 2 } end,
  function(draw) return nn.rescaling{ draw(20) / 10, draw(9) - 5 } end,
  function() return nn.lambda "spec_twice" end,
}

local function images(draw)
  local choice = draw(4)
  local padding = draw(2) == 1 and "same" or "valid"
  if choice == 1 then return nn.max_pool2d{ { draw(2), draw(2) }, padding = padding } end
  if choice == 2 then return nn.avg_pool2d{ draw(2), strides = draw(2), padding = padding } end
  return nn.conv2d(weights(draw, { filters = draw(5), kernel_size = { draw(2), draw(2) }, strides = draw(4) == 1 and { 2, 1 } or nil,
    dilation = draw(5) == 1 and 2 or nil, padding = draw(3) > 1 and "same" or "valid" }))
end

local function rows(draw)
  if draw(6) == 1 then return Branches(draw(4), nn.dense(weights(draw, { units = draw(6) }))) end
  return nn.dense(weights(draw, { units = draw(12), name = draw(5) == 1 and "named" or nil }))
end

local function some(list, draw, special)
  for _ = 1, draw(3) do list[#list + 1] = draw(2) == 1 and special(draw) or both[draw(#both)](draw) end
end

-- Two layers of one name in one model are an error, so only the first keeps it.
local function without_doubles(list)
  local taken = false
  for i, layer in ipairs(list) do
    if rawget(layer, "given_name") == "named" then
      if taken then list[i] = nn.flatten() end
      taken = true
    end
  end
  return list
end

-- The layers as a branch of a graph, beside one that takes a shortcut.
local function branched(list, draw, shape)
  local x = nn.input{ shape = table.move(shape, 2, #shape, 1, {}) }
  local deep = nn.sequential(list)(x)
  local short = nn.dense(deep:shape(2))(nn.flatten()(x))
  local merge = ({ "add", "multiply", "average", "maximum", "minimum", "subtract", "concat", "dot" })[draw(8)]
  return nn.model{ inputs = x, outputs = nn.dense(2)(nn[merge]()(deep, short)) }
end

--- A model and inputs for it; the same ones for the same seed.
function architectures.draw(seed)
  local draw = stream(seed)
  bp.seed(seed)
  local list, shape = {}
  if draw(2) == 1 then
    shape = { draw(3) + 1, draw(5) + 5, draw(5) + 5, draw(3) }
    some(list, draw, images)
    list[#list + 1] = draw(3) == 1 and nn.global_avg_pool2d() or draw(2) == 1 and nn.global_max_pool2d() or nn.flatten()
  else
    shape = { draw(4) + 1, draw(9) + 1 }
    if draw(4) == 1 then
      shape[2] = 12
      list[1] = nn.reshape{ 3, -1 }
      list[2] = nn.flatten()
    end
  end
  some(list, draw, rows)
  if draw(3) == 1 then list[#list + 1] = nn.sequential{ nn.dense(draw(5)), nn.tanh() } end
  local shared = nn.dense(3)
  if draw(4) == 1 then
    list[#list + 1], list[#list + 2], list[#list + 3] = nn.dense(3), shared, shared
  end
  list[#list + 1] = nn.dense(draw(4))
  list = without_doubles(list)
  local model = draw(3) == 1 and branched(list, draw, shape) or nn.sequential(list)
  local x = bp.randn(shape)
  if draw(4) == 1 then x = bp.randint(0, 255, shape):to "u8" end
  model(x) -- in training: running statistics move
  if draw(3) == 1 then model:freeze "dense_*" end
  if draw(2) == 1 then model:compile{ optimizer = bp.optim.adamw{ lr = draw(9) / 1000 }, loss = "mse", metrics = { "mae" } } end
  return model, x
end

return architectures
