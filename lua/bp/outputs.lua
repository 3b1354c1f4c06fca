--- Training models with several outputs: a loss for each, added up with weights, and metrics for each. Predictions and targets are lists or
--- tables by name, as the model's outputs are.
---@internal
local columns = require "bp.data.columns"
local core = require "bp.core"
local metrics = require "bp.metrics"
local options = require "bp.options"

local outputs = {}

--- The names of a model's outputs when it has several, or one by name.
---@param model table
---@return string[]|nil names
function outputs.names(model)
  local ends = rawget(model, "ends")
  return ends and ends.outputs.kind ~= "one" and model.output_names or nil
end

-- What stands for output i in a list or a table by name.
local function part(value, names, i)
  if value[names[i]] ~= nil then return value[names[i]] end
  return value[i]
end

-- Raises where a table by output names one that there is not.
local function check_keys(who, what, given, names)
  for key in pairs(given) do
    local known = math.type(key) == "integer" and key >= 1 and key <= #names
    for _, name in ipairs(names) do known = known or name == key end
    if not known then
      core.error(("%s: %s has '%s', but the model has no such output%s"):format(who, what, tostring(key), options.hint(key, names)))
    end
  end
end

-- The prediction and target of output i.
local function pair(names, i, prediction, target)
  if core.is_tensor(target) and #names == 1 then return part(prediction, names, i), target end
  if core.is_tensor(target) then
    core.error(("the targets are one tensor for %d outputs; expected a table of tensors: %s"):format(#names, table.concat(names, ", ")))
  end
  local y = part(target, names, i)
  if y == nil then
    core.error(("the targets have nothing for the output '%s'; expected %s"):format(names[i], table.concat(names, ", ")))
  end
  return part(prediction, names, i), y
end

-- ---- losses --------------------------------------------------------------------------------------------------------------------------

local Sum = { __name = "losses" }
Sum.__index = Sum

--- The weighted sum of the outputs' losses.
function Sum:__call(prediction, target, weight)
  if not core.is_tensor(target) then check_keys("loss", "the target", target, self.names) end
  local total
  for i, loss in ipairs(self.losses) do
    local p, y = pair(self.names, i, prediction, target)
    local value = loss(p, y, weight)
    self.values[i] = value
    if self.weights[i] ~= 1 then value = value * self.weights[i] end
    total = total and total + value or value
  end
  return total
end

--- What a saved model keeps of it.
function Sum:config(one)
  local list = {}
  for i, loss in ipairs(self.losses) do
    list[i] = one(loss)
    if not list[i] then return nil end
  end
  return { outputs = list, weights = self.weights }
end

-- compile's loss for each output: one for all, a list, or a table by name.
local function losses_of(names, what, loss_for)
  local list = {}
  if options.is_plain(what) then check_keys("compile", "loss", what, names) end
  for i, name in ipairs(names) do
    local one = what
    if options.is_plain(what) then one = part(what, names, i) end
    if one == nil then core.error(("compile: there is no loss for the output '%s'; expected one for each"):format(name)) end
    list[i] = loss_for(one, i)
  end
  return list
end

local function weights_of(names, given)
  local list = {}
  if given ~= nil then check_keys("compile", "loss_weights", given, names) end
  for i, name in ipairs(names) do
    local weight = given and part(given, names, i)
    if weight == nil then weight = 1 end
    if type(weight) ~= "number" or weight ~= weight or weight < 0 then
      core.error(("compile: the loss weight of '%s' is %s; expected a number at least 0"):format(name, options.describe(weight)))
    end
    list[i] = weight
  end
  return list
end

--- The loss of a model with several outputs.
---@param names string[]
---@param what any one loss for all outputs, a list, or a table by name
---@param weights table|nil numbers, in a list or by name
---@param loss_for function (loss, output) -> made loss
---@return table loss callable with predictions, targets and sample weights
function outputs.loss(names, what, weights, loss_for)
  return setmetatable({ name = "several losses", kind = "several", options = {}, names = names, losses = losses_of(names, what, loss_for),
    weights = weights_of(names, weights), values = {} }, Sum)
end

-- ---- metrics -------------------------------------------------------------------------------------------------------------------------

-- The loss of one output, as a metric.
local function loss_metric(sum, i)
  local mean = metrics.mean(sum.names[i] .. "_loss")
  function mean.update(_, prediction) mean:add(sum.values[i]:detach(), part(prediction, sum.names, i):shape(1)) end
  return mean
end

-- A metric of one output, called "output_metric".
local function output_metric(names, i, metric)
  local self = { name = names[i] .. "_" .. metric.name, of = metric, output = i }
  function self.update(_, prediction, target, weight)
    local p, y = pair(names, i, prediction, target)
    metric:update(p, y, weight)
  end
  function self.result() return metric:result() end
  function self.reset() metric:reset() end
  return self
end

--- The metrics of a model with several outputs: each output's loss, and what compile was given.
---@param sum table from outputs.loss
---@param given table|nil a list for all outputs, lists in a list, or lists by name
---@param check function (loss, metric)
---@return table[] metrics
function outputs.metrics(sum, given, check)
  local names, list = sum.names, {}
  for i in ipairs(names) do list[i] = loss_metric(sum, i) end
  local apart = false -- a table for each output
  for key, value in pairs(given or {}) do apart = apart or type(key) == "string" or options.is_plain(value) end
  if apart then check_keys("compile", "metrics", given, names) end
  for i in ipairs(names) do
    local mine = given or {}
    if apart then mine = part(given, names, i) or {} end
    if not options.is_plain(mine) then mine = { mine } end
    for _, what in ipairs(mine) do
      local metric = metrics.get("compile", what, sum.losses[i])
      check(sum.losses[i], metric)
      list[#list + 1] = output_metric(names, i, metric)
    end
  end
  return list
end

--- The names of the metrics by output, for a saved model.
---@param list table[] from outputs.metrics
---@param count integer of outputs
---@param name_of function metric -> name
---@return table[] names
function outputs.metric_names(list, count, name_of)
  local by_output = {}
  for i = 1, count do by_output[i] = {} end
  for _, metric in ipairs(list) do
    if metric.of then table.insert(by_output[metric.output], name_of(metric.of)) end
  end
  return by_output
end

-- ---- data ----------------------------------------------------------------------------------------------------------------------------

--- The same structure without history.
---@param value any tensor, or a table of tensors
---@return any
function outputs.detach(value)
  return columns.map(value, function(tensor) return tensor:detach() end)
end

--- How many samples a batch holds.
---@param value any tensor, or a table of tensors
---@return integer n
function outputs.rows(value)
  while not core.is_tensor(value) do value = select(2, next(value)) end
  return value:shape(1)
end

--- Batches of predictions as one.
---@param parts any[] tensors, or tables of tensors alike
---@return any
function outputs.join(parts)
  if #parts == 1 then return parts[1] end
  if core.is_tensor(parts[1]) then return core.ops.concat(parts, { axis = 1 }) end
  local result = {}
  for key in pairs(parts[1]) do
    local list = {}
    for i, one in ipairs(parts) do list[i] = one[key] end
    result[key] = outputs.join(list)
  end
  return result
end

return outputs
