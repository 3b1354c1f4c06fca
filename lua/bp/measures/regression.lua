--- Measures of predicted numbers, and of predicted distributions.
---@internal
local core = require "bp.core"
local shapes = require "bp.nn.losses.shapes"

local ops = core.ops

local function f64(t) return ops.cast(t, { dtype = "f64" }) end

-- Prediction and target in f64, of one shape.
local function both(who, prediction, target)
  return f64(prediction), shapes.match("metric " .. who, f64(prediction), f64(target))
end

-- [samples][columns]: the last dimension stays.
local function columns(t)
  return ops.reshape(t, { shape = { -1, t.ndim > 1 and t:shape(-1) or 1 } })
end

--- Adds them to bp.metrics.
---@param mean function see bp.metrics
---@param define function see bp.metrics
return function(mean, define)
  mean("mse", "Mean of (prediction - target)^2.", function(prediction, target)
    local p, t = both("mse", prediction, target)
    return ops.square(p - t)
  end)

  mean("mae", "Mean of |prediction - target|.", function(prediction, target)
    local p, t = both("mae", prediction, target)
    return ops.abs(p - t)
  end)

  mean("rmse", "Root of the mean of (prediction - target)^2.", function(prediction, target)
    local p, t = both("rmse", prediction, target)
    return ops.square(p - t)
  end, nil, math.sqrt)

  mean("mape", "100 times the mean of |prediction - target| / max(|target|, 1e-7).", function(prediction, target)
    local p, t = both("mape", prediction, target)
    return ops.abs((p - t) / ops.clamp(ops.abs(t), { min = shapes.EPSILON })) * 100
  end)

  mean("cosine_similarity", "Mean of the cosine of the angle between prediction and target over the last dimension.",
    function(prediction, target)
      local p, t = both("cosine_similarity", prediction, target)
      local function unit(x) return x * ops.rsqrt(ops.clamp(ops.sum(ops.square(x), { axes = { -1 }, keepdims = true }),
        { min = 1e-12 })) end
      return ops.sum(unit(p) * unit(t), { axes = { -1 } })
    end)

  -- 1 - sum w (t - p)^2 / sum w (t - mean t)^2 for each column of the last dimension, the second sum as sum w t^2 - (sum w t)^2 / sum w.
  define{ name = "r2", summary = "Share of the target's variance that is explained: 1 - residual / total, the mean over the columns.",
    shapes = function(prediction)
      local n = prediction.ndim > 1 and prediction:shape(-1) or 1
      return { { n }, { n }, { n }, {} }
    end,
    parts = function(prediction, target, _, weight)
      local p, t = both("r2", prediction, target)
      local w
      if weight then
        local shape = { weight:shape(1) }
        for i = 2, p.ndim do shape[i] = 1 end
        w = columns(ops.reshape(weight, { shape = shape }) * ops.full{ shape = p:shape(), value = 1, dtype = "f64" })
      end
      p, t = columns(p), columns(t)
      local function sum(x) return ops.sum(w and x * w or x, { axes = { 1 } }) end
      return sum(ops.square(p - t)), sum(ops.square(t)), sum(t), w and ops.sum(w) * (1 / t:shape(2)) or t:shape(1)
    end,
    result = function(residual, squares, sum, count)
      count = count:item()
      if count == 0 then return 0 / 0 end
      local total, n = 0, residual:numel()
      for i = 1, n do
        local rest, spread = residual[i]:item(), squares[i]:item() - sum[i]:item() ^ 2 / count
        total = total + (spread > 0 and 1 - rest / spread or rest == 0 and 1 or 0)
      end
      return total / n
    end }

  mean("perplexity", "exp of the mean cross-entropy of labels: among how many classes the model still wavers.", function(prediction,
    target, o)
    target = shapes.labels("metric perplexity", prediction, target)
    local known = o.ignore_index and ops.ne(target, o.ignore_index)
    local logits = f64(prediction)
    if not o.from_logits then logits = ops.log(ops.clamp(logits / ops.sum(logits, { axes = { -1 }, keepdims = true }),
      { min = 1e-300 })) end
    return ops.cross_entropy(logits, target, { ignore = o.ignore_index or math.mininteger }), known
  end, {
    { "from_logits", "boolean", default = true, named = true, help = "the prediction is logits; false: probabilities" },
    { "ignore_index", "int", named = true, help = "rows with this label do not count" },
  }, math.exp)
end
