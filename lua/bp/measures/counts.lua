--- Measures made of counts by class: precision, recall, F, intersection over union, the confusion matrix; and areas under curves, of
--- counts by threshold.
---@internal
local core = require "bp.core"
local shapes = require "bp.nn.losses.shapes"

local ops = core.ops
local counts = {}

local function f64(t) return ops.cast(t, { dtype = "f64" }) end
local function flat(t) return ops.reshape(t, { shape = { -1 } }) end

-- Whether targets are labels of the rows of the prediction, rather than yes or no for each element.
local function by_label(prediction, target)
  if prediction.dtype ~= "f32" and prediction.dtype ~= "f64" then return true end
  return prediction:shape(-1) > 1 and target.dtype ~= "f32" and target.dtype ~= "f64" and target.dtype ~= "bool"
    and (target.ndim == prediction.ndim - 1 or target.ndim == prediction.ndim and target:shape(-1) == 1)
end

-- Predicted and true labels [n], and how many classes there are.
local function labels(who, prediction, target, classes)
  if prediction.dtype ~= "f32" and prediction.dtype ~= "f64" then
    if not classes then
      core.error(("metric %s: the predictions are labels; say how many classes there are: metrics.%s{ classes = n }"):format(who, who))
    end
    return flat(prediction), flat(target), classes
  end
  return flat(ops.argmax(prediction, { axis = -1 })), flat(shapes.labels("metric " .. who, prediction, target)), prediction:shape(-1)
end

local function hot(label, classes) return ops.one_hot(label, { classes = classes, dtype = "f64" }) end

-- How many classes the counts have.
local function width(prediction, target, o)
  if not by_label(prediction, target) then return prediction.ndim > 1 and prediction:shape(-1) or 1 end
  return prediction.dtype:sub(1, 1) == "f" and prediction:shape(-1) or o.classes or 1
end

-- [n][classes] f64 of 0 and 1: what was predicted and what is true.
local function decisions(who, prediction, target, o)
  if by_label(prediction, target) then
    local p, t, classes = labels(who, prediction, target, o.classes)
    return hot(p, classes), hot(t, classes)
  end
  target = shapes.match("metric " .. who, prediction, target)
  local shape = { shape = { -1, width(prediction, target, o) } }
  return ops.reshape(f64(ops.gt(prediction, o.threshold)), shape), ops.reshape(f64(ops.gt(target, 0.5)), shape)
end

-- Weights of samples as [n][1]: the rows of a sample lie one after the other.
local function row_weights(weight, n)
  if not weight then return nil end
  local each = n // weight:shape(1)
  local spread = ops.reshape(weight, { shape = { weight:shape(1), 1 } }) * ops.full{ shape = { 1, each }, value = 1, dtype = "f64" }
  return ops.reshape(spread, { shape = { n, 1 } })
end

local function divide(a, b) return b > 0 and a / b or 0 end

-- Combines the numbers of the classes; of(right, predicted, actual).
local function average(how, right, predicted, actual, of)
  local n, list, sum, weight = #right, {}, 0, 0
  if how == "micro" then
    local a, b, c = 0, 0, 0
    for i = 1, n do a, b, c = a + right[i], b + predicted[i], c + actual[i] end
    return of(a, b, c)
  end
  for i = 1, n do
    list[i] = of(right[i], predicted[i], actual[i])
    local one = how == "weighted" and actual[i] or predicted[i] + actual[i] > 0 and 1 or 0
    sum, weight = sum + one * list[i], weight + one
  end
  if how == "none" then return list end
  return divide(sum, weight)
end

