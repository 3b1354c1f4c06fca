--- Losses over classes: cross-entropies, focal losses, hinges, Kullback-Leibler divergence, Dice.
---@internal
local core = require "bp.core"
local shapes = require "bp.nn.losses.shapes"

local ops = core.ops
local match, labels, smooth, EPSILON = shapes.match, shapes.labels, shapes.smooth, shapes.EPSILON

local class_weights = { "class_weights", "tensor|table", named = true, help = "one weight per class, multiplied with those of the samples" }
local from_logits = { "from_logits", "boolean", default = true, named = true, help = "the prediction is logits; false: probabilities" }
local label_smoothing = { "label_smoothing", "number", min = 0, below = 1, default = 0,
  named = true, help = "moves this much of the target to all classes alike" }
local ignore_index = { "ignore_index", "int", named = true,
  help = "rows with this label count for nothing, also not in the mean (PyTorch's ignore_index, Keras' ignore_class)" }

local function focal(alpha, gamma)
  return { "alpha", "number", min = 0, default = 0.25, named = true, help = alpha },
    { "gamma", "number", min = 0, default = 2, named = true, help = gamma }
end

local function last(x, reduce, keepdims) return reduce(x, { axes = { -1 }, keepdims = keepdims }) end

local function cut(p) return ops.clamp(p, { min = EPSILON, max = 1 - EPSILON }) end

-- Rows that sum to 1.
local function shares(p) return p / last(p, ops.sum, true) end

-- Labels without the ignored ones (which become 1), and where the others are, as numbers 0 and 1; nil when none is ignored.
local function counted(target, dtype, ignore)
  if not ignore then return target, nil end
  local known = ops.ne(target, ignore)
  return ops.where(known, target, ops.full{ shape = target:shape(), value = 1, dtype = target.dtype }), ops.cast(known, { dtype = dtype })
end

local function one_hot(safe, prediction)
  return ops.one_hot(safe, { classes = prediction:shape(-1), dtype = prediction.dtype })
end

local function cross_entropies(define)
  define("binary_crossentropy", "binary", "Cross-entropy of yes/no targets 0..1, elementwise.", {
    class_weights, from_logits, label_smoothing,
    { "pos_weight", "number", above = 0, default = 1, named = true, help = "factor on the part of targets 1" },
  }, function(prediction, target, o)
    target = match("loss binary_crossentropy", prediction, target)
    local t = smooth(target, o.label_smoothing, 0.5)
    if o.from_logits then return ops.binary_cross_entropy(prediction, t, { pos_weight = o.pos_weight }), target end
    local p = cut(prediction)
    return -(t * ops.log(p) * o.pos_weight + (1 - t) * ops.log(1 - p)), target
  end)

  local function categorical(prediction, target, o)
    local t = smooth(target, o.label_smoothing, 1 / prediction:shape(-1))
    if o.from_logits then return ops.soft_cross_entropy(prediction, t) end
    return -last(t * ops.log(cut(shares(prediction))), ops.sum)
  end

  define("categorical_crossentropy", "categorical", "Cross-entropy of targets that are rows of probabilities (one-hot).",
    { class_weights, from_logits, label_smoothing }, function(prediction, target, o)
      target = match("loss categorical_crossentropy", prediction, target)
      return categorical(prediction, target, o), target
    end)

  define("sparse_categorical_crossentropy", "sparse", "Cross-entropy of targets that are labels 1..classes.",
    { class_weights, from_logits, label_smoothing, ignore_index }, function(prediction, target, o)
      target = labels("loss sparse_categorical_crossentropy", prediction, target)
      local safe, known = counted(target, prediction.dtype, o.ignore_index)
      if o.from_logits then
        local ignore = o.ignore_index or math.mininteger -- else the op passes over -100
        return ops.cross_entropy(prediction, target, { label_smoothing = o.label_smoothing, ignore = ignore }), safe, known
      end
      local values = categorical(prediction, one_hot(safe, prediction), o)
      return known and values * known or values, safe, known
    end)
end

