--- Columns of a dataset: a tensor, or a table of tensors (by name or in a list), whose first dimension counts the samples.
---@internal
local core = require "bp.core"
local options = require "bp.options"
local ragged = require "bp.data.ragged"

local ops = core.ops
local columns = {}

-- What holds samples: a tensor, or sequences of unlike lengths.
local function is_leaf(column) return core.is_tensor(column) or ragged.is(column) end

-- Calls fn(tensor, name) for the column's tensors in a fixed order.
local function each(column, name, fn)
  if is_leaf(column) then return fn(column, name) end
  local keys = {}
  for key in pairs(column) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do each(column[key], ("%s.%s"):format(name, key), fn) end
end

--- Checks that a column consists of tensors with as many samples as the others.
---@param who string for messages
---@param name string of the column
---@param column any
---@param n integer|nil number of samples, when a column before it told
---@return integer n
function columns.check(who, name, column, n)
  if not is_leaf(column) and (not options.is_plain(column) or next(column) == nil) then
    core.error(("%s: %s is %s; expected a tensor or a table of tensors"):format(who, name, options.describe(column)))
  end
  if options.is_plain(column) then
    for key, part in pairs(column) do
      if not is_leaf(part) and not options.is_plain(part) then
        core.error(("%s: %s.%s is %s; expected a tensor"):format(who, name, key, options.describe(part)))
      end
    end
  end
  each(column, name, function(tensor, full_name)
    if tensor.ndim == 0 then
      core.error(("%s: %s is a single number; expected the samples along the first dimension"):format(who, full_name))
    end
    local rows = tensor:shape(1)
    if n and rows ~= n then core.error(("%s: %s has %d samples; expected %d, as many as the others"):format(who, full_name, rows, n)) end
    n = rows
  end)
  if not n then core.error(("%s: %s holds no tensor"):format(who, name)) end
  return n
end

--- The same structure with fn(tensor, ...) in the place of each tensor.
---@param column any
---@param fn function
---@return any column
function columns.map(column, fn, ...)
  if is_leaf(column) then return fn(column, ...) end
  local result = {}
  for key, part in pairs(column) do result[key] = columns.map(part, fn, ...) end
  return result
end

local function take(tensor, index)
  if ragged.is(tensor) then return tensor:take(index) end
  return ops.take(tensor, index, { axis = 1 })
end

local function range(tensor, first, last)
  if ragged.is(tensor) then return tensor:range(first, last) end
  return tensor[{ { first, last } }]
end

--- The samples at the positions of an index tensor, in that order.
---@param column any
---@param index table i64 tensor
---@return any column
function columns.take(column, index) return columns.map(column, take, index) end

--- The samples first..last, as views.
---@param column any
---@param first integer
---@param last integer
---@return any column
function columns.range(column, first, last) return columns.map(column, range, first, last) end

local function owned(tensor, first, last)
  if ragged.is(tensor) then return tensor:range(first, last) end
  return ops.copy(tensor[{ { first, last } }])
end

--- The samples first..last, in memory of their own.
---@param column any
---@param first integer
---@param last integer
---@return any column
function columns.copy(column, first, last) return columns.map(column, owned, first, last) end

--- All samples of a column, sequences filled up to the longest.
---@param column any
---@return any column
function columns.whole(column)
  return columns.map(column, function(tensor) return ragged.is(tensor) and tensor:range(1, #tensor) or tensor end)
end

--- The sequences of unlike lengths in some columns, or nil.
---@param all table columns by name
---@return table|nil column
function columns.sequences(all)
  local found
  for _, name in ipairs{ "x", "y" } do
    if all[name] ~= nil then each(all[name], name, function(column) found = found or ragged.is(column) and column or nil end) end
  end
  return found
end

--- "u8 [28][28][1]" for each tensor: what one sample looks like.
---@param column any
---@return string text
function columns.describe(column)
  local texts = {}
  each(column, "", function(tensor, name)
    local shape = tensor:shape()
    local sample = #shape > 1 and " [" .. table.concat(shape, "][", 2) .. "]" or ""
    texts[#texts + 1] = (name == "" and "" or name:sub(2) .. " ") .. tensor.dtype .. sample
  end)
  return table.concat(texts, ", ")
end

return columns
