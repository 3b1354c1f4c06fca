--- Accuracies: shares of what was predicted right.
---@internal
local core = require "bp.core"
local shapes = require "bp.nn.losses.shapes"

local ops = core.ops

-- Labels [...], or [...][1].
local function squeezed(target, ndim)
  if target.ndim == ndim + 1 and target:shape(-1) == 1 then return ops.squeeze(target, { axes = { -1 } }) end
  return target
end

--- Adds them to bp.metrics.
---@param mean function see bp.metrics
return function(mean)
  mean("sparse_categorical_accuracy", "Share of rows whose highest score is at the label.", function(prediction, target)
    return ops.eq(ops.argmax(prediction, { axis = -1 }), squeezed(target, prediction.ndim - 1))
  end)

  mean("categorical_accuracy", "Share of rows whose highest score is where the target's is.", function(prediction, target)
    return ops.eq(ops.argmax(prediction, { axis = -1 }), ops.argmax(target, { axis = -1 }))
  end)

  mean("binary_accuracy", "Share of elements on the right side of the threshold.", function(prediction, target, o)
    target = shapes.match("metric binary_accuracy", prediction, target)
    return ops.eq(ops.gt(prediction, o.threshold), ops.gt(target, 0.5))
  end, { { "threshold", "number", default = 0.5, help = "predictions above count as 1; 0 for logits" } })

  mean("top_k_accuracy", "Share of rows whose label is among the k highest scores.", function(prediction, target, o)
    local labels = target.ndim == prediction.ndim and target:shape(-1) > 1 and ops.argmax(target, { axis = -1 })
      or squeezed(target, prediction.ndim - 1)
    local own = ops.gather(prediction, ops.unsqueeze(ops.cast(labels, { dtype = "i64" }), { axis = -1 }), { axis = -1 })
    return ops.lt(ops.sum(ops.gt(prediction, own), { axes = { -1 } }), o.k)
  end, { { "k", "int", min = 1, default = 5, help = "how many scores count" } })

  mean("equal_accuracy", "Share of elements that are exactly equal: what accuracy means without classes.", function(prediction, target)
    return ops.eq(prediction, shapes.match("metric equal_accuracy", prediction, target))
  end)
end
