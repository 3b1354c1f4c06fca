--- nn.conv1d_transpose and nn.conv2d_transpose: what takes sizes back that a convolution made smaller; the gradient of a convolution with
--- respect to its input, as a layer. Weights are [kh][kw][filters][in], as Keras has them.
---
--- Sizes are Keras': with padding "same" size * stride, with "valid" size * stride + max(window - stride, 0), which is PyTorch's size for
--- padding = 0 where the window is at least the stride. With output_padding they are (size - 1) * stride + window - 2 * (padding "same":
--- window // 2, "valid": 0) + output_padding.
local core = require "bp.core"
local activations = require "bp.nn.activations"
local layer = require "bp.nn.layer"

local ops = core.ops
local layers = {}

-- The size of the result along one dimension. Fails where no convolution would make `size` of it.
local function size_of(self, size, kernel, stride, dilation, padding, more)
  local span = (kernel - 1) * dilation + 1
  if more == nil then return padding == "same" and size * stride or size * stride + math.max(span - stride, 0) end
  local result = (size - 1) * stride + span - (padding == "same" and span // 2 * 2 or 0) + more
  local back = padding == "same" and (result + stride - 1) // stride or (result - span) // stride + 1
  if back ~= size then
    core.error(("%s '%s': output_padding %d makes %d of %d, of which a window of %d with strides %d and padding \"%s\" makes %d; "
      .. "expected another output_padding below the stride"):format(self.class_name, self:own_name(), more, result, size, span, stride,
      padding, back))
  end
  return result
end

local function fields(kind, one)
  local list = {
    { "filters", "int", min = 1, required = true, help = "number of output channels" },
    { "kernel_size", kind, min = 1, required = true, help = one and "length of the window" or "height and width; one number for both" },
    { "strides", kind, min = 1, default = one and 1 or { 1, 1 }, help = "how many times larger the result is" },
    { "padding", "choice", choices = { "valid", "same" }, default = "valid", help = '"same" makes size * stride' },
    { "output_padding", kind, min = 0, named = true, help = "added to the size at its end; less than the stride" },
    { "dilation", kind, min = 1, default = one and 1 or { 1, 1 }, named = true, help = "distance between the taps of the window" },
    { "activation", "string|function", named = true, help = "name or function applied to the result; default none" },
    { "inputs", "int", min = 1, named = true, help = "input channels, when the layer is to have its parameters before the first call" },
  }
  layer.add_weight_fields(list)
  return list
end

local function setup(self, o)
  rawset(self, "activate", activations.get(self.class_name, o.activation))
  local strides, more = o.strides, o.output_padding
  if type(strides) ~= "table" then strides, more = { strides }, more and { more } end
  for i, step in ipairs(strides) do
    if more and more[i] >= step then
      self.spec:fail("option 'output_padding' is %d with strides of %d; expected less than the strides", more[i], step)
    end
  end
end

local function finish(self, y)
  if self.bias then y = y + self.bias end
  return self.activate(y)
end

--- Transposed convolution over images.
---@class nn.conv2d_transpose
local Conv2d = layer.define("conv2d_transpose", "Transposed convolution over [batch][height][width][channels].", fields "pair")
layers.conv2d_transpose = Conv2d

function Conv2d:setup(o)
  setup(self, o)
  if o.inputs then self:build_for{ 1, 1, o.inputs } end
end

function Conv2d:build(shape)
  local o = self.options
  layer.need_dims(self, shape, 4, "[batch][height][width][channels]; images of one channel need a last dimension of 1: x:unsqueeze(-1)")
  self.kernel = layer.parameter("conv2d_transpose", o.kernel_init, { o.kernel_size[1], o.kernel_size[2], o.filters, shape[4] })
  -- PyTorch counts the outputs of a transposed convolution as its fan_in
  if o.use_bias then
    self.bias = layer.parameter("conv2d_transpose", o.bias_init, { o.filters }, o.kernel_size[1] * o.kernel_size[2] * o.filters)
  end
end

function Conv2d:forward(x)
  local o, size = self.options, {}
  layer.need_dims(self, x:shape(), 4, "[batch][height][width][channels]")
  for i = 1, 2 do
    size[i] = size_of(self, x:shape(i + 1), o.kernel_size[i], o.strides[i], o.dilation[i], o.padding,
      o.output_padding and o.output_padding[i])
  end
  return finish(self, ops.conv2d_grad_input(x, self.kernel,
    { stride = o.strides, padding = o.padding, dilation = o.dilation, size = size }))
end

--- Transposed convolution over sequences.
---@class nn.conv1d_transpose
local Conv1d = layer.define("conv1d_transpose", "Transposed convolution over [batch][time][channels].", fields("int", true))
layers.conv1d_transpose = Conv1d

function Conv1d:setup(o)
  setup(self, o)
  if o.inputs then self:build_for{ 1, o.inputs } end
end

function Conv1d:build(shape)
  local o = self.options
  layer.need_dims(self, shape, 3, "[batch][time][channels]; sequences of one channel need a last dimension of 1: x:unsqueeze(-1)")
  self.kernel = layer.parameter("conv1d_transpose", o.kernel_init, { o.kernel_size, o.filters, shape[3] })
  if o.use_bias then self.bias = layer.parameter("conv1d_transpose", o.bias_init, { o.filters }, o.kernel_size * o.filters) end
end

function Conv1d:forward(x)
  local o = self.options
  layer.need_dims(self, x:shape(), 3, "[batch][time][channels]")
  local size = size_of(self, x:shape(2), o.kernel_size, o.strides, o.dilation, o.padding, o.output_padding)
  local y = ops.conv2d_grad_input(ops.unsqueeze(x, { axis = 2 }), ops.unsqueeze(self.kernel, { axis = 1 }),
    { stride = { 1, o.strides }, padding = o.padding, dilation = { 1, o.dilation }, size = { 1, size } })
  return finish(self, ops.squeeze(y, { axes = { 2 } }))
end

Conv2d.own_penalty, Conv1d.own_penalty = layer.kernel_penalty, layer.kernel_penalty

return layers
