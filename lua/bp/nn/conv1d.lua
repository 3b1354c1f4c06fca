--- nn.conv1d: convolution over sequences [batch][time][channels] with weights [kernel][in/groups][filters].
local core = require "bp.core"
local activations = require "bp.nn.activations"
local grouped = require "bp.nn.grouped"
local layer = require "bp.nn.layer"
local pad = require "bp.nn.pad"

local fields = {
  { "filters", "int", min = 1, required = true, help = "number of output channels" },
  { "kernel_size", "int", min = 1, required = true, help = "length of the window" },
  { "strides", "int", min = 1, default = 1, help = "step of the window" },
  { "padding", "choice", choices = { "valid", "same", "causal" }, default = "valid",
    help = '"same" pads so that stride 1 keeps the length; "causal" pads before only, so that no result sees what comes later' },
  { "dilation", "int", min = 1, default = 1, named = true, help = "distance between the taps of the window" },
  { "groups", "int", min = 1, default = 1, named = true, help = "parts that channels and filters fall into, each convolved by itself" },
  { "activation", "string|function", named = true, help = "name or function applied to the result; default none" },
  { "inputs", "int", min = 1, named = true, help = "input channels, when the layer is to have its parameters before the first call" },
}
layer.add_weight_fields(fields)

--- One-dimensional convolution.
---@class nn.conv1d
local Conv1d = layer.define("conv1d", "One-dimensional convolution over [batch][time][channels].", fields)

function Conv1d:setup(o)
  local fused, rest = activations.split("conv1d", o.activation)
  rawset(self, "rest", rest)
  rawset(self, "op_options", { stride = { 1, o.strides }, padding = o.padding == "same" and "same" or "valid", dilation = { 1, o.dilation },
    activation = fused })
  if o.inputs then self:build_for{ 1, o.inputs } end
end

function Conv1d:build(shape)
  local o = self.options
  layer.need_dims(self, shape, 3, "[batch][time][channels]; sequences of one channel need a last dimension of 1: x:unsqueeze(-1)")
  grouped.check(self, shape[3], o.filters, o.groups)
  self.kernel = layer.parameter("conv1d", o.kernel_init, { o.kernel_size, shape[3] // o.groups, o.filters })
  if o.use_bias then self.bias = layer.parameter("conv1d", o.bias_init, { o.filters }, o.kernel_size * (shape[3] // o.groups)) end
end

-- A sequence is an image of one row.
function Conv1d:forward(x)
  local o = self.options
  layer.need_dims(self, x:shape(), 3, "[batch][time][channels]")
  if o.padding == "causal" then x = pad.zeros(x, 2, (o.kernel_size - 1) * o.dilation, 0) end
  local y = grouped.conv2d(core.ops.unsqueeze(x, { axis = 2 }), core.ops.unsqueeze(self.kernel, { axis = 1 }), self.bias, o.groups,
    self.op_options)
  y = core.ops.squeeze(y, { axes = { 2 } })
  if self.rest then y = self.rest(y) end
  return y
end

Conv1d.own_penalty = layer.kernel_penalty

return Conv1d
