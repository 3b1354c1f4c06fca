--- What losses and metrics share: targets in the shape of predictions, labels, smoothing.
---@internal
local core = require "bp.core"

local ops = core.ops
local shapes = {}

--- What keeps logarithms and divisions finite, as in Keras.
shapes.EPSILON = 1e-7

--- "[3][4]".
---@param shape table
---@return string
function shapes.text(shape) return "[" .. table.concat(shape, "][") .. "]" end

--- Whether two shapes are equal.
---@param a table
---@param b table
---@return boolean
function shapes.same(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

--- Target in the shape and dtype of the prediction. [n] stands for [n][1] and the other way round; anything else would broadcast into
--- nonsense.
---@param who string for messages: "loss mse"
---@param prediction table
---@param target table
---@return table target
function shapes.match(who, prediction, target)
  local p, t = prediction:shape(), target:shape()
  if not shapes.same(p, t) then
    local one_more = #p == #t + 1 and p[#p] == 1 or #t == #p + 1 and t[#t] == 1
    if not (one_more and prediction:numel() == target:numel()) then
      core.error(("%s: the prediction is %s, the target %s; expected the same shape"):format(who, shapes.text(p), shapes.text(t)))
    end
    target = ops.reshape(target, { shape = p })
  end
  if target.dtype ~= prediction.dtype then target = ops.cast(target, { dtype = prediction.dtype }) end
  return target
end

--- Labels for logits [...][classes]: one dimension fewer; [n][1] is taken for [n].
---@param who string for messages
---@param prediction table
---@param target table
---@return table labels
function shapes.labels(who, prediction, target)
  if target.dtype == "f32" or target.dtype == "f64" or target.dtype == "bool" then
    core.error(("%s: the labels are %s; expected whole numbers 1..%d: y:to('i64'); rows of probabilities want "
      .. "%s"):format(who, target.dtype, prediction:shape(-1), (who:gsub("^%w+ sparse_", ""):gsub("^%w+ ", ""))))
  end
  local p, t = prediction:shape(), target:shape()
  if #t == #p and t[#t] == 1 then
    target = ops.squeeze(target, { axes = { -1 } })
    t[#t] = nil
  end
  p[#p] = nil
  if not shapes.same(p, t) then
    core.error(("%s: the prediction is %s, the labels %s; expected labels %s: one whole number per row")
      :format(who, shapes.text(prediction:shape()), shapes.text(target:shape()), shapes.text(p)))
  end
  return target
end

--- Target with `amount` of it moved to a share that all get.
---@param target table
---@param amount number
---@param share number
---@return table
function shapes.smooth(target, amount, share)
  return amount > 0 and target * (1 - amount) + amount * share or target
end

return shapes
