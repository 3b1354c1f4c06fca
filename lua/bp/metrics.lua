--- Metrics: numbers about predictions, gathered over batches of any size and exact over all of them. A metric keeps its sums in f64
--- tensors, so that a captured step gathers them too; result() reads them.
---
---     local m = bp.metrics.get("accuracy"); m:update(prediction, target); print(m:result())
---
--- A metric of one's own: bp.metrics.define("name", function(prediction, target) return values end), with a tensor of one value per sample
--- or per element, whose mean it is; or return total, count. Every loss by name is a metric as well: the mean of the loss.
local core = require "bp.core"
local counts = require "bp.measures.counts"
local losses = require "bp.nn.loss"
local options = require "bp.options"

local ops = core.ops
local metrics = {}

local Metric = { __name = "metric" }
Metric.__index = Metric

local registry = {}

local function accumulator(shape)
  return core.pause(ops.full, { shape = shape, value = 0, dtype = "f64" })
end

local function new(row, given)
  local o = row.spec:read(given)
  local self = setmetatable({ name = o.name or row.name, row = row, options = o, sums = {} }, Metric)
  if not row.shapes then
    for i = 1, row.sums do self.sums[i] = accumulator{} end
  end
  return self
end

-- Sums whose shape the first batch tells.
local function make_sums(self, prediction, target)
  for i, shape in ipairs(self.row.shapes(prediction, target, self.options)) do self.sums[i] = accumulator(shape) end
end

local function check_weight(self, prediction, weight)
  if not core.is_tensor(weight) or weight.ndim ~= 1 or weight:shape(1) ~= prediction:shape(1) then
    core.error(("metric %s: the weights are %s for %d samples; expected a tensor of one number per sample"):format(self.name,
      options.describe(weight), prediction:shape(1)))
  end
  return ops.cast(weight, { dtype = "f64" })
end

--- Adds a batch.
---@param prediction table tensor
---@param target table tensor
---@param weight table|nil tensor [batch]: how much each sample counts
function Metric:update(prediction, target, weight)
  if not core.is_tensor(prediction) or not core.is_tensor(target) then
    core.error(("metric %s: update was given %s and %s; expected tensors: prediction, target"):format(self.name,
      options.describe(prediction),
      options.describe(target)))
  end
  if weight ~= nil then weight = check_weight(self, prediction, weight) end
  local parts = table.pack(self.row.parts(prediction, target, self.options, weight))
  if #self.sums == 0 then make_sums(self, prediction, target) end
  for i, sum in ipairs(self.sums) do
    local part = parts[i]
    if core.is_tensor(part) then
      part = ops.cast(part, { dtype = "f64" })
      if sum.ndim == 0 then
        part = ops.sum(part)
      elseif not losses.same_shape(part, sum) then
        core.error(("metric %s: this batch has counts [%s], those before [%s]; the number of classes has changed"):format(self.name,
          table.concat(part:shape(), "]["), table.concat(sum:shape(), "][")))
      end
    end
    sum:add_(part)
  end
end

