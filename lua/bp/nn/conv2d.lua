--- nn.conv2d: convolution over images [batch][height][width][channels] with weights [kh][kw][in/groups][filters].
local activations = require "bp.nn.activations"
local grouped = require "bp.nn.grouped"
local layer = require "bp.nn.layer"

local fields = {
  { "filters", "int", min = 1, required = true, help = "number of output channels" },
  { "kernel_size", "pair", min = 1, required = true, help = "height and width of the window; one number for both" },
  { "strides", "pair", min = 1, default = { 1, 1 }, help = "steps of the window" },
  { "padding", "choice", choices = { "valid", "same" }, default = "valid", help = '"same" pads so that stride 1 keeps the size' },
  { "dilation", "pair", min = 1, default = { 1, 1 }, named = true, help = "distance between the taps of the window" },
  { "groups", "int", min = 1, default = 1, named = true, help = "parts that channels and filters fall into, each convolved by itself" },
  { "activation", "string|function", named = true, help = "name or function applied to the result; default none" },
  { "algorithm", "choice", choices = { "auto", "direct", "winograd" }, default = "auto", named = true,
    help = '"winograd" saves three quarters of the multiplications of 3x3 kernels and rounds a little more; "auto": where that is faster' },
  { "inputs", "int", min = 1, named = true, help = "input channels, when the layer is to have its parameters before the first call" },
}
layer.add_weight_fields(fields)

--- Two-dimensional convolution.
---@class nn.conv2d
local Conv2d = layer.define("conv2d", "Two-dimensional convolution over [batch][height][width][channels].", fields)

function Conv2d:setup(o)
  local fused, rest = activations.split("conv2d", o.activation)
  rawset(self, "rest", rest)
  rawset(self, "op_options", { stride = o.strides, padding = o.padding, dilation = o.dilation, activation = fused,
    algorithm = o.algorithm })
  if o.inputs then self:build_for{ 1, 1, o.inputs } end
end

function Conv2d:build(shape)
  local o = self.options
  layer.need_dims(self, shape, 4, "[batch][height][width][channels]; images of one channel need a last dimension of 1: x:unsqueeze(-1)")
  grouped.check(self, shape[4], o.filters, o.groups)
  local inputs = shape[4] // o.groups
  self.kernel = layer.parameter("conv2d", o.kernel_init, { o.kernel_size[1], o.kernel_size[2], inputs, o.filters })
  if o.use_bias then self.bias = layer.parameter("conv2d", o.bias_init, { o.filters }, o.kernel_size[1] * o.kernel_size[2] * inputs) end
end

function Conv2d:forward(x)
  local y = grouped.conv2d(x, self.kernel, self.bias, self.options.groups, self.op_options)
  if self.rest then y = self.rest(y) end
  return y
end

Conv2d.own_penalty = layer.kernel_penalty

return Conv2d
