--- nn.depthwise_conv1d/2d: every channel convolved by itself, weights [kh][kw][channels][depth_multiplier]; nn.separable_conv1d/2d: that,
--- and a 1x1 convolution across channels after it (Chollet, "Xception", 2017).
local core = require "bp.core"
local activations = require "bp.nn.activations"
local layer = require "bp.nn.layer"
local pad = require "bp.nn.pad"

local ops = core.ops
local layers = {}

-- What the four kinds share. dims: 1 or 2.
local function fields(dims, separable)
  local kind, one = dims == 1 and "int" or "pair", dims == 1 and 1 or { 1, 1 }
  local list = {}
  local function add(...) list[#list + 1] = { ... } return list[#list] end
  if separable then add("filters", "int").min, list[1].required, list[1].help = 1, true, "number of output channels" end
  for _, field in ipairs{
    { "kernel_size", kind, min = 1, required = true,
      help = dims == 1 and "length of the window" or "height and width; one number for both" },
    { "strides", kind, min = 1, default = one, help = "steps of the window" },
    { "padding", "choice", choices = dims == 1 and { "valid", "same", "causal" } or { "valid", "same" }, default = "valid",
      help = '"same" pads so that stride 1 keeps the size' .. (dims == 1 and '; "causal" pads before only' or "") },
    { "depth_multiplier", "int", min = 1, default = 1, named = true, help = "results of every channel; 1 is the fast one" },
    { "dilation", kind, min = 1, default = one, named = true, help = "distance between the taps of the window" },
    { "activation", "string|function", named = true, help = "name or function applied to the result; default none" },
    { "inputs", "int", min = 1, named = true, help = "input channels, when the layer is to have its parameters before the first call" },
  } do list[#list + 1] = field end
  layer.add_weight_fields(list)
  if separable then
    list[#list + 1] = { "pointwise_init", "string|number|function", default = "glorot_uniform", named = true,
      help = "initialiser of the weights across channels; kernel_init is that of the windows" }
  end
  return list
end

local expected = { "[batch][time][channels]", "[batch][height][width][channels]" }

-- [batch][time][channels] and kernels [k][...] as images of one row.
local function as_image(dims, x, axis) return dims == 1 and ops.unsqueeze(x, { axis = axis }) or x end

local function define(dims, separable)
  local name = (separable and "separable_conv%dd" or "depthwise_conv%dd"):format(dims)
  local summary = separable and "Depthwise convolution over %s, then a 1x1 convolution across channels."
    or "Convolution of every channel of %s by itself."
  local class = layer.define(name, summary:format(expected[dims]), fields(dims, separable))
  layers[name] = class

  function class:setup(o)
    local fused, rest = activations.split(name, o.activation)
    rawset(self, "rest", rest)
    rawset(self, "fused", fused)
    rawset(self, "op_options", {
      stride = dims == 1 and { 1, o.strides } or o.strides, dilation = dims == 1 and { 1, o.dilation } or o.dilation,
      padding = o.padding == "same" and "same" or "valid", activation = separable and "none" or fused,
    })
    if o.inputs then self:build_for(dims == 1 and { 1, o.inputs } or { 1, 1, o.inputs }) end
  end

  function class:build(shape)
    local o, channels = self.options, shape[#shape]
    layer.need_dims(self, shape, dims + 2, expected[dims])
    local size = dims == 1 and { o.kernel_size } or { o.kernel_size[1], o.kernel_size[2] }
    size[#size + 1], size[#size + 2] = channels, o.depth_multiplier
    local window = dims == 1 and o.kernel_size or o.kernel_size[1] * o.kernel_size[2] -- one channel is what a result sees
    local fan_in = window
    self.kernel = layer.parameter(name, o.kernel_init, size, window)
    if separable then
      local point = dims == 1 and { 1 } or { 1, 1 }
      point[#point + 1], point[#point + 2] = channels * o.depth_multiplier, o.filters
      local how = o.init == "torch" and o.pointwise_init == "glorot_uniform" and "torch" or o.pointwise_init
      fan_in = channels * o.depth_multiplier
      self.pointwise_kernel = layer.parameter(name, how, point, fan_in)
    end
    local outputs = separable and o.filters or channels * o.depth_multiplier
    if o.use_bias then self.bias = layer.parameter(name, o.bias_init, { outputs }, fan_in) end
  end

  function class:forward(x)
    local o = self.options
    layer.need_dims(self, x:shape(), dims + 2, expected[dims])
    if o.padding == "causal" then x = pad.zeros(x, 2, (o.kernel_size - 1) * o.dilation, 0) end
    local bias = not separable and self.bias or nil
    local y = ops.depthwise_conv2d(as_image(dims, x, 2), as_image(dims, self.kernel, 1), bias, self.op_options)
    if separable then y = ops.conv2d(y, as_image(dims, self.pointwise_kernel, 1), self.bias, { activation = self.fused }) end
    if dims == 1 then y = ops.squeeze(y, { axes = { 2 } }) end
    if self.rest then y = self.rest(y) end
    return y
  end

  class.own_penalty, class.depthwise = layer.kernel_penalty, true
end

for _, dims in ipairs{ 1, 2 } do
  define(dims, false)
  define(dims, true)
end

return layers
