--- Metrics: numbers about predictions, gathered over batches of any size and exact over all of them. A metric keeps its sums in f64
--- tensors, so that a captured step gathers them too; result() reads them.
---
---     local m = bp.metrics.get("accuracy"); m:update(prediction, target); print(m:result())
---
--- A metric of one's own: bp.metrics.define("name", function(prediction, target) return total, count end), with tensors total and count.
local core = require "bp.core"
local options = require "bp.options"

local ops = core.ops
local metrics = {}

local Metric = { __name = "metric" }
Metric.__index = Metric

local registry = {}

local function accumulator()
  return core.pause(function() return core.tensor(0, { dtype = "f64" }) end)
end

local function new(row, given)
  local o = row.spec:read(given)
  local self = setmetatable({ name = o.name or row.name, row = row, options = o, sums = {} }, Metric)
  for i = 1, row.sums do self.sums[i] = accumulator() end
  return self
end

--- Adds a batch.
---@param prediction table tensor
---@param target table tensor
function Metric:update(prediction, target)
  local parts = table.pack(self.row.parts(prediction, target, self.options))
  for i, sum in ipairs(self.sums) do
    local part = parts[i]
    if core.is_tensor(part) then part = ops.sum(ops.cast(part, { dtype = "f64" })) end
    sum:add_(part)
  end
end

--- The value over all batches since reset(); nan before any.
---@return number value
function Metric:result()
  local values = {}
  for i, sum in ipairs(self.sums) do values[i] = sum:item() end
  return self.row.result(table.unpack(values))
end

--- Starts anew.
function Metric:reset()
  core.pause(function()
    for _, sum in ipairs(self.sums) do sum:fill_(0) end
  end)
end

function Metric:__tostring() return "metric " .. self.name end

local function ratio(total, count) return total / count end

