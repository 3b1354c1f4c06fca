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
    { "bias_l1", "number", min = 0, default = 0, named = true, help = "as l1, for the bias, which l1 leaves alone" },
    { "bias_l2", "number", min = 0, default = 0, named = true, help = "as l2, for the bias, which l2 leaves alone" },
    { "activity_l1", "number", min = 0, default = 0, named = true,
      help = "adds activity_l1 * sum(|y|) / batch over what the layer gives to the loss of fit and evaluate" },
    { "activity_l2", "number", min = 0, default = 0, named = true, help = "the same with y^2" },
    { "max_norm", "number", above = 0, named = true,
      help = "after every step, the weights of each output are scaled down to this length where they are longer" },
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
    if (o.activity_l1 or 0) > 0 or (o.activity_l2 or 0) > 0 then rawset(self, "watched", true) end
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

-- total + l1*sum|t| + l2*sum t^2; nil stands for 0.
local function add_penalty(total, t, l1, l2)
  local function more(term) total = total and total + term or term end
  if l2 and l2 > 0 then more(core.ops.sum(core.ops.square(t)) * l2) end
  if l1 and l1 > 0 then more(core.ops.sum(core.ops.abs(t)) * l1) end
  return total
end

--- l1*sum|w| + l2*sum w^2 of the kernels and, with factors of its own, of the bias, or nil.
---@param self table a layer with options l1 and l2 and a parameter `kernel`, perhaps a `pointwise_kernel`
---@return table|nil penalty
function layer.kernel_penalty(self)
  local o, penalty = self.options, nil
  for _, kernel in ipairs{ self.kernel, self.pointwise_kernel } do penalty = add_penalty(penalty, kernel, o.l1, o.l2) end
  if self.bias then penalty = add_penalty(penalty, self.bias, o.bias_l1, o.bias_l2) end
  return penalty
end

--- What a layer's activity_l1 and activity_l2 make of its result: the sum over a batch divided by its size, as Keras does.
---@param self table a layer
---@param y table tensor
---@return table penalty
function layer.activity_penalty(self, y)
  local o = self.options
  return add_penalty(nil, y, o.activity_l1, o.activity_l2) / y:shape(1)
end

--- Scales the weights that lead to each output down to the length of the option max_norm, in place.
---@param self table a layer with a parameter `kernel`, perhaps a `pointwise_kernel`; the last dimension of each are the outputs
function layer.constrain(self)
  local limit = self.options.max_norm
  if not limit then return end
  for _, kernel in ipairs{ self.kernel, self.pointwise_kernel } do
    local axes = {}
    -- a depthwise kernel ends in [channels][multiplier], both of which tell outputs apart
    for i = 1, kernel.ndim - ((self.depthwise and kernel == self.kernel) and 2 or 1) do axes[i] = i end
    local length = core.ops.sqrt(core.ops.sum(core.ops.square(kernel), { axes = axes, keepdims = true }))
    kernel:copy_(kernel * (core.ops.minimum(length, limit) / core.ops.maximum(length, 1e-7)))
  end
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