local function common(more)
  local list = {
    { "average", "choice", choices = { "auto", "micro", "macro", "weighted", "none" }, default = "auto",
      help = '"micro" counts all classes together, "macro" is the mean over the classes that occur, "weighted" weighs them by how often '
        .. 'they are true, "none" gives a list; "auto": macro for labels, micro for yes or no' },
    { "threshold", "number", default = 0.5, named = true, help = "without labels, predictions above count as yes; 0 for logits" },
    { "class", "int", min = 1, named = true, help = "the number of this class alone" },
    { "classes", "int", min = 2, named = true, help = "how many there are, where predictions are labels" },
  }
  for _, field in ipairs(more or {}) do list[#list + 1] = field end
  return list
end

local function of_classes(define, name, summary, of, more)
  define{ name = name, summary = summary, fields = common(more), several = function(o) return o.average == "none" end,
    shapes = function(prediction, target, o)
      local n = width(prediction, target, o)
      return { { n }, { n }, { n }, {} }
    end,
    parts = function(prediction, target, o, weight)
      local p, t = decisions(name, prediction, target, o)
      local w = row_weights(weight, p:shape(1))
      local function sum(x) return ops.sum(w and x * w or x, { axes = { 1 } }) end
      return sum(p * t), sum(p), sum(t), by_label(prediction, target) and 1 or 0 -- the last tells auto what to do
    end,
    result = function(right, predicted, actual, labelled, o)
      local function rate(a, b, c) return of(a, b, c, o) end
      right, predicted, actual = right:totable(), predicted:totable(), actual:totable()
      if o.class then
        if not right[o.class] then core.error(("metric %s: class %d of %d"):format(name, o.class, #right)) end
        return rate(right[o.class], predicted[o.class], actual[o.class])
      end
      local how = o.average
      if how == "auto" then how = labelled:item() > 0 and "macro" or "micro" end
      return average(how, right, predicted, actual, rate)
    end }
end

-- ---- areas ---------------------------------------------------------------------------------------------------------------------------

-- Thresholds as Keras places them: evenly over 0..1, the first below and the last above it.
local function thresholds(n)
  local list = {}
  for i = 1, n do list[i] = (i - 1) / (n - 1) end
  list[1], list[n] = -shapes.EPSILON, 1 + shapes.EPSILON
  return list
end

-- The area under points, the first coordinate falling.
local function trapezoids(x, y)
  local area = 0
  for i = 1, #x - 1 do area = area + (x[i] - x[i + 1]) * (y[i] + y[i + 1]) / 2 end
  return area
end

-- Precision between two points is not a line: Davis & Goadrich 2006, as in Keras.
local function interpolated_pr(tp, fp, positives)
  local area = 0
  for i = 1, #tp - 1 do
    local dtp, p, q = tp[i] - tp[i + 1], tp[i] + fp[i], tp[i + 1] + fp[i + 1]
    local slope = divide(dtp, p - q)
    local ratio = p > 0 and q > 0 and p / q or 1
    area = area + divide(slope * (dtp + (tp[i + 1] - slope * q) * math.log(ratio)), positives)
  end
  return area
end

local function areas(define)
  define{ name = "auc",
    summary = "Area under the ROC or precision-recall curve, from counts at evenly spaced thresholds, as in Keras. Exact "
    .. "areas over data at hand: metrics.roc_auc, metrics.average_precision.",
    fields = {
      { "curve", "choice", choices = { "roc", "pr" }, default = "roc", help = "which curve" },
      { "thresholds", "int", min = 3, default = 200, named = true, help = "how many" },
      { "from_logits", "boolean", default = false, named = true, help = "predictions are logits: their sigmoid counts" },
    },
    shapes = function(_, _, o) return { { o.thresholds }, { o.thresholds }, {}, {} } end,
    parts = function(prediction, target, o, weight)
      target = f64(flat(shapes.match("metric auc", prediction, target)))
      local score = flat(o.from_logits and ops.sigmoid(prediction) or prediction)
      local n = score:numel()
      local yes = ops.reshape(f64(ops.gt(target, 0.5)), { shape = { n, 1 } })
      local no = 1 - yes
      local w = row_weights(weight, n)
      if w then yes, no = yes * w, no * w end
      local limits = core.pause(core.tensor, { thresholds(o.thresholds) }, { dtype = "f64" })
      local above = f64(ops.gt(f64(ops.reshape(score, { shape = { n, 1 } })), limits))
      return ops.sum(above * yes, { axes = { 1 } }), ops.sum(above * no, { axes = { 1 } }), ops.sum(yes), ops.sum(no)
    end,
    result = function(tp, fp, positives, negatives, o)
      tp, fp, positives, negatives = tp:totable(), fp:totable(), positives:item(), negatives:item()
      if o.curve == "pr" then return interpolated_pr(tp, fp, positives) end
      local x, y = {}, {}
      for i = 1, #tp do x[i], y[i] = divide(fp[i], negatives), divide(tp[i], positives) end
      return trapezoids(x, y)
    end }
end

-- Counts of positives and negatives with at least each score that occurs, from the highest down: [k] each.
local function curve(who, scores, target, weight)
  for what, t in pairs{ scores = scores, target = target } do
    if not core.is_tensor(t) then core.error(("metrics.%s: the %s is no tensor; expected scores, target"):format(who, what)) end
  end
  target = f64(ops.gt(flat(shapes.match("metrics." .. who, scores, target)), 0.5))
  scores = f64(flat(scores))
  local order = ops.argsort(scores, { descending = true })
  local function sorted(t) return ops.take(t, order, { axis = 1 }) end
  local w = weight and f64(flat(weight)) or ops.full{ shape = scores:shape(), value = 1, dtype = "f64" }
  local s, yes, all = sorted(scores), sorted(target * w), sorted(w)
  local n = s:numel()
  local last = ops.full{ shape = { 1 }, value = 1, dtype = "bool" }
  if n > 1 then last = ops.concat({ ops.ne(s[{ { 2, n } }], s[{ { 1, n - 1 } }]), last }, { axis = 1 }) end
  local function at_last(t) return ops.masked_select(ops.cumsum(t, { axis = 1 }), last) end
  local tp = at_last(yes)
  return tp, at_last(all) - tp
end

--- Area under the ROC curve over data at hand, exact: the chance that a positive scores above a negative (sklearn's roc_auc_score).
---@param scores table tensor
---@param target table tensor of the same shape, above 0.5: positive
---@param weight table|nil tensor of weights
---@return number area nan when all are positive or none is
function counts.roc_auc(scores, target, weight)
  return core.no_grad(function()
    local tp, fp = curve("roc_auc", scores, target, weight)
    local zero = ops.full{ shape = { 1 }, value = 0, dtype = "f64" }
    tp, fp = ops.concat({ zero, tp }, { axis = 1 }), ops.concat({ zero, fp }, { axis = 1 })
    local n = tp:numel()
    local function pieces(t) return t[{ { 2, n } }], t[{ { 1, n - 1 } }] end
    local t2, t1 = pieces(tp)
    local f2, f1 = pieces(fp)
    return (ops.sum((f2 - f1) * (t2 + t1)) / 2):item() / (tp[n]:item() * fp[n]:item())
  end)
end

--- Average precision over data at hand, exact: the sum of precision times the growth of recall (sklearn's average_precision_score).
---@param scores table tensor
---@param target table tensor of the same shape, above 0.5: positive
---@param weight table|nil tensor of weights
---@return number precision nan when none is positive
function counts.average_precision(scores, target, weight)
  return core.no_grad(function()
    local tp, fp = curve("average_precision", scores, target, weight)
    local n = tp:numel()
    local before = ops.full{ shape = { 1 }, value = 0, dtype = "f64" }
    if n > 1 then before = ops.concat({ before, tp[{ { 1, n - 1 } }] }, { axis = 1 }) end
    return ops.sum((tp - before) * tp / (tp + fp)):item() / tp[n]:item()
  end)
end

--- Adds them to bp.metrics.
---@param define function see bp.metrics
function counts.add(define)
  of_classes(define, "precision", "Share of what was predicted as a class that is one.", function(right, predicted)
    return divide(right, predicted)
  end)
  of_classes(define, "recall", "Share of a class that was predicted as one.", function(right, _, actual) return divide(right, actual) end)
  of_classes(define, "f1", "Harmonic mean of precision and recall.", function(right, predicted, actual)
    return divide(2 * right, predicted + actual)
  end)
  of_classes(define, "fbeta", "Mean of precision and recall in which recall weighs beta times as much.", function(right, predicted, actual,
    o)
    local square = o.beta * o.beta
    return divide((1 + square) * right, square * actual + predicted)
  end, { { "beta", "number", above = 0, default = 1, named = true, help = "how much recall weighs" } })
  of_classes(define, "iou", "Intersection over union: what is both predicted and true, of what is either.", function(right, predicted,
    actual)
    return divide(right, predicted + actual - right)
  end)

  define{ name = "confusion_matrix", summary = "How often each class (row) was predicted as each (column): result() is a tensor.",
    fields = { { "classes", "int", min = 2, named = true, help = "how many there are, where predictions are labels" } },
    several = function() return true end,
    shapes = function(prediction, target, o)
      local n = width(prediction, target, o)
      return { { n, n } }
    end,
    parts = function(prediction, target, o, weight)
      if not by_label(prediction, target) then
        core.error(("metric confusion_matrix: the target is %s %s for a prediction %s; expected labels, one whole number per row: "
          .. "y:to('i64')")
          :format(target.dtype, shapes.text(target:shape()), shapes.text(prediction:shape())))
      end
      local p, t, classes = labels("confusion_matrix", prediction, target, o.classes)
      local truth, w = hot(t, classes), row_weights(weight, p:numel())
      return ops.matmul(ops.permute(w and truth * w or truth, { axes = { 2, 1 } }), hot(p, classes))
    end,
    result = function(matrix) return matrix:clone() end }
  areas(define)
end

return counts