-- parts(prediction, target, o) gives one tensor or number per sum; result(sums...) the value.
local function define(name, summary, sums, parts, result, fields)
  local all = table.move(fields or {}, 1, #(fields or {}), 1, {})
  all[#all + 1] = { "name", "string", named = true, help = "key in logs; default the metric's name" }
  local row = { name = name, sums = sums, parts = parts, result = result or ratio, spec = options.define("metrics." .. name, summary, all) }
  registry[name] = row
  metrics[name] = function(given) return new(row, given) end
end

--- A metric of one's own.
---@param name string
---@param parts function (prediction, target) -> total, count: tensors (summed over) or numbers; the metric is total / count over all
--- batches
---@return function constructor also metrics[name]
function metrics.define(name, parts)
  if type(name) ~= "string" or type(parts) ~= "function" then
    core.error("metrics.define: expected a name and a function (prediction, target) -> total, count")
  end
  define(name, "Defined by the program.", 2, parts)
  return metrics[name]
end

-- ---- accuracies ----------------------------------------------------------------------------------------------------------------------

local function flat(t)
  return ops.reshape(t, { shape = { -1 } })
end

-- Labels [...], or [...][1].
local function squeezed(target, ndim)
  if target.ndim == ndim + 1 and target:shape(-1) == 1 then return ops.squeeze(target, { axes = { -1 } }) end
  return target
end

define("sparse_categorical_accuracy", "Share of rows whose highest score is at the label.", 2, function(prediction, target)
  local hit = ops.eq(ops.argmax(prediction, { axis = -1 }), squeezed(target, prediction.ndim - 1))
  return hit, hit:numel()
end)

define("categorical_accuracy", "Share of rows whose highest score is where the target's is.", 2, function(prediction, target)
  local hit = ops.eq(ops.argmax(prediction, { axis = -1 }), ops.argmax(target, { axis = -1 }))
  return hit, hit:numel()
end)

define("binary_accuracy", "Share of elements on the right side of the threshold.", 2, function(prediction, target, o)
  local hit = ops.eq(flat(ops.gt(prediction, o.threshold)), flat(ops.gt(target, 0.5)))
  return hit, hit:numel()
end, nil, { { "threshold", "number", default = 0.5, help = "predictions above count as 1; 0 for logits" } })

define("top_k_accuracy", "Share of rows whose label is among the k highest scores.", 2, function(prediction, target, o)
  local labels = target.ndim == prediction.ndim and target:shape(-1) > 1 and ops.argmax(target, { axis = -1 })
    or squeezed(target, prediction.ndim - 1)
  local own = ops.gather(prediction, ops.unsqueeze(ops.cast(labels, { dtype = "i64" }), { axis = -1 }), { axis = -1 })
  local better = ops.sum(ops.gt(prediction, own), { axes = { -1 } })
  local hit = ops.lt(better, o.k)
  return hit, hit:numel()
end, nil, { { "k", "int", min = 1, default = 5, help = "how many scores count" } })

-- ---- regression ----------------------------------------------------------------------------------------------------------------------

local function difference(prediction, target)
  if prediction:numel() ~= target:numel() then
    core.error(("metric: the prediction is [%s], the target [%s]; expected the same shape")
      :format(table.concat(prediction:shape(), "]["), table.concat(target:shape(), "][")))
  end
  return ops.cast(flat(prediction), { dtype = "f64" }) - ops.cast(flat(target), { dtype = "f64" })
end

define("mse", "Mean of (prediction - target)^2.", 2, function(prediction, target)
  return ops.square(difference(prediction, target)), prediction:numel()
end)

define("mae", "Mean of |prediction - target|.", 2, function(prediction, target)
  return ops.abs(difference(prediction, target)), prediction:numel()
end)

define("rmse", "Root of the mean of (prediction - target)^2.", 2, function(prediction, target)
  return ops.square(difference(prediction, target)), prediction:numel()
end, function(total, count) return math.sqrt(total / count) end)

-- 1 - sum (t - p)^2 / sum (t - mean t)^2, the second sum as sum t^2 - (sum t)^2 / n in f64.
define("r2", "Share of the target's variance that is explained: 1 - residual / total.", 4, function(prediction, target)
  local t = ops.cast(flat(target), { dtype = "f64" })
  return ops.square(difference(prediction, target)), ops.square(t), t, target:numel()
end, function(residual, squares, sum, count)
  local total = squares - sum * sum / count
  if count == 0 then return 0 / 0 end
  if total <= 0 then return residual == 0 and 1 or 0 end
  return 1 - residual / total
end)

-- ---- a mean of numbers ---------------------------------------------------------------------------------------------------------------

--- A mean of given numbers, weighted by counts: what fit reports losses with.
---@param name string
---@return table mean with :add(value, count), :result(), :reset()
function metrics.mean(name)
  local self = setmetatable({ name = name, row = { result = ratio }, sums = { accumulator(), accumulator() } }, Metric)
  function self.add(_, value, count)
    self.sums[1]:add_(ops.cast(value, { dtype = "f64" }) * count)
    self.sums[2]:add_(count)
  end
  return self
end

-- ---- by name -------------------------------------------------------------------------------------------------------------------------

local accuracy_for = {
  sparse = function() return "sparse_categorical_accuracy" end,
  categorical = function() return "categorical_accuracy" end,
  binary = function(loss) return "binary_accuracy", { threshold = loss.options.from_logits and 0 or 0.5 } end,
}

local aliases = { mean_squared_error = "mse", mean_absolute_error = "mae", root_mean_squared_error = "rmse", r2_score = "r2",
  acc = "accuracy" }

--- The metric for what compile is given. "accuracy" is the kind that suits the loss.
---@param who string for messages
---@param what string|table a name, a made metric, or a function (prediction, target) -> total, count
---@param loss table|nil the loss it goes with
---@return table metric
function metrics.get(who, what, loss)
  if getmetatable(what) == Metric then return what end
  if type(what) == "function" then
    for name, row in pairs(registry) do
      if metrics[name] == what then return new(row) end
    end
    return metrics.define("metric", what)()
  end
  if type(what) ~= "string" then
    core.error(("%s: a metric is %s; expected a name or bp.metrics.NAME{...}"):format(who, options.describe(what)))
  end
  local name = aliases[what] or what
  if name == "accuracy" then
    local kind, given = "sparse_categorical_accuracy", nil
    if loss and accuracy_for[loss.kind] then kind, given = accuracy_for[loss.kind](loss) end
    if loss and loss.kind == "regression" then kind = "equal_accuracy" end
    local metric = metrics[kind](given)
    metric.name = "accuracy"
    return metric
  end
  if not registry[name] then
    local known = { "accuracy" }
    for key in pairs(registry) do known[#known + 1] = key end
    table.sort(known)
    core.error(("%s: unknown metric '%s'%s"):format(who, what, options.hint(what, known)))
  end
  local metric = metrics[name]()
  metric.name = what
  return metric
end

define("equal_accuracy", "Share of elements that are exactly equal: what accuracy means without classes.", 2, function(prediction, target)
  local hit = ops.eq(difference(prediction, target), 0)
  return hit, hit:numel()
end)

return metrics
