--- What fit, evaluate and predict take as data, made into a dataset: a dataset, { x, y }, or tensors.
---@internal
local columns = require "bp.data.columns"
local core = require "bp.core"
local options = require "bp.options"

local feed = {}

local function rows(who, what, t)
  if not core.is_tensor(t) and not options.is_plain(t) then
    core.error(("%s: %s is %s; expected a tensor"):format(who, what, options.describe(t)))
  end
  if core.is_tensor(t) and t.ndim == 0 then
    core.error(("%s: %s is a single number; expected the samples along the first dimension"):format(who, what))
  end
  return core.is_tensor(t) and t:shape(1) or columns.check(who, what, t)
end

-- Whether a table is x alone, for a model with several inputs: it names them, or there is no y to be in it.
local function is_x(value, y, model)
  local names = model and rawget(model, "input_names")
  if not names or value.x ~= nil and value.y ~= nil then return false end
  if value[names[1]] ~= nil then return true end
  if value.x ~= nil then return false end
  return y ~= nil or #names > 1 and core.is_tensor(value[1]) and #value == #names
end

--- A dataset with inputs and, where needed, targets.
---@param who string for messages: "fit"
---@param value any dataset, { x, y }, or x: a tensor, or a table of them for a model with several inputs
---@param y table|nil targets, when value is x
---@param weight table|nil tensor of sample weights
---@param model table|nil whose inputs they are
---@return table dataset
function feed.dataset(who, value, y, weight, model)
  local data = require "bp.data"
  if data.is_dataset(value) then
    if weight == nil then return value end
    if value.y == nil or value.x == nil then
      core.error(who .. ": sample_weight goes with tensors; give the dataset its own column 'weight'")
    end
    value, y = { x = value.x, y = value.y, classes = value.classes }, nil
  end
  if core.is_tensor(value) then value = { x = value, y = y } end
  if not options.is_plain(value) then
    core.error(("%s: the data is %s; expected a dataset, { x, y } or tensors"):format(who, options.describe(value)))
  end
  if is_x(value, y, model) then value = { x = value } end
  local x = value.x or value[1]
  y = y or value.y or value[2]
  weight = weight or value.weight or value[3]
  local n = rows(who, "x", x)
  if n == 0 then core.error(who .. ": there are no samples: the first dimension of x is 0") end
  for what, t in pairs{ y = y, sample_weight = weight } do
    local found = rows(who, what, t)
    if found ~= n then core.error(("%s: x has %d samples, %s has %d; expected as many"):format(who, n, what, found)) end
  end
  return data.tensors{ x = x, y = y, weight = weight, classes = value.classes }
end

--- What predict was given: { a, b } for a model with several inputs is one batch of them.
---@param model table
---@param given any
---@return any
function feed.inputs(model, given)
  local names = rawget(model, "input_names")
  if names and #names > 1 and options.is_plain(given) and core.is_tensor(given[1]) and core.is_tensor(given[2]) then
    local data, rest = {}, {}
    for key, value in pairs(given) do
      if math.type(key) == "integer" then data[key] = value else rest[key] = value end
    end
    rest.data = data
    return rest
  end
  return given
end

--- Whether the targets are labels, one whole number per sample.
---@param dataset table
---@return boolean
function feed.has_labels(dataset)
  local y = dataset.y
  return core.is_tensor(y) and y.ndim == 1 and (y.dtype == "i64" or y.dtype == "i32" or y.dtype == "u8")
end

return feed
