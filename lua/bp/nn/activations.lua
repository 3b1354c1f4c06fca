--- Activations by name, as functions tensor -> tensor. A layer's option takes a name or a Lua function.
---@internal
local core = require "bp.core"
local options = require "bp.options"

local ops = core.ops
local activations = {}

-- Klambauer et al., "Self-normalizing neural networks", 2017.
local SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946

local function glu(x, axis)
  axis = axis or -1
  local size = x:shape(axis)
  if size % 2 == 1 then
    core.error(("glu: dimension %d of [%s] has %d elements; expected an even number: half of them gates"):format(axis,
      table.concat(x:shape(), "]["), size))
  end
  local half = size // 2
  return ops.slice(x, { axis = axis, start = 1, stop = half }) * ops.sigmoid(ops.slice(x, { axis = axis, start = half + 1, stop = size }))
end
activations.glu = glu

local table_of = {
  linear = function(x) return x end,
  relu = ops.relu,
  leaky_relu = ops.leaky_relu,
  elu = ops.elu,
  gelu = ops.gelu,
  silu = ops.silu,
  sigmoid = ops.sigmoid,
  tanh = ops.tanh,
  softplus = ops.softplus,
  softsign = ops.softsign,
  mish = ops.mish,
  exponential = ops.exp,
  relu6 = function(x) return ops.clamp(x, { min = 0, max = 6 }) end,
  hard_tanh = function(x) return ops.clamp(x, { min = -1, max = 1 }) end,
  hard_sigmoid = function(x) return ops.clamp(x / 6 + 0.5, { min = 0, max = 1 }) end,
  selu = function(x) return ops.elu(x, { alpha = SELU_ALPHA }) * SELU_SCALE end,
  gelu_tanh = function(x) return ops.gelu(x, { approximate = true }) end,
  glu = function(x) return glu(x) end,
  softmax = function(x) return ops.softmax(x, { axis = -1 }) end,
  log_softmax = function(x) return ops.log_softmax(x, { axis = -1 }) end,
}
table_of.none, table_of.swish = table_of.linear, table_of.silu

--- The names there are, sorted.
activations.names = {}
for name in pairs(table_of) do activations.names[#activations.names + 1] = name end
table.sort(activations.names)

--- The function of an activation.
---@param who string the layer, for messages
---@param activation string|function|nil nil: linear
---@return function fn tensor -> tensor
function activations.get(who, activation)
  if activation == nil then return table_of.linear end
  if type(activation) ~= "string" then return activation end
  local fn = table_of[activation]
  if not fn then core.error(("%s: unknown activation '%s'%s"):format(who, activation, options.hint(activation, activations.names))) end
  return fn
end

--- Splits an activation into the part that the ops linear and conv2d can take along ("none", "relu") and the function that is left to
--- apply.
---@param who string
---@param activation string|function|nil
---@return string fused, function|nil rest
function activations.split(who, activation)
  if activation == "relu" then return "relu", nil end
  local fn = activations.get(who, activation)
  return "none", fn ~= table_of.linear and fn or nil
end

return activations
