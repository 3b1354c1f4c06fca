--- What fit, evaluate and predict take as data, made into a dataset: a dataset, { x, y }, or tensors.
---@internal
local columns = require "bp.data.columns"
local core = require "bp.core"
local options = require "bp.options"
local ragged = require "bp.data.ragged"
local tree = require "bp.nn.tree"

local feed = {}

local function rows(who, what, t)
  if ragged.is(t) then return #t end
  if not core.is_tensor(t) and not options.is_plain(t) then
    core.error(("%s: %s is %s; expected a tensor"):format(who, what, options.describe(t)))
  end
  if core.is_tensor(t) and t.ndim == 0 then
    core.error(("%s: %s is a single number; expected the samples along the first dimension"):format(who, what))
  end
  return core.is_tensor(t) and t:shape(1) or columns.check(who, what, t)
end

local function is_texts(value) return options.is_plain(value) and type(value[1]) == "string" end

-- The layer of a model that makes ids of texts.
local function text_layer(model)
  for _, entry in ipairs(model and tree.modules(model) or {}) do
    if entry.module.takes_texts then return entry.module end
  end
end

-- Texts as what the model's text_vectorization makes of them: a column of sequences for training, where batches may differ in length.
local function from_texts(who, model, texts)
  local vectorize = text_layer(model)
  if not vectorize then
    core.error(who .. ": x is a list of strings; a model that takes texts begins with nn.text_vectorization")
  end
  if who == "predict" or vectorize.options.length then return vectorize(texts) end
  return ragged.new(who, { x = vectorize:encode(texts), padding = 1, round = 8 })
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
  if core.is_tensor(value) or is_texts(value) then value = { x = value, y = y } end
  if not options.is_plain(value) then
    core.error(("%s: the data is %s; expected a dataset, { x, y } or tensors"):format(who, options.describe(value)))
  end
  if is_x(value, y, model) then value = { x = value } end
  local x = value.x or value[1]
  y = y or value.y or value[2]
  weight = weight or value.weight or value[3]
  if is_texts(x) then x = from_texts(who, model, x) end
  local n = rows(who, "x", x)
  if n == 0 then core.error(who .. ": there are no samples: the first dimension of x is 0") end
  for what, t in pairs{ y = y, sample_weight = weight } do
    local found = rows(who, what, t)
    if found ~= n then core.error(("%s: x has %d samples, %s has %d; expected as many"):format(who, n, what, found)) end
  end
  local notes = { classes = value.classes, bucket = columns.sequences{ x = x } and 50 or nil }
  return require("bp.data.dataset").make(who, { x = x, y = y, weight = weight }, notes)
end

--- What predict was given: { a, b } for a model with several inputs is one batch of them.
---@param model table
---@param given any
---@return any
function feed.inputs(model, given)
  if is_texts(given) then
    local copy = { data = table.move(given, 1, #given, 1, {}) }
    for key, value in pairs(given) do
      if math.type(key) ~= "integer" then copy[key] = value end
    end
    given = copy
  end
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
