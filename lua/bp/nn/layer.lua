--- What all built-in layers share: a class whose constructor takes one option table, remembers it for saving, and shows it in print.
---@internal
local core = require "bp.core"
local options = require "bp.options"
local init = require "bp.nn.initializers"
local module = require "bp.nn.module"

local layer = {}

--- Fields that layers with weights declare beside their own.
---@return table[] fields
function layer.weight_fields()
  return {
    { "use_bias", "boolean", default = true, named = true, help = "add a bias" },
    { "kernel_init", "string|number|function", default = "glorot_uniform",
      named = true, help = "initialiser of the weights: a name of nn.init, a number, or a function (shape) -> tensor" },
    { "bias_init", "string|number|function", default = "zeros", named = true, help = "initialiser of the bias" },
    { "l1", "number", min = 0, default = 0, named = true, help = "adds l1 * sum(|w|) over the weights to the loss" },
    { "l2", "number", min = 0, default = 0,
      named = true, help = "adds l2 * sum(w^2) over the weights to the loss, as Keras does (twice PyTorch's weight_decay)" },
    { "init", "choice", choices = { "keras", "torch" }, default = "keras", named = true,
      help = '"torch": kernel and bias start uniform within 1 / sqrt(fan_in), where they are not told otherwise' },
  }
end

--- Appends those fields to a layer's own.
---@param fields table[]
function layer.add_weight_fields(fields)
  for _, field in ipairs(layer.weight_fields()) do fields[#fields + 1] = field end
end

--- Defines a layer's class.
---@param name string
---@param summary string one line for the manual
---@param fields table[] its options, see bp.options
---@param prepare function|nil prepare(given) may rearrange what the caller gave before it is checked
---@return table class
function layer.define(name, summary, fields, prepare)
  local all = table.move(fields, 1, #fields, 1, {})
  all[#all + 1] = { "name", "string", named = true,
    help = "name of the layer in summaries, messages and saved files; default the kind and a number" }
  local spec = options.define(name, summary, all)
  local class = module.define(name, function(self, given, ...)
    if prepare then given = prepare(spec, given) end
    local o = spec:read(given, ...)
    if o.init == "torch" then
      if o.kernel_init == spec.by_name.kernel_init.default then o.kernel_init = "torch" end
      if o.bias_init == spec.by_name.bias_init.default then o.bias_init = "torch" end
    end
    rawset(self, "options", o)
    if o.name then rawset(self, "given_name", o.name) end
    if self.setup then self:setup(o) end
  end)
  class.spec, class.summary_line, class.builtin = spec, summary, true
  return class
end

--- A new parameter.
---@param who string the layer
---@param how string|number|function see nn.init
---@param shape table
---@param fan_in integer|nil inputs of one output, where the shape of a bias does not tell
---@return table tensor that wants a gradient
function layer.parameter(who, how, shape, fan_in)
  return init.make(who, how, shape, fan_in):detach():requires_grad_(true)
end

--- l1*sum|w| + l2*sum w^2 of the kernels, or nil.
---@param self table a layer with options l1 and l2 and a parameter `kernel`, perhaps a `pointwise_kernel`
---@return table|nil penalty
function layer.kernel_penalty(self)
  local o, penalty = self.options, nil
  local function more(term) penalty = penalty and penalty + term or term end
  for _, kernel in ipairs{ self.kernel, self.pointwise_kernel } do
    if o.l2 > 0 then more(core.ops.sum(core.ops.square(kernel)) * o.l2) end
    if o.l1 > 0 then more(core.ops.sum(core.ops.abs(kernel)) * o.l1) end
  end
  return penalty
end

--- Raises unless a shape has so many dimensions.
---@param self table the layer
---@param shape table
---@param ndim integer
---@param expected string "[batch][height][width][channels]"
function layer.need_dims(self, shape, ndim, expected)
  if #shape ~= ndim then
    core.error(("%s '%s': the input is [%s]; expected %s"):format(self.class_name, self:own_name(), table.concat(shape, "]["), expected))
  end
end

return layer
