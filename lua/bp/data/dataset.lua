--- A dataset: tensors of samples (x, y, weight), what their classes are called, and which rows of them belong to it. Splitting and
--- shuffling make datasets over the same tensors; nothing is copied until a batch is gathered.
local batches = require "bp.data.batches"
local columns = require "bp.data.columns"
local core = require "bp.core"
local options = require "bp.options"
local split = require "bp.data.split"

local ops = core.ops
local Dataset = { __name = "dataset" }
local dataset = {} -- the methods

-- What is not a method is a column, or something a loader noted (classes, features, files, skipped).
function Dataset.__index(self, key)
  if dataset[key] then return dataset[key] end
  local column = self.columns[key]
  if column == nil then return self.notes[key] end
  if not self.rows then return columns.whole(column) end
  return core.no_grad(columns.take, column, self.rows)
end

-- Notes may be set: dataset.classes = { "cat", "dog" }. Tensors may not, since other datasets may share them.
function Dataset.__newindex(self, key, value)
  if self.columns[key] ~= nil or dataset[key] then
    core.error(("dataset: '%s' cannot be replaced; make a new dataset with data.tensors"):format(tostring(key)))
  end
  self.notes[key] = value
end

local function new(fields)
  return setmetatable(fields, Dataset)
end

-- A dataset over the same tensors with other rows.
local function with_rows(self, rows, n)
  return new{ columns = self.columns, rows = rows, n = n, functions = self.functions, notes = self.notes }
end

--- Makes a dataset of tensors whose first dimensions agree.
---@param who string for messages
---@param given table { x =, y =, weight = }, each a tensor or a table of tensors
---@param notes table|nil what else is known: classes, features, ...
---@return table dataset
local function make(who, given, notes)
  local n
  for _, name in ipairs{ "x", "y", "weight" } do
    if given[name] ~= nil then n = columns.check(who, name, given[name], n) end
  end
  return new{ columns = { x = given.x, y = given.y, weight = given.weight }, n = n, functions = {}, notes = notes or {} }
end

--- The number of samples, which is #dataset too.
---@return integer n
function dataset:size() return self.n end

function Dataset.__len(self) return self.n end

function Dataset.__tostring(self)
  local parts = {}
  for _, name in ipairs{ "x", "y", "weight" } do
    local column = self.columns[name]
    if column ~= nil then parts[#parts + 1] = ("%s %s"):format(name, columns.describe(column)) end
  end
  if self.notes.classes then parts[#parts + 1] = ("%d classes"):format(#self.notes.classes) end
  return ("dataset of %d samples: %s"):format(self.n, table.concat(parts, ", "))
end

-- Positions within this dataset to rows of its tensors.
local function rows_at(self, positions)
  return self.rows and ops.take(self.rows, positions, { axis = 1 }) or positions
end

local function permutation(n)
  if n == 0 then return core.tensor({}, { dtype = "i64" }) end
  return ops.random_permutation(core.stream "shuffle", { n = n })
end

--- The samples at some positions, in that order; a position may come more than once.
---@param positions table list of positions from 1, or an integer tensor of them
---@return table dataset
function dataset:subset(positions)
  if options.is_plain(positions) then
    for i, position in ipairs(positions) do
      if not math.tointeger(position) then
        core.error(("subset: entry %d is %s; expected a position, a whole number"):format(i, options.describe(position)))
      end
    end
    positions = core.tensor(positions, { dtype = "i64" })
  end
  if not core.is_tensor(positions) or positions.ndim ~= 1 then
    core.error(("subset: the positions are %s; expected a list or a tensor [n] of whole numbers"):format(options.describe(positions)))
  end
  if positions.dtype ~= "i64" and positions.dtype ~= "i32" then
    core.error(("subset: the positions are %s; expected i64"):format(positions.dtype))
  end
  local count = positions:shape(1)
  if count > 0 then
    local low, high = ops.min(positions):item(), ops.max(positions):item()
    if low < 1 or high > self.n then
      core.error(("subset: position %d; the dataset has %d samples, at 1 to %d"):format(low < 1 and low or high, self.n, self.n))
    end
  end
  return core.no_grad(function() return with_rows(self, rows_at(self, positions), count) end)
end

--- The same samples in a random order, drawn from the shuffle stream.
---@return table dataset
function dataset:shuffle()
  return core.no_grad(function() return with_rows(self, rows_at(self, permutation(self.n)), self.n) end)
end

--- Parts without common samples: shares of the whole that add up to 1, or numbers of samples.
---
---     local train, validation, test = dataset:split{0.7, 0.15, 0.15}
---
--- By default the samples are shuffled before (with the shuffle stream), and where classes are known each part has the same mix of them.
---@param given table { share, share, ..., shuffle = true, stratify = whether classes are known }
---@return table ... datasets, as many as shares
function dataset:split(given)
  local counts, o = split.read(self, given)
  local parts = core.no_grad(split.positions, self.columns.y and o.stratify and self.y, self.n, counts, o.shuffle)
  for i, positions in ipairs(parts) do parts[i] = self:subset(positions) end
  return table.unpack(parts)
end

--- The same samples with a function applied to every batch: fn(x, y, batch) gives x, or x and y. It sees tensors of a whole batch.
---@param fn function
---@return table dataset
function dataset:map(fn)
  local meta = getmetatable(fn)
  if type(fn) ~= "function" and not (type(meta) == "table" and meta.__call) then
    core.error(("map: the value is %s; expected a function of x and y"):format(options.describe(fn)))
  end
  local functions = table.move(self.functions, 1, #self.functions, 1, {})
  functions[#functions + 1] = fn
  return new{ columns = self.columns, rows = self.rows, n = self.n, functions = functions, notes = self.notes }
end

--- Goes through the samples in batches: for batch in dataset:batches{ 64, shuffle = true } do ... batch.x, batch.y ... end
---@param given any { 64, shuffle = false, drop_last = false } or the size
---@return function iterator gives { x =, y =, weight =, index = } until all samples were seen
function dataset:batches(given) return batches.iterate(self, given) end

-- `dataset.batches()` instead of `dataset:batches()`, and the like.
for name, method in pairs(dataset) do
  dataset[name] = function(self, ...)
    if getmetatable(self) ~= Dataset then
      core.error(("dataset:%s: called on %s; write dataset:%s(...) with ':'"):format(name, options.describe(self), name))
    end
    return method(self, ...)
  end
end

local function is_dataset(value) return getmetatable(value) == Dataset end

return { make = make, is_dataset = is_dataset }
