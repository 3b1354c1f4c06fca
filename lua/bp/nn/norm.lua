--- Normalisation of each sample by itself: nn.layer_norm (Ba, Kiros & Hinton 2016), nn.rms_norm (Zhang & Sennrich 2019) and nn.group_norm
--- (Wu & He 2018). Nothing is remembered between batches, so training and inference are the same.
local core = require "bp.core"
local layer = require "bp.nn.layer"

local eps = { "eps", "number", min = 0, default = 1e-5, named = true, help = "added to the variance" }
local scale = { "scale", "boolean", default = true, named = true, help = "learn a factor (gamma)" }
local center = { "center", "boolean", default = true, named = true, help = "learn a shift (beta)" }
local dims = { "dims", "int", min = 1, max = 8, default = 1, help = "how many of the last dimensions are normalised together" }
local inputs = { "inputs", "int", min = 1, named = true,
  help = "size of the last dimension, when the layer is to have its parameters before the first call" }

-- PyTorch's first argument is a shape, Keras' an axis.
local function prepare(spec, given)
  if type(given) == "table" and (given.axis ~= nil or given.normalized_shape ~= nil) then
    spec:fail("unknown option '%s': say how many of the last dimensions are normalised together with dims (default 1)",
      given.axis ~= nil and "axis" or "normalized_shape")
  end
  return given
end

local function setup(self, o)
  if not o.inputs then return end
  if (o.dims or 1) > 1 then self.spec:fail("option 'inputs' goes with dims = 1; the first call shows the sizes of several dimensions") end
  self:build_for{ o.inputs }
end

local function build(self, shape)
  local o = self.options
  local first = #shape - (o.dims or 1) + 1
  if first < 1 then
    core.error(("%s '%s': the input is [%s]; %d dimensions are to be normalised together"):format(self.class_name, self:own_name(),
      table.concat(shape, "]["), o.dims))
  end
  local size = table.move(shape, first, #shape, 1, {})
  if o.scale then self.gamma = layer.parameter(self.class_name, "ones", size) end
  if o.center then self.beta = layer.parameter(self.class_name, "zeros", size) end
end

--- Layer normalisation over the last dimensions.
---@class nn.layer_norm
local LayerNorm = layer.define("layer_norm", "Normalises each sample over its last dimensions.", { dims, eps, scale, center, inputs },
  prepare)
LayerNorm.setup, LayerNorm.build = setup, build

function LayerNorm:forward(x)
  local o = self.options
  return (core.ops.layer_norm(x, self.gamma, self.beta, { dims = o.dims, eps = o.eps }))
end

--- Division by the root mean square over the last dimensions.
---@class nn.rms_norm
local RmsNorm = layer.define("rms_norm", "Divides each sample by the root mean square of its last dimensions.",
  { dims, eps, scale, inputs }, prepare)
RmsNorm.setup, RmsNorm.build = setup, build

function RmsNorm:forward(x)
  local o = self.options
  return (core.ops.rms_norm(x, self.gamma, { dims = o.dims, eps = o.eps }))
end

--- Group normalisation: the channels of the last dimension in groups, each over all pixels of a sample.
---@class nn.group_norm
local GroupNorm = layer.define("group_norm", "Normalises groups of channels of each sample.", {
  { "groups", "int", min = 1, required = true, help = "number of groups; must divide the channels" },
  eps, scale, center, inputs,
})
GroupNorm.setup = setup

function GroupNorm:build(shape)
  local o, channels = self.options, shape[#shape]
  if #shape < 2 then layer.need_dims(self, shape, 2, "[batch]...[channels]") end
  if channels % o.groups ~= 0 then
    core.error(("group_norm '%s': the input is [%s]; its %d channels cannot be cut into %d equal groups"):format(self:own_name(),
      table.concat(shape, "]["), channels, o.groups))
  end
  build(self, shape)
end

function GroupNorm:forward(x)
  local o = self.options
  return (core.ops.group_norm(x, self.gamma, self.beta, { groups = o.groups, eps = o.eps }))
end

return { layer_norm = LayerNorm, rms_norm = RmsNorm, group_norm = GroupNorm }
