--- Convolutions over sequences, in groups, depthwise, separable and transposed, pooling, resampling, merging and gates against PyTorch and
--- Keras: outputs and all gradients, in f64 to 1e-9, and in f32 to what f32 can hold.
local bp = require "bp"
local vectors = require "support.vectors"
local near, leaf = vectors.near, vectors.leaf
local nn = bp.nn

-- Options of a case without the metatables of JSON.
local function plain(value)
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, item in pairs(value) do copy[key] = plain(item) end
  return copy
end

-- make(options, given) gives the layer; given(name) an initialiser with the stored numbers. params: parameter by stored name.
local function layer_test(make, params)
  return function(case)
    for dtype, rtol in pairs{ f64 = 1e-9, f32 = 3e-4 } do
      local layer = make(plain(case.options), function(name)
        local tensor = case[name]
        return function() return tensor:to(dtype) end
      end)
      local x = leaf(case.x, dtype)
      local y = layer(x)
      near(case.y, y, dtype .. " y", rtol)
      y:backward{ grad = case.dy:to(dtype) }
      near(case.dx, x.grad, dtype .. " dx", rtol)
      for name, param in pairs(params or {}) do near(case["d" .. name], layer[param].grad, ("%s d%s"):format(dtype, name), rtol) end
    end
  end
end

local weights = { w = "kernel", b = "bias" }

local function conv(name)
  return layer_test(function(o, given)
    return nn[name]{ filters = o.filters, kernel_size = o.kernel, strides = o.strides, padding = o.padding, dilation = o.dilation,
      groups = o.groups, output_padding = o.output_padding, kernel_init = given "w", bias_init = given "b" }
  end, weights)
end

local function depthwise(name)
  return layer_test(function(o, given)
    return nn[name]{ kernel_size = o.kernel, strides = o.strides, padding = o.padding, dilation = o.dilation,
      depth_multiplier = o.multiplier, kernel_init = given "w", bias_init = given "b" }
  end, weights)
end

local function separable(name)
  return layer_test(function(o, given)
    return nn[name]{ filters = o.filters, kernel_size = o.kernel, strides = o.strides, padding = o.padding, dilation = o.dilation,
      depth_multiplier = o.multiplier, kernel_init = given "w", pointwise_init = given "p", bias_init = given "b" }
  end, { w = "kernel", p = "pointwise_kernel", b = "bias" })
end

local function simple(name)
  return layer_test(function(o) return nn[name](next(o) and o or nil) end)
end

-- Files count axes from 0 and have no batch where Keras has none; those of dot and glu are as ours.
local function merge(name)
  return function(case)
    for dtype, rtol in pairs{ f64 = 1e-9, f32 = 3e-4 } do
      local x = { leaf(case.x1, dtype), leaf(case.x2, dtype), case.x3 and leaf(case.x3, dtype) }
      local o = plain(case.options)
      local y = nn[name](next(o) and o or nil)(table.unpack(x))
      near(case.y, y, dtype .. " y", rtol)
      y:backward{ grad = case.dy:to(dtype) }
      for i, input in ipairs(x) do near(case["dx" .. i], input.grad, ("%s dx%d"):format(dtype, i), rtol) end
    end
  end
end

local tests = {
  conv1d = conv "conv1d", conv2d_groups = conv "conv2d", conv1d_transpose = conv "conv1d_transpose",
  conv2d_transpose = conv "conv2d_transpose",
  depthwise_conv1d = depthwise "depthwise_conv1d", depthwise_conv2d = depthwise "depthwise_conv2d",
  separable_conv1d = separable "separable_conv1d", separable_conv2d = separable "separable_conv2d",
  prelu = layer_test(function(_, given) return nn.prelu{ alpha_init = given "w" } end, { w = "alpha" }),
}
for _, name in ipairs{ "max_pool1d", "avg_pool1d", "global_avg_pool1d", "global_max_pool1d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
  "adaptive_max_pool1d", "adaptive_max_pool2d", "zero_pad1d", "zero_pad2d", "crop1d", "crop2d", "upsample1d", "upsample2d", "permute",
  "glu" } do
  tests[name] = simple(name)
end
for _, name in ipairs{ "add", "multiply", "average", "maximum", "minimum", "subtract", "concat", "dot" } do tests[name] = merge(name) end

function tests.regularizers(case)
  local o = plain(case.options)
  o.units, o.kernel_init, o.bias_init = 3, function() return case.w end, function() return case.b end
  local layer = nn.dense(o)
  local y, activity = require("bp.nn.module").with_activity(layer, case.x)
  near(case.y, y, "y")
  near(case.total, (layer:penalty() + activity):reshape(1), "the penalties", 1e-7) -- Keras' factors are f32
end

function tests.max_norm(case)
  local dense = nn.dense{ 3, max_norm = case.options.dense, kernel_init = function() return case.w end }
  local images = nn.conv2d{ 4, 3, max_norm = case.options.conv, kernel_init = function() return case.k end }
  dense(bp.ones(1, 4))
  images(bp.ones(1, 3, 3, 2))
  nn.sequential{ dense, images }:constrain()
  -- Keras divides by the length plus 1e-7
  near(case.dense, dense.kernel:detach(), "dense", 1e-6)
  near(case.conv, images.kernel:detach(), "conv", 1e-6)
end

function tests.normalization(case)
  local layer = nn.normalization{ case.options.axis }:adapt(case.x)
  near(case.y, layer(case.x), "y", 1e-6, 1) -- means and variances are kept in f32
end

describe("more layers agree with PyTorch and Keras:", function()
  vectors.compare("more_layers", tests, {})
end)
