--- What matters among the columns of a table.
local core = require "bp.core"
local options = require "bp.options"
local score = require "bp.explain.score"

local ops = core.ops
local tables = {}

local importance_spec = options.define("explain.permutation_importance", "How much worse a model gets when a column is shuffled.", {
  { "model", "any", required = true, help = "a module, or a function of a batch" },
  { "x", "tensor", required = true, help = "[samples][columns]" },
  { "y", "tensor", required = true, help = "targets" },
  { "loss", "function", named = true, help = "function (prediction, y) -> one number, lower is better; default the model's compiled loss" },
  { "repeats", "int", min = 1, default = 5, named = true, help = "shuffles of each column" },
  { "names", "table", named = true, help = "of the columns" },
})
local dependence_spec = options.define("explain.partial_dependence", "The mean score as one column is set to one value after another.",
  score.with{
    { "column", "int", min = 1, required = true, named = true, help = "which column of x" },
    { "values", "table|tensor", named = true, help = "what it is set to; default `points` values between its 5th and 95th percentile" },
    { "points", "int", min = 2, default = 20, named = true, help = "how many values" },
  })

-- x as [n][columns].
local function columns_of(spec, x)
  if x.ndim ~= 2 then spec:fail("option 'x' is %s; expected [samples][columns]", score.shape_text(x)) end
  return score.floats(spec, x)
end

local function loss_of(model, loss)
  if loss then return loss end
  local compiled = type(model) == "table" and rawget(model, "compiled")
  if not compiled then importance_spec:fail("the model is not compiled; pass loss = function (prediction, y)") end
  return function(prediction, y) return compiled.loss(prediction, y) end
end

--- The rise of the loss when one column is shuffled (with the stream shuffle), which cuts its tie to the target and keeps its values.
--- Breiman, "Random Forests", 2001; Fisher and others, "All Models are Wrong, but Many are Useful", 2019.
---@param given table { model, x, y, loss =, repeats = 5, names = }
---@return table result { mean = rise of the loss for each column, std =, baseline = loss of x as it is, names = }
function tables.permutation_importance(given, ...)
  local o = importance_spec:read(given, ...)
  local restore <close> = score.inference(importance_spec, o.model) -- luacheck: ignore 211
  local x = columns_of(importance_spec, o.x)
  local n, count = x:size(1), x:size(2)
  if o.y:size(1) ~= n then importance_spec:fail("x has %d samples and y %d", n, o.y:size(1)) end
  if o.names and #o.names ~= count then importance_spec:fail("option 'names' has %d entries; x has %d columns", #o.names, count) end
  local loss = loss_of(o.model, o.loss)
  local function value(input)
    local v = core.no_grad(core.scope, function()
      local got = loss(o.model(input), o.y)
      return core.is_tensor(got) and got:numel() == 1 and got:item() or got
    end)
    if type(v) ~= "number" then importance_spec:fail("the loss is %s; expected one number", options.describe(v)) end
    return v
  end
  local result = { mean = {}, std = {}, names = o.names, baseline = value(x) }
  for c = 1, count do
    local rises, sum, squares = {}, 0, 0
    for r = 1, o.repeats do
      rises[r] = core.no_grad(core.scope, function()
        local shuffled, order = ops.copy(x), ops.random_permutation(core.stream "shuffle", { n = n })
        shuffled[{ {}, c }] = ops.take(x[{ {}, c }], order, { axis = 1 })
        return value(shuffled)
      end) - result.baseline
      sum = sum + rises[r]
    end
    for _, rise in ipairs(rises) do squares = squares + (rise - sum / o.repeats) ^ 2 end
    result.mean[c], result.std[c] = sum / o.repeats, math.sqrt(squares / o.repeats)
  end
  return result
end

-- So many values between the 5th and the 95th percentile.
local function grid(column, points)
  local sorted = ops.sort(column, { axis = 1 }):totable()
  local function at(share)
    local place = 1 + share * (#sorted - 1)
    local low = math.floor(place)
    return sorted[low] + (place - low) * ((sorted[low + 1] or sorted[low]) - sorted[low])
  end
  local low, high, values = at(0.05), at(0.95), {}
  for i = 1, points do values[i] = low + (high - low) * (i - 1) / (points - 1) end
  return values
end

--- The mean score over all samples with one column set to a value, for one value after another. Friedman, "Greedy Function Approximation",
--- 2001.
---@param given table { model, x, column =, target =, values =, points = 20 }
---@return table result { values =, mean =, column = }: lists
function tables.partial_dependence(given, ...)
  local o = dependence_spec:read(given, ...)
  local restore <close> = score.inference(dependence_spec, o.model) -- luacheck: ignore 211
  local x = columns_of(dependence_spec, o.x)
  if o.column > x:size(2) then dependence_spec:fail("column %d; x has %d columns", o.column, x:size(2)) end
  return core.no_grad(function()
    local of_inputs = score.of(dependence_spec, o, x)
    of_inputs(x) -- settles the classes by the samples as they are
    local values = o.values or grid(x[{ {}, o.column }], o.points)
    if core.is_tensor(values) then values = ops.reshape(values, { shape = { -1 } }):totable() end
    local result = { values = values, mean = {}, column = o.column }
    for i, value in ipairs(values) do
      if type(value) ~= "number" then dependence_spec:fail("value %d is %s; expected a number", i, options.describe(value)) end
      result.mean[i] = core.scope(function()
        local changed = ops.copy(x)
        changed[{ {}, o.column }] = value
        return ops.mean(of_inputs(changed)):item()
      end)
    end
    return result
  end)
end

return tables
