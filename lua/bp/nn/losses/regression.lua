--- Losses between numbers: mse, mae, mape, msle, huber, log_cosh, poisson, cosine_similarity.
---@internal
local core = require "bp.core"
local shapes = require "bp.nn.losses.shapes"

local ops = core.ops
local match, EPSILON = shapes.match, shapes.EPSILON

--- Adds them to nn.loss.
---@param define function see nn.loss
return function(define)
  define("mse", "regression", "Mean of (prediction - target)^2.", {}, function(prediction, target)
    target = match("loss mse", prediction, target)
    return ops.square(prediction - target), target
  end)

  define("mae", "regression", "Mean of |prediction - target|.", {}, function(prediction, target)
    target = match("loss mae", prediction, target)
    return ops.abs(prediction - target), target
  end)

  define("mape", "regression", "100 times the mean of |prediction - target| / max(|target|, 1e-7).", {}, function(prediction, target)
    target = match("loss mape", prediction, target)
    return ops.abs((prediction - target) / ops.clamp(ops.abs(target), { min = EPSILON })) * 100, target
  end)

  define("msle", "regression", "Mean of (log(1 + prediction) - log(1 + target))^2, what lies below 1e-7 taken for 1e-7.", {},
    function(prediction, target)
      target = match("loss msle", prediction, target)
      local p, t = ops.clamp(prediction, { min = EPSILON }), ops.clamp(target, { min = EPSILON })
      return ops.square(ops.log1p(p) - ops.log1p(t)), target
    end)

  -- e^2/2 up to delta, then linear with the same slope: min(|e|, delta) * (|e| - min(|e|, delta)/2).
  define("huber", "regression", "Squared near zero, linear beyond delta.",
    { { "delta", "number", above = 0, default = 1, named = true, help = "where the loss turns linear" } },
    function(prediction, target, o)
      target = match("loss huber", prediction, target)
      local e = ops.abs(prediction - target)
      local near = ops.clamp(e, { max = o.delta })
      return near * (e - near * 0.5), target
    end)

  -- log(cosh(e)) = e + softplus(-2 e) - log 2, which does not overflow.
  define("log_cosh", "regression", "Mean of log(cosh(prediction - target)): e^2/2 near zero, |e| - log 2 far from it.", {},
    function(prediction, target)
      target = match("loss log_cosh", prediction, target)
      local e = prediction - target
      return e + ops.softplus(e * -2) - math.log(2), target
    end)

  define("poisson", "regression", "Mean of prediction - target * log(prediction): counts whose rate is predicted.", {
    { "log_input", "boolean", default = false, named = true,
      help = "the prediction is the logarithm of the rate (PyTorch's default): exp(prediction) - target * prediction" },
  }, function(prediction, target, o)
    target = match("loss poisson", prediction, target)
    if o.log_input then return ops.exp(prediction) - target * prediction, target end
    return prediction - target * ops.log(prediction + EPSILON), target
  end)

  -- x / max(|x|, eps), as Keras' l2 normalisation: the root is taken of max(sum x^2, eps^2), so that a row of zeros has a gradient.
  local function unit(x)
    local squares = ops.sum(ops.square(x), { axes = { -1 }, keepdims = true })
    return x * ops.rsqrt(ops.clamp(squares, { min = 1e-12 }))
  end

  define("cosine_similarity", "cosine",
    "Minus the cosine of the angle between prediction and target over the last dimension: -1 when they point the same way.", {},
    function(prediction, target)
      target = match("loss cosine_similarity", prediction, target)
      return -ops.sum(unit(prediction) * unit(target), { axes = { -1 } }), target
    end)
end
