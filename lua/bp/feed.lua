--- What fit, evaluate and predict take as data, made into a dataset: a dataset, { x, y }, or tensors.
---@internal
local core = require "bp.core"
local options = require "bp.options"

local feed = {}

local function rows(who, what, t)
  if not core.is_tensor(t) then core.error(("%s: %s is %s; expected a tensor"):format(who, what, options.describe(t))) end
  if t.ndim == 0 then core.error(("%s: %s is a single number; expected the samples along the first dimension"):format(who, what)) end
  return t:shape(1)
end

--- A dataset with inputs and, where needed, targets.
---@param who string for messages: "fit"
---@param value any dataset, { x, y }, or the tensor x
---@param y table|nil tensor of targets, when value is the tensor x
---@param weight table|nil tensor of sample weights
---@return table dataset
function feed.dataset(who, value, y, weight)
  local data = require "bp.data"
  if data.is_dataset(value) then
    if weight == nil then return value end
    if value.y == nil or value.x == nil then
      core.error(who .. ": sample_weight goes with tensors; give the dataset its own column 'weight'")
    end
    value, y = { x = value.x, y = value.y, classes = value.classes }, nil
  end
  if core.is_tensor(value) then value = { value, y } end
  if not options.is_plain(value) then
    core.error(("%s: the data is %s; expected a dataset, { x, y } or tensors"):format(who, options.describe(value)))
  end
  local x = value.x or value[1]
  y = value.y or value[2]
  weight = weight or value.weight or value[3]
  local n = rows(who, "x", x)
  if n == 0 then core.error(who .. ": there are no samples: the first dimension of x is 0") end
  for what, t in pairs{ y = y, sample_weight = weight } do
    if rows(who, what, t) ~= n then core.error(("%s: x has %d samples, %s has %d; expected as many"):format(who, n, what, t:shape(1))) end
  end
  return data.tensors{ x = x, y = y, weight = weight, classes = value.classes }
end

--- Whether the targets are labels, one whole number per sample.
---@param dataset table
---@return boolean
function feed.has_labels(dataset)
  local y = dataset.y
  return core.is_tensor(y) and y.ndim == 1 and (y.dtype == "i64" or y.dtype == "i32" or y.dtype == "u8")
end

return feed