local function focal_losses(define)
  -- The probability of what is not the target; from logits as sigmoids of both signs, so that small ones keep their digits.
  define("binary_focal_crossentropy", "binary",
    "(1 - p)^gamma times the cross-entropy of yes/no targets, p the probability given to the target: what is already right counts little "
    .. "(Lin et al. 2017).", { class_weights, from_logits, label_smoothing,
      { "apply_class_balancing", "boolean", default = false, named = true, help = "weigh targets 1 by alpha and targets 0 by 1 - alpha" },
      focal("weight of targets 1 under apply_class_balancing", "how fast the weight of what is right falls; 0: plain cross-entropy") },
    function(prediction, target, o)
      target = match("loss binary_focal_crossentropy", prediction, target)
      local t = smooth(target, o.label_smoothing, 0.5)
      local entropy, wrong
      if o.from_logits then
        entropy = ops.binary_cross_entropy(prediction, t)
        wrong = t * ops.sigmoid(-prediction) + (1 - t) * ops.sigmoid(prediction)
      else
        local p = cut(prediction)
        entropy = -(t * ops.log(p) + (1 - t) * ops.log(1 - p))
        wrong = t * (1 - p) + (1 - t) * p
      end
      local value = o.gamma > 0 and ops.pow(wrong, o.gamma) * entropy or entropy
      if o.apply_class_balancing then value = value * (t * (2 * o.alpha - 1) + (1 - o.alpha)) end
      return value, target
    end)

  local function categorical(prediction, target, o)
    local logs, p
    if o.from_logits then
      logs = ops.log_softmax(prediction)
      p = ops.exp(logs)
    else
      p = cut(shares(prediction))
      logs = ops.log(p)
    end
    local t = smooth(target, o.label_smoothing, 1 / prediction:shape(-1))
    local weight = o.gamma > 0 and ops.pow(ops.clamp(1 - p, { min = EPSILON }), o.gamma) * o.alpha or o.alpha
    return -last(weight * t * logs, ops.sum)
  end

  define("categorical_focal_crossentropy", "categorical", "alpha (1 - p)^gamma times the cross-entropy of rows of probabilities.", {
    class_weights, from_logits, label_smoothing, focal("factor of the whole", "how fast the weight of what is right falls"),
  }, function(prediction, target, o)
    target = match("loss categorical_focal_crossentropy", prediction, target)
    return categorical(prediction, target, o), target
  end)

  define("sparse_categorical_focal_crossentropy", "sparse", "alpha (1 - p)^gamma times the cross-entropy of labels 1..classes.", {
    class_weights, from_logits, label_smoothing, ignore_index, focal("factor of the whole", "how fast the weight of what is right falls"),
  }, function(prediction, target, o)
    target = labels("loss sparse_categorical_focal_crossentropy", prediction, target)
    local safe, known = counted(target, prediction.dtype, o.ignore_index)
    local values = categorical(prediction, one_hot(safe, prediction), o)
    return known and values * known or values, safe, known
  end)
end

local function hinges(define)
  -- Targets that are all 0 or 1 stand for -1 and 1, as in Keras.
  local function signs(target)
    local binary = ops.all(ops.logical_or(ops.eq(target, 0), ops.eq(target, 1)))
    return ops.where(binary, target * 2 - 1, target)
  end

  define("hinge", "hinge", "Mean of max(0, 1 - target * prediction); targets -1 and 1, or 0 and 1.", {}, function(prediction, target)
    target = match("loss hinge", prediction, target)
    return ops.relu(1 - signs(target) * prediction), target
  end)

  define("squared_hinge", "hinge", "Mean of max(0, 1 - target * prediction)^2; targets -1 and 1, or 0 and 1.", {},
    function(prediction, target)
      target = match("loss squared_hinge", prediction, target)
      return ops.square(ops.relu(1 - signs(target) * prediction)), target
    end)

  define("categorical_hinge", "categorical", "max(0, 1 + the highest wrong score - the right one); targets are one-hot rows.", {},
    function(prediction, target)
      target = match("loss categorical_hinge", prediction, target)
      local right, wrong = last(target * prediction, ops.sum), last((1 - target) * prediction, ops.max)
      return ops.relu(wrong - right + 1), target
    end)
end

local function distributions(define)
  define("kl_divergence", "distribution", "Sum over the last dimension of target * log(target / prediction), both rows of probabilities.", {
    { "from_logits", "boolean", default = false, named = true, help = "the prediction is logits" },
  }, function(prediction, target, o)
    target = match("loss kl_divergence", prediction, target)
    local t = ops.clamp(target, { min = EPSILON, max = 1 })
    local logs = o.from_logits and ops.log_softmax(prediction) or ops.log(ops.clamp(prediction, { min = EPSILON, max = 1 }))
    return last(t * (ops.log(t) - logs), ops.sum), target
  end)

  define("dice", "binary", "1 - 2 sum(target * p) / (sum target + sum p), the sums over each sample: how little two regions overlap.", {
    from_logits,
    { "smooth", "number", min = 0, default = EPSILON, named = true, help = "added to the divisor" },
  }, function(prediction, target, o)
    target = match("loss dice", prediction, target)
    local p = o.from_logits and ops.sigmoid(prediction) or prediction
    local n = p:shape(1)
    local function sums(x) return ops.sum(ops.reshape(x, { shape = { n, x:numel() // math.max(1, n) } }), { axes = { 2 } }) end
    return 1 - sums(target * p) * 2 / (sums(target) + sums(p) + o.smooth), target
  end)
end

--- Adds them to nn.loss.
---@param define function see nn.loss
return function(define)
  cross_entropies(define)
  focal_losses(define)
  hinges(define)
  distributions(define)
end
