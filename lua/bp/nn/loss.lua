--- Losses. Each can be called at once, nn.loss.mse(prediction, target, { ... }), or made first and called later: nn.loss.mse{ reduction =
--- "sum" }.
---
--- A loss gives one number per sample (the mean over all other dimensions), multiplies it with the sample's weight, and reduces: "mean"
--- divides by the number of samples, also when there are weights, as Keras does; "weighted_mean" divides by the sum of the weights, as
--- PyTorch does with class weights; "sum"; "none" leaves one number per sample. Losses over classes take logits; from_logits = false takes
--- probabilities, cut off at 1e-7.
local core = require "bp.core"
local options = require "bp.options"

local ops = core.ops
local loss = {}

local function text(shape) return "[" .. table.concat(shape, "][") .. "]" end

local function same_shape(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

-- Target in the shape and dtype of the prediction. [n] stands for [n][1] and the other way round; anything else would broadcast into
-- nonsense.
local function match(who, prediction, target)
  local p, t = prediction:shape(), target:shape()
  if not same_shape(p, t) then
    local one_more = #p == #t + 1 and p[#p] == 1 or #t == #p + 1 and t[#t] == 1
    if not (one_more and prediction:numel() == target:numel()) then
      core.error(("loss %s: the prediction is %s, the target %s; expected the same shape"):format(who, text(p), text(t)))
    end
    target = ops.reshape(target, { shape = p })
  end
  if target.dtype ~= prediction.dtype then target = ops.cast(target, { dtype = prediction.dtype }) end
  return target
end

-- [batch][...] -> [batch].
local function per_sample(values)
  local n = values.ndim
  if n <= 1 then return values end
  local axes = {}
  for i = 2, n do axes[#axes + 1] = i end
  return ops.mean(values, { axes = axes })
end

-- Labels for logits [...][classes]: one dimension fewer; [n][1] is taken for [n].
local function labels_for(who, prediction, target)
  if target.dtype == "f32" or target.dtype == "f64" or target.dtype == "bool" then
    core.error(("loss %s: the labels are %s; expected whole numbers 1..%d: y:to('i64'); rows of probabilities want "
      .. "categorical_crossentropy")
      :format(who, target.dtype, prediction:shape(-1)))
  end
  local p, t = prediction:shape(), target:shape()
  if #t == #p and t[#t] == 1 then
    target = ops.squeeze(target, { axes = { -1 } })
    t[#t] = nil
  end
  p[#p] = nil
  if not same_shape(p, t) then
    core.error(("loss %s: the prediction is %s, the labels %s; expected labels %s: one whole number per row")
      :format(who, text(prediction:shape()), text(target:shape()), text(p)))
  end
  return target
end

local EPSILON = 1e-7

local function smooth(target, amount, share)
  return amount > 0 and target * (1 - amount) + amount * share or target
end

-- ---- per sample ----------------------------------------------------------------------------------------------------------------------
-- Each takes prediction, target and options, and gives [batch] (or more dimensions) and the target as it was understood.

local compute = {}

function compute.mse(prediction, target)
  target = match("mse", prediction, target)
  return ops.square(prediction - target), target
end

function compute.mae(prediction, target)
  target = match("mae", prediction, target)
  return ops.abs(prediction - target), target
end

-- e^2/2 up to delta, then linear with the same slope: min(|e|, delta) * (|e| - min(|e|, delta)/2).
function compute.huber(prediction, target, o)
  target = match("huber", prediction, target)
  local e = ops.abs(prediction - target)
  local near = ops.clamp(e, { max = o.delta })
  return near * (e - near * 0.5), target
end

function compute.binary_crossentropy(prediction, target, o)
  target = match("binary_crossentropy", prediction, target)
  local t = smooth(target, o.label_smoothing, 0.5)
  if o.from_logits then return ops.binary_cross_entropy(prediction, t, { pos_weight = o.pos_weight }), target end
  local p = ops.clamp(prediction, { min = EPSILON, max = 1 - EPSILON })
  return -(t * ops.log(p) * o.pos_weight + (1 - t) * ops.log(1 - p)), target
end

function compute.categorical_crossentropy(prediction, target, o)
  target = match("categorical_crossentropy", prediction, target)
  local t = smooth(target, o.label_smoothing, 1 / prediction:shape(-1))
  if o.from_logits then return ops.soft_cross_entropy(prediction, t), target end
  local p = prediction / ops.sum(prediction, { axes = { -1 }, keepdims = true })
  return -ops.sum(t * ops.log(ops.clamp(p, { min = EPSILON, max = 1 - EPSILON })), { axes = { -1 } }), target
end

function compute.sparse_categorical_crossentropy(prediction, target, o)
  target = labels_for("sparse_categorical_crossentropy", prediction, target)
  if o.from_logits then return ops.cross_entropy(prediction, target, { label_smoothing = o.label_smoothing }), target end
  local classes = prediction:shape(-1)
  local hot = ops.one_hot(target, { classes = classes, dtype = prediction.dtype })
  return (compute.categorical_crossentropy(prediction, hot, o)), target
end

-- ---- weights -------------------------------------------------------------------------------------------------------------------------

-- The weight of each sample from the weights of the classes.
local function class_weights(self, target, prediction)
  local kind, weights = self.kind, self.options.class_weights
  local classes = kind == "binary" and 2 or prediction:shape(-1)
  if weights.ndim ~= 1 or weights:shape(1) ~= classes then
    self.spec:fail("the class weights are %s for %d classes; expected one number per class", text(weights:shape()), classes)
  end
  if kind == "sparse" then return ops.take(weights, target, { axis = 1 }) end
  if kind == "categorical" then return ops.sum(target * weights, { axes = { -1 } }) end
  local low, high = ops.select(weights, { axis = 1, index = 1 }), ops.select(weights, { axis = 1, index = 2 })
  return low + (high - low) * ops.cast(target, { dtype = prediction.dtype })
end

local function check_weights(who, weights, values)
  if weights.ndim ~= 1 or weights:shape(1) ~= values:shape(1) then
    core.error(("loss %s: the sample weights are %s for a batch of %d; expected one number per sample")
      :format(who, text(weights:shape()), values:shape(1)))
  end
  return weights
end

local function constant(list)
  if list == nil or core.is_tensor(list) then return list end
  return core.pause(core.tensor, list)
end

-- ---- the functions -------------------------------------------------------------------------------------------------------------------

local function fields(more)
  local list = {
    { "reduction", "choice", choices = { "mean", "sum", "none", "weighted_mean" }, default = "mean",
      named = true, help = "what becomes of the numbers of the samples" },
    { "weights", "tensor|table", named = true, help = "one weight per sample" },
  }
  for _, field in ipairs(more) do list[#list + 1] = field end
  return list
end

local class_fields = {
  { "class_weights", "tensor|table", named = true, help = "one weight per class, multiplied with those of the samples" },
  { "from_logits", "boolean", default = true, named = true, help = "the prediction is logits; false: probabilities" },
  { "label_smoothing", "number", min = 0, below = 1, default = 0,
    named = true, help = "moves this much of the target to all classes alike" },
}

local Loss = { __name = "loss" }
Loss.__index = Loss

--- Applies the loss.
---@param prediction table tensor
---@param target table tensor
---@param weights table|nil tensor [batch], multiplied with those of the options
---@return table value 0-d, or [batch] with reduction "none"
function Loss:__call(prediction, target, weights)
  if not core.is_tensor(prediction) then self.spec:fail("the prediction is %s; expected a tensor", options.describe(prediction)) end
  if not core.is_tensor(target) then self.spec:fail("the target is %s; expected a tensor", options.describe(target)) end
  local o, reduction = self.options, self.options.reduction
  if reduction == "mean" and not (weights or o.weights or o.class_weights) then -- the mean of the samples' means is that of all elements
    local elements = self:elements(prediction, target)
    return elements.ndim > 0 and ops.mean(elements) or elements
  end
  local values, weight = self:values(prediction, target, weights)
  if reduction == "none" or values.ndim == 0 then return values end
  if reduction == "weighted_mean" and weight then return ops.sum(values) / ops.sum(weight) end
  return reduction == "sum" and ops.sum(values) or ops.mean(values)
end

-- The product of all weights that a sample has, [batch], or nil.
function Loss:weight_of(values, prediction, target, weights)
  local o = self.options
  local product
  local function more(weight)
    if weight then product = product and product * weight or weight end
  end
  more(o.class_weights and per_sample(class_weights(self, target, prediction)))
  more(o.weights and check_weights(self.name, o.weights, values))
  more(weights and check_weights(self.name, weights, values))
  return product
end

-- What the loss computes before anything is gathered, and the target as it was understood.
function Loss:elements(prediction, target)
  local elements, understood = self.compute(prediction, target, self.options)
  if self.kind == "custom" and not core.is_tensor(elements) then
    core.error(("loss: the function returned %s; expected a tensor: one number, or one per sample"):format(options.describe(elements)))
  end
  return elements, understood
end

--- The weighted loss of each sample, [batch].
---@param prediction table
---@param target table
---@param weights table|nil
---@return table values
---@return table|nil weight the weights that went in
function Loss:values(prediction, target, weights)
  local values, understood = self:elements(prediction, target)
  if values.ndim == 0 then
    if weights then core.error("loss: the function returned one number, which cannot be weighted by sample; return one per sample") end
    return values
  end
  values = per_sample(values)
  local weight = self:weight_of(values, prediction, understood, weights)
  if weight then values = values * weight end
  return values, weight
end

function Loss:__tostring() return "loss " .. self.name end

local specs = {}

local function make(name, kind, given)
  local o = specs[name]:read(given)
  o.weights, o.class_weights = constant(o.weights), constant(o.class_weights)
  return setmetatable({ name = name, kind = kind, options = o, spec = specs[name], compute = compute[name] }, Loss)
end

local function define(name, kind, summary, more)
  specs[name] = options.define("loss." .. name, summary, fields(more))
  local plain
  loss[name] = function(prediction, target, given)
    if prediction == nil or options.is_plain(prediction) then return make(name, kind, prediction) end
    if given ~= nil then return make(name, kind, given)(prediction, target) end
    plain = plain or make(name, kind)
    return plain(prediction, target)
  end
end

define("mse", "regression", "Mean of (prediction - target)^2.", {})
define("mae", "regression", "Mean of |prediction - target|.", {})
define("huber", "regression", "Squared near zero, linear beyond delta.",
  { { "delta", "number", above = 0, default = 1, named = true, help = "where the loss turns linear" } })
define("binary_crossentropy", "binary", "Cross-entropy of yes/no targets 0..1, elementwise.", {
  class_fields[1], class_fields[2], class_fields[3],
  { "pos_weight", "number", above = 0, default = 1, named = true, help = "factor on the part of targets 1" },
})
define("categorical_crossentropy", "categorical", "Cross-entropy of targets that are rows of probabilities (one-hot).", class_fields)
define("sparse_categorical_crossentropy", "sparse", "Cross-entropy of targets that are labels 1..classes.", class_fields)

--- PyTorch's name for sparse_categorical_crossentropy.
loss.cross_entropy = loss.sparse_categorical_crossentropy

local aliases = {
  mean_squared_error = "mse", mean_absolute_error = "mae", cross_entropy = "sparse_categorical_crossentropy",
}

--- The loss for what `compile` is given.
---@param who string for messages
---@param what string|table|function a name, a made loss, or a function (prediction, target) -> number or one per sample
---@param given table|nil options for a name
---@return table loss with :values(prediction, target, weights)
function loss.get(who, what, given)
  if type(what) == "string" then
    local name = aliases[what] or what
    if not specs[name] then
      local known = {}
      for key in pairs(specs) do known[#known + 1] = key end
      table.sort(known)
      core.error(("%s: unknown loss '%s'%s"):format(who, what, options.hint(what, known)))
    end
    return loss[name](given)
  end
  if getmetatable(what) == Loss then return what end
  if type(what) ~= "function" then
    core.error(("%s: the loss is %s; expected a name, nn.loss.NAME{...}, or a function"):format(who, options.describe(what)))
  end
  for name in pairs(specs) do
    if loss[name] == what then return what() end
  end
  return setmetatable({ name = "function", kind = "custom", options = { reduction = "mean" }, spec = specs.mse, compute = what }, Loss)
end

return loss