--- The value over all batches since reset(); nan before any.
---@return number|table value a list or a tensor where the metric is of several numbers
function Metric:result()
  if #self.sums == 0 then return 0 / 0 end
  if self.row.result then
    local all = table.move(self.sums, 1, #self.sums, 1, {})
    all[#all + 1] = self.options
    return self.row.result(table.unpack(all))
  end
  local value = self.sums[1]:item() / self.sums[2]:item()
  return self.row.final and self.row.final(value) or value
end

--- Starts anew.
function Metric:reset()
  core.pause(function()
    for _, sum in ipairs(self.sums) do sum:fill_(0) end
  end)
end

function Metric:__tostring() return "metric " .. self.name end

-- { name, summary, fields, sums = n or shapes = function, parts(prediction, target, o, weight) -> what is added to each sum,
-- result(sums..., o) or nothing: the quotient of two sums, several(o) = whether the result is more than a number }
local function define(row)
  local all = table.move(row.fields or {}, 1, #(row.fields or {}), 1, {})
  all[#all + 1] = { "name", "string", named = true, help = "key in logs; default the metric's name" }
  row.spec = options.define("metrics." .. row.name, row.summary, all)
  registry[row.name] = row
  metrics[row.name] = function(given) return new(row, given) end
end

-- The sum of values, and of how much they count: `known` says which do at all.
local function weigh(values, known, weight)
  values = ops.cast(values, { dtype = "f64" })
  if weight and values.ndim > 1 then
    local shape = { weight:shape(1) }
    for i = 2, values.ndim do shape[i] = 1 end
    weight = ops.reshape(weight, { shape = shape })
  end
  local counting = known and ops.cast(known, { dtype = "f64" })
  if weight then
    counting = (counting or ops.full{ shape = values:shape(), value = 1, dtype = "f64" }) * weight
  end
  if not counting then return values, values:numel() end
  return values * counting, counting
end

-- The mean of values, one per sample or more; final(mean) is the result.
local function mean(name, summary, values, fields, final)
  define{ name = name, summary = summary, fields = fields, sums = 2, final = final,
    parts = function(prediction, target, o, weight)
      local found, known = values(prediction, target, o)
      return weigh(found, known, weight)
    end }
end

require "bp.measures.accuracy"(mean)
require "bp.measures.regression"(mean, define)
counts.add(define)
metrics.roc_auc, metrics.average_precision = counts.roc_auc, counts.average_precision

local own = {}

local function written(name, parts, fields)
  return { name = name, summary = "Defined by the program.", fields = fields, sums = 2, parts = function(prediction, target, o, weight)
    local total, count = parts(prediction, target, o)
    if count ~= nil then
      if weight then
        core.error(("metric %s: the function returned total and count, which cannot be weighted; return one value per sample"):format(name))
      end
      return total, count
    end
    if not core.is_tensor(total) then
      core.error(("metric %s: the function returned %s; expected a tensor, or total and count"):format(name, options.describe(total)))
    end
    if total.ndim == 0 then return total * prediction:shape(1), prediction:shape(1) end
    return weigh(total, nil, weight)
  end }
end

--- A metric of one's own.
---@param name string
---@param parts function (prediction, target, o) -> values: a tensor of one value per sample, or more, whose mean it is, weighted where
---@param there are
--- weights; or -> total, count: tensors (summed over) or numbers; the metric is total / count over all batches
---@param fields table[]|nil options of its own, as bp.options declares them
---@return function constructor also metrics[name]
function metrics.define(name, parts, fields)
  if type(name) ~= "string" or type(parts) ~= "function" then
    core.error("metrics.define: expected a name and a function (prediction, target) -> values, or total, count")
  end
  if rawget(metrics, name) ~= nil and not own[name] then
    core.error(("metrics.define: '%s' is a name of bp.metrics; choose another"):format(name))
  end
  own[name] = true
  define(written(name, parts, fields))
  return metrics[name]
end

-- ---- a mean of numbers ---------------------------------------------------------------------------------------------------------------

--- A mean of given numbers, weighted by counts: what fit reports losses with.
---@param name string
---@return table mean with :add(value, count), :result(), :reset()
function metrics.mean(name)
  local self = setmetatable({ name = name, row = {}, sums = { accumulator{}, accumulator{} } }, Metric)
  function self.add(_, value, count)
    self.sums[1]:add_(ops.cast(value, { dtype = "f64" }) * count)
    self.sums[2]:add_(count)
  end
  return self
end

-- ---- by name -------------------------------------------------------------------------------------------------------------------------

local accuracy_for = {
  sparse = "sparse_categorical_accuracy", categorical = "categorical_accuracy", binary = "binary_accuracy", hinge = "binary_accuracy",
  distribution = "categorical_accuracy", regression = "equal_accuracy", cosine = "equal_accuracy",
}

local aliases = { mean_squared_error = "mse", mean_absolute_error = "mae", root_mean_squared_error = "rmse", r2_score = "r2",
  acc = "accuracy", mean_absolute_percentage_error = "mape", f1_score = "f1", fbeta_score = "fbeta", top_k = "top_k_accuracy",
  top_k_categorical_accuracy = "top_k_accuracy", sparse_top_k_categorical_accuracy = "top_k_accuracy", mean_iou = "iou", confusion =
  "confusion_matrix", cosine = "cosine_similarity" }

-- Options that follow from the loss: scores of yes or no are logits where the loss takes them so.
local function fitting(row, loss)
  if not loss or not loss.options then return nil end
  local known, logits = row.spec.by_name, loss.options.from_logits
  if known.threshold and (loss.kind == "hinge" or loss.kind == "binary" and logits) then return { threshold = 0 } end
  if known.from_logits and logits ~= nil and (row.name ~= "auc" or loss.kind == "binary") then return { from_logits = logits } end
end

local anonymous = options.define("metrics.function", "What a function given as a metric takes.", {
  { "name", "string", named = true, help = "key in logs; default \"metric\"" },
})

-- The mean of a loss.
local function of_loss(made)
  local row = { name = made.name, sums = 2, spec = made.spec, parts = function(prediction, target, _, weight)
    local elements, _, known = made:elements(prediction, target)
    if elements.ndim == 0 then return elements * prediction:shape(1), prediction:shape(1) end
    return weigh(elements, known, weight)
  end }
  return setmetatable({ name = made.name, row = row, options = {}, sums = { accumulator{}, accumulator{} } }, Metric)
end

local function accuracy(loss)
  local row = registry[loss and accuracy_for[loss.kind] or "sparse_categorical_accuracy"]
  local metric = new(row, fitting(row, loss))
  metric.name, metric.general = "accuracy", true
  return metric
end

local function by_name(who, what, loss, given)
  local name = aliases[what] or what
  if name == "accuracy" then return accuracy(loss) end
  if not registry[name] and losses.has(name) then
    local metric = of_loss(losses.get(who, name, given or loss and loss.options.from_logits ~= nil and losses.takes(name, "from_logits")
      and { from_logits = loss.options.from_logits } or nil))
    metric.name = what
    return metric
  end
  if not registry[name] then
    local known = { "accuracy" }
    for key in pairs(registry) do known[#known + 1] = key end
    for key in pairs(aliases) do known[#known + 1] = key end
    table.sort(known)
    core.error(("%s: unknown metric '%s'%s"):format(who, what, options.hint(what, known)))
  end
  local metric = new(registry[name], given or fitting(registry[name], loss))
  metric.name = metric.options.name or what
  return metric
end

--- The metric for what compile is given. "accuracy" is the kind that suits the loss.
---@param who string for messages
---@param what string|table|function a name, a made metric, a made loss, { name =, options = } or a function (prediction, target) ->
---@param values, or
--- total, count
---@param loss table|nil the loss it goes with
---@return table metric
---@private
function metrics.get(who, what, loss)
  if getmetatable(what) == Metric then return what end
  if losses.is_loss(what) then return of_loss(what) end
  if options.is_plain(what) and type(what.name) == "string" then
    local metric = by_name(who, what.name, loss, what.options)
    if what.key then metric.name = what.key end
    return metric
  end
  if type(what) == "function" then
    for name, row in pairs(registry) do
      if metrics[name] == what then return new(row, fitting(row, loss)) end
    end
    for name in pairs(losses) do
      if losses[name] == what and losses.has(name) then return by_name(who, name, loss) end
    end
    local row = written("metric", what)
    row.anonymous, row.spec = true, anonymous
    return new(row)
  end
  if type(what) ~= "string" then
    core.error(("%s: a metric is %s; expected a name or bp.metrics.NAME{...}"):format(who, options.describe(what)))
  end
  return by_name(who, what, loss)
end

--- What a saved model keeps of a metric, for get.
---@param metric table
---@return string|table|nil config nil for a function without a name
function metrics.config(metric)
  if metric.row.anonymous then return nil end
  if metric.general then return "accuracy" end
  local given
  for key, value in pairs(metric.options) do
    local field = metric.row.spec.by_name[key]
    if value ~= (field and field.default) then
      given = given or {}
      given[key] = value
    end
  end
  if not given and metric.name == metric.row.name then return metric.row.name end
  return { name = metric.row.name, options = given, key = metric.name }
end

--- Refuses metrics whose result is more than a number.
---@param who string
---@param metric table
function metrics.need_number(who, metric)
  if metric.row.several and metric.row.several(metric.options) then
    core.error(("%s: the metric %s gives more than one number; update it in a loop of one's own, or take another average"):format(who,
      metric.name))
  end
end

return metrics
