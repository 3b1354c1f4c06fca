--- Losses. Each can be called at once, nn.loss.mse(prediction, target, { ... }), or made first and called later: nn.loss.mse{ reduction =
--- "sum" }.
---
--- A loss gives one number per sample (the mean over all other dimensions), multiplies it with the sample's weight, and reduces: "mean"
--- divides by the number of samples, also when there are weights, as Keras does; "weighted_mean" divides by the sum of the weights, as
--- PyTorch does with class weights; "sum"; "none" leaves one number per sample. Weights may also be given for every step of a sequence or
--- every pixel. Losses over classes take logits; from_logits = false takes probabilities, cut off at 1e-7.
---
--- A function (prediction, target) -> one number, or one per sample, is a loss as well; nn.loss.define gives it a name and options.
local core = require "bp.core"
local options = require "bp.options"
local shapes = require "bp.nn.losses.shapes"

local ops = core.ops
local text = shapes.text
local loss = {}

-- ---- reducing ------------------------------------------------------------------------------------------------------------------------

-- All dimensions but the first.
local function inner(t)
  local axes = {}
  for i = 2, t.ndim do axes[#axes + 1] = i end
  return { axes = axes }
end

-- The weight of every element from the weights of the classes.
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

-- Weights [batch], or of the first few dimensions of the elements, with the dimensions that are missing.
local function spread(who, weights, elements)
  local w, e = weights:shape(), elements:shape()
  local fits = #w >= 1 and #w <= #e
  for i = 1, fits and #w or 0 do fits = fits and w[i] == e[i] end
  if not fits then
    core.error(("loss %s: the sample weights are %s for a batch of %d; expected one number per sample%s"):format(who, text(w), e[1],
      #e > 1 and (", or %s"):format(text(e)) or ""))
  end
  for i = #w + 1, #e do w[i] = 1 end
  return ops.reshape(weights, { shape = w })
end

-- The mean over the elements of each sample; with `known`, over those that count.
local function per_sample(elements, known)
  if elements.ndim <= 1 then return elements end
  if not known then return ops.mean(elements, inner(elements)) end
  return ops.sum(elements, inner(elements)) / ops.clamp(ops.sum(known, inner(known)), { min = 1 })
end

-- sum(elements) / sum(weight), the weight counted for every element that it weighs.
local function weighted_mean(elements, weight, known)
  if known then return ops.sum(elements) / ops.sum(weight * known) end
  return ops.sum(elements) / (ops.sum(weight) * (elements:numel() / math.max(1, weight:numel())))
end

-- What becomes of the loss of every element (already weighted).
local function reduce(reduction, elements, weight, known)
  if reduction == "none" then return per_sample(elements, known) end
  if reduction == "sum" then return ops.sum(per_sample(elements, known)) end
  if reduction == "weighted_mean" and weight then return weighted_mean(elements, weight, known) end
  if known then return ops.sum(elements) / ops.clamp(ops.sum(known), { min = 1 }) end
  return ops.mean(elements)
end

-- ---- the functions -------------------------------------------------------------------------------------------------------------------

local function constant(list)
  if list == nil or core.is_tensor(list) then return list end
  return core.pause(core.tensor, list)
end

local function fields(more)
  local list = {
    { "reduction", "choice", choices = { "mean", "sum", "none", "weighted_mean" }, default = "mean",
      named = true, help = "what becomes of the numbers of the samples" },
    { "weights", "tensor|table", named = true, help = "one weight per sample" },
  }
  for _, field in ipairs(more) do list[#list + 1] = field end
  return list
end

local Loss = { __name = "loss" }
Loss.__index = Loss

local function need_tensor(self, what, value)
  if not core.is_tensor(value) then self.spec:fail("the %s is %s; expected a tensor", what, options.describe(value)) end
end

--- Applies the loss.
---@param prediction table tensor
---@param target table tensor
---@param weights table|nil tensor [batch], multiplied with those of the options
---@return tensor value 0-d, or [batch] with reduction "none"
function Loss:__call(prediction, target, weights)
  need_tensor(self, "prediction", prediction)
  need_tensor(self, "target", target)
  local elements, understood, known = self:elements(prediction, target)
  if elements.ndim == 0 then
    if weights or self.options.weights then
      core.error(("%s: the function returned one number, which cannot be weighted by sample; return one per sample"):format(self.spec.name))
    end
    return elements
  end
  local weight = self:weight_of(elements, prediction, understood, weights)
  return reduce(self.options.reduction, weight and elements * weight or elements, weight, known)
end

-- The product of all weights that an element has, or nil.
function Loss:weight_of(elements, prediction, target, weights)
  local o = self.options
  local product
  local function more(weight)
    if weight then product = product and product * weight or weight end
  end
  more(o.class_weights and class_weights(self, target, prediction))
  more(o.weights and spread(self.name, o.weights, elements))
  more(weights and spread(self.name, weights, elements))
  return product
end

--- What the loss computes before anything is weighted and gathered: one number per sample, or more.
---@param prediction table
---@param target table
---@return table elements
---@return table|nil understood the target in the form that was compared
---@return table|nil known where elements count: 0 or 1 each
function Loss:elements(prediction, target)
  local elements, understood, known = self.compute(prediction, target, self.options)
  if not self.builtin and not core.is_tensor(elements) then
    core.error(("%s: the function returned %s; expected a tensor: one number, or one per sample"):format(self.spec.name,
      options.describe(elements)))
  end
  return elements, understood, known
end

function Loss:__tostring() return "loss " .. self.name end

local rows = {}

local function make(name, given)
  local row = rows[name]
  local o = row.spec:read(given)
  o.weights, o.class_weights = constant(o.weights), constant(o.class_weights)
  return setmetatable({ name = name, kind = row.kind, options = o, spec = row.spec, compute = row.compute, builtin = row.builtin }, Loss)
end

local function define(name, kind, summary, more, compute)
  rows[name] = { kind = kind, spec = options.define("loss." .. name, summary, fields(more)), compute = compute, builtin = true }
  local plain
  loss[name] = function(prediction, target, given)
    if prediction == nil or options.is_plain(prediction) then return make(name, prediction) end
    if given ~= nil then return make(name, given)(prediction, target) end
    plain = plain or make(name)
    return plain(prediction, target)
  end
  return loss[name]
end

require "bp.nn.losses.regression"(define)
require "bp.nn.losses.classes"(define)
require "bp.nn.losses.sequences"(define)

-- ---- three tensors -------------------------------------------------------------------------------------------------------------------

local triplet_spec = options.define("loss.triplet", "max(0, margin + distance to the positive - distance to the negative).", fields{
  { "margin", "number", min = 0, default = 1, named = true, help = "how much farther the negative has to be" },
  { "p", "number", min = 1, default = 2, named = true, help = "the norm that measures distances" },
  { "swap", "boolean", default = false, named = true,
    help = "take the distance from positive to negative where that is smaller (Balntas et al. 2016)" },
  { "eps", "number", min = 0, default = 1e-6, named = true, help = "added to every difference" },
})

-- The p-norm over the last dimension.
local function distance(a, b, o)
  local d = a - b + o.eps
  if o.p == 2 then return ops.sqrt(ops.sum(ops.square(d), { axes = { -1 } })) end
  if o.p == 1 then return ops.sum(ops.abs(d), { axes = { -1 } }) end
  return ops.pow(ops.sum(ops.pow(ops.abs(d), o.p), { axes = { -1 } }), 1 / o.p)
end

local Triplet = { __name = "loss", __tostring = function() return "loss triplet" end }

function Triplet:__call(anchor, positive, negative, weights)
  need_tensor(self, "anchor", anchor)
  local function beside(what, value)
    need_tensor(self, what, value)
    if not shapes.same(anchor:shape(), value:shape()) then
      triplet_spec:fail("the anchor is %s, the %s %s; expected the same shape [batch][features]", text(anchor:shape()), what,
        text(value:shape()))
    end
  end
  beside("positive", positive)
  beside("negative", negative)
  local o = self.options
  local near, far = distance(anchor, positive, o), distance(anchor, negative, o)
  if o.swap then far = ops.minimum(far, distance(positive, negative, o)) end
  local elements, weight = ops.relu(near - far + o.margin), nil
  local function more(given)
    if given then
      local one = spread("triplet", given, elements)
      weight = weight and weight * one or one
    end
  end
  more(weights)
  more(o.weights)
  return reduce(o.reduction, weight and elements * weight or elements, weight)
end

--- The triplet loss (PyTorch's TripletMarginLoss): called with three tensors [batch][features], or with options alone to be called later.
---@param anchor table tensor, or options { margin = 1, p = 2, swap = false, reduction = "mean" }
---@param positive table|nil of the anchor's kind
---@param negative table|nil of another kind
---@param given table|nil options
---@return table value
function loss.triplet(anchor, positive, negative, given)
  local made = setmetatable({ name = "triplet", spec = triplet_spec }, Triplet)
  if anchor == nil or options.is_plain(anchor) then
    made.options = triplet_spec:read(anchor)
  else
    made.options = triplet_spec:read(given)
  end
  made.options.weights = constant(made.options.weights)
  if anchor == nil or options.is_plain(anchor) then return made end
  return made(anchor, positive, negative)
end

-- ---- by name -------------------------------------------------------------------------------------------------------------------------

--- A loss of one's own under a name: nn.loss.NAME takes the options of every loss (reduction, weights) and those declared, compile takes
--- the name, and a saved model remembers it. A program that loads such a model defines it first.
---@param name string
---@param compute function (prediction, target, o) -> one number per sample, or per element: reduction and weights are seen to; or a
--- single number
---@param more table[]|nil options of its own, as bp.options declares them: { { "margin", "number", default = 1, help = "..." } }
---@return function constructor also nn.loss[name]
function loss.define(name, compute, more)
  if type(name) ~= "string" or not name:match "^[%a_][%w_]*$" then
    core.error("loss.define: the name is " .. options.describe(name) .. "; expected a word such as \"my_loss\"")
  end
  if type(compute) ~= "function" then
    core.error(("loss.define: the second value is %s; expected a function (prediction, target, options) -> one number per sample")
      :format(options.describe(compute)))
  end
  if rows[name] and rows[name].builtin or not rows[name] and rawget(loss, name) ~= nil then
    core.error(("loss.define: '%s' is a loss of bp; choose another name"):format(name))
  end
  define(name, "custom", "Defined by the program.", more or {}, compute)
  rows[name].builtin = false
  return loss[name]
end

--- Other names for the same losses: PyTorch's and Keras' long and short ones.
local aliases = {
  mean_squared_error = "mse", mean_absolute_error = "mae", mean_absolute_percentage_error = "mape",
  mean_squared_logarithmic_error = "msle", logcosh = "log_cosh", kld = "kl_divergence", kl_div = "kl_divergence",
  cross_entropy = "sparse_categorical_crossentropy", bce = "binary_crossentropy", cce = "categorical_crossentropy",
  sparse_cce = "sparse_categorical_crossentropy", sq_hinge = "squared_hinge", cosine = "cosine_similarity",
  focal = "binary_focal_crossentropy",
}
for alias, name in pairs(aliases) do loss[alias] = loss[name] end

local anonymous = options.define("loss.function", "What a function given as a loss takes.", fields{})

-- The names there are, for messages.
local function known()
  local list = {}
  for name in pairs(rows) do list[#list + 1] = name end
  for alias in pairs(aliases) do list[#list + 1] = alias end
  table.sort(list)
  return list
end

--- Whether there is a loss of that name.
---@param name string
---@return boolean
function loss.has(name) return rows[aliases[name] or name] ~= nil end

--- Whether the loss of that name takes an option.
---@param name string
---@param option string
---@return boolean
function loss.takes(name, option) return rows[aliases[name] or name].spec.by_name[option] ~= nil end

--- Whether a value is a made loss.
---@param value any
---@return boolean
function loss.is_loss(value) return getmetatable(value) == Loss end

--- Whether two tensors have the same shape.
---@param a table
---@param b table
---@return boolean
function loss.same_shape(a, b) return shapes.same(a:shape(), b:shape()) end

--- The loss for what `compile` is given.
---@param who string for messages
---@param what string|table|function a name, a made loss, or a function (prediction, target) -> number or one per sample
---@param given table|nil options for a name
---@return table loss call it with (prediction, target, weights)
function loss.get(who, what, given)
  if type(what) == "string" then
    local name = aliases[what] or what
    if not rows[name] then core.error(("%s: unknown loss '%s'%s"):format(who, what, options.hint(what, known()))) end
    return make(name, given)
  end
  if getmetatable(what) == Loss then return what end
  if type(what) ~= "function" then
    core.error(("%s: the loss is %s; expected a name, nn.loss.NAME{...}, or a function"):format(who, options.describe(what)))
  end
  for name in pairs(rows) do
    if loss[name] == what then return make(name) end
  end
  return setmetatable({ name = "function", kind = "custom", options = anonymous:read(given), spec = anonymous, compute = what }, Loss)
end

return loss
