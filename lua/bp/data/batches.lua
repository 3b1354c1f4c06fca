--- Going through a dataset batch by batch. Each batch is gathered by one op per tensor; where the order is the stored one it is a view,
--- and a copy where functions follow that may write into it.
---@internal
local columns = require "bp.data.columns"
local core = require "bp.core"
local options = require "bp.options"
local ragged = require "bp.data.ragged"

local ops = core.ops

local spec = options.define("batches", "Iterates over a dataset in batches.", {
  { "size", "int", min = 1, default = 32, help = "samples in a batch" },
  { "shuffle", "boolean", default = false, named = true, help = "a new random order, drawn from the shuffle stream at the call" },
  { "drop_last", "boolean", default = false, named = true, help = "leave out a last batch with fewer samples" },
  { "bucket", "int", min = 1, named = true,
    help = "sequences: so many batches of the order are sorted by length together; default what data.sequences said, when shuffled" },
  { "resume", "table", named = true, help = "where an earlier going through stood (its :state()): goes on from there in the same order" },
})

-- What batches returns: call it for the next batch; state() says where it stands.
local Batches = { __name = "batches" }
Batches.__index = Batches

function Batches:__call() return self.next() end

--- Where it stands, for resume: few numbers, whatever the number of samples.
---@return table state
function Batches:state()
  return { done = self.done, size = self.size, samples = self.samples, shuffle = self.shuffle, bucket = self.bucket }
end

Batches.checkpoint_state = Batches.state

-- A state to resume from has to fit the dataset.
local function check_resume(o, n)
  local from = o.resume
  if from.size ~= o.size or from.samples ~= n then
    spec:fail("resume: the state is of %s samples in batches of %s; here are %d in batches of %d, which are other batches",
      tostring(from.samples), tostring(from.size), n, o.size)
  end
  if from.bucket ~= o.bucket then
    spec:fail("resume: the state is of bucket = %s, which are other batches than those of bucket = %s", tostring(from.bucket),
      tostring(o.bucket))
  end
  if (from.shuffle ~= nil) ~= o.shuffle then
    spec:fail("resume: the state is of samples %s; expected the same shuffle = %s", from.shuffle and "shuffled" or "in their stored order",
      tostring(from.shuffle ~= nil))
  end
end

-- How many batches are sorted by length together, or nil.
local function bucket_of(dataset, o)
  local sequences = columns.sequences(dataset.columns)
  if o.bucket and not sequences then
    spec:fail("option 'bucket' sorts sequences by length, and this dataset has none; make it with data.sequences")
  end
  local bucket = o.bucket or o.shuffle and sequences and dataset.notes.bucket or nil
  return bucket ~= 1 and bucket or nil, sequences
end

-- The order with samples of like length together.
local function bucketed(order, rows, sequences, o, stream)
  local lengths, place = {}, rows and rows:totable()
  local positions = order:totable()
  for i, position in ipairs(positions) do lengths[position] = sequences.lengths[place and place[i] or position] end
  local result = ragged.bucketed(lengths, positions, o.size, o.size * o.bucket, function(n)
    if n == 0 then return {} end
    local batches = stream and ops.random_permutation(stream, { n = n }) or ops.arange{ start = 1, stop = n + 1, dtype = "i64" }
    return batches:totable()
  end)
  return core.tensor(result, { dtype = "i64" })
end

-- Applies the functions given to dataset:map.
local function transform(batch, functions)
  for _, fn in ipairs(functions) do
    local x, y = fn(batch.x, batch.y, batch)
    if x == nil then core.error("batches: a function given to map returned nil; expected x, or x and y") end
    batch.x = x
    if y ~= nil then batch.y = y end
  end
  return batch
end

-- The positions of a batch; order is nil where samples come as they are stored.
local function positions(order, first, last)
  return order and order[{ { first, last } }] or ops.arange{ start = first, stop = last + 1, dtype = "i64" }
end

-- A column's samples at rows, or where there are none, first..last; in memory of their own when `own` is true.
local function samples(column, rows, first, last, own)
  if rows then return columns.take(column, rows) end
  return (own and columns.copy or columns.range)(column, first, last)
end

-- Gathers the columns that are not there.
local function fill(batch, rows, first, last)
  for name, column in pairs(batch.dataset.columns) do
    if rawget(batch, name) == nil then batch[name] = samples(column, rows, first, last, rawget(batch, "own")) end
  end
end

-- A batch whose columns are gathered when one is first read. `rows` are the samples' positions in the dataset's own tensors; `untouched`
-- says that no column was gathered or replaced yet.
local Lazy = {}

function Lazy.__index(batch, key)
  if key == "index" then return core.pause(positions, batch.order, batch.first, batch.last) end
  if batch.dataset.columns[key] == nil then return nil end
  core.pause(core.no_grad, fill, batch, rawget(batch, "rows"), batch.first, batch.last)
  return rawget(batch, key)
end

function Lazy.__newindex(batch, key, value)
  batch.untouched = false
  rawset(batch, key, value)
end

-- The batch with other samples in it.
local function move(batch, rows, first, last)
  if rows then core.slide(batch.rows, rows, first, last) end
  batch.first, batch.last = first, last
  if not batch.untouched then
    batch.x, batch.y, batch.weight = nil, nil, nil
    batch.untouched = true
  end
  return batch
end

-- All columns now, and what dataset:map makes of them.
local function gather(dataset, index, rows, first, last, own)
  local batch = { index = index }
  for name, column in pairs(dataset.columns) do batch[name] = samples(column, rows, first, last, own) end
  return transform(batch, dataset.functions)
end

local batches = {}

--- An iterator for the generic for; leaving the loop early needs no care.
---@param dataset table
---@param given any { 64, shuffle = false, drop_last = false, resume = } or the size
---@param lazy string|nil "kept": columns are gathered when they are first read, see also batches.rows; "reused": so they are, and a batch
--- is good until the next one is asked for
---@param own boolean|nil the caller may write into a batch: its columns are no views of the dataset's
---@return table next gives { x =, y =, weight =, index = } when called; index: i64 tensor, the samples' positions in the dataset;
--- next:state() says where it stands
function batches.iterate(dataset, given, lazy, own)
  local o = spec:read(given)
  local n = #dataset
  local bucket, sequences = bucket_of(dataset, o)
  o.bucket = bucket
  if o.resume then check_resume(o, n) end
  local self = setmetatable({ done = o.resume and o.resume.done or 0, size = o.size, samples = n, bucket = o.bucket }, Batches)
  own = own or #dataset.functions > 0
  local last_start = o.drop_last and n - o.size + 1 or n
  core.no_grad(function()
    local order, rows, stream = nil, dataset.rows, nil
    if o.shuffle then
      stream = core.stream "shuffle"
      self.shuffle = o.resume and o.resume.shuffle or { stream[1]:item(), stream[2]:item() }
      if o.resume then stream = core.pause(core.tensor, self.shuffle, { dtype = "i64" }) end
      if n > 0 then
        order = ops.random_permutation(stream, { n = n })
        rows = rows and ops.take(rows, order, { axis = 1 }) or order
      end
    end
    if o.bucket and n > 0 then
      order = bucketed(order or positions(nil, 1, n), rows, sequences, o, stream)
      rows = dataset.rows and ops.take(dataset.rows, order, { axis = 1 }) or order
    end
    local waits, latest = lazy and not sequences and #dataset.functions == 0, nil
    function self.next()
      local first = self.done * o.size + 1
      if first > last_start then return nil end
      local last = first + o.size - 1
      if last > n then last = n end
      self.done = self.done + 1
      if latest then return move(latest, rows, first, last) end
      local here = rows and rows[{ { first, last } }]
      if not waits then return core.no_grad(gather, dataset, positions(order, first, last), here, first, last, own) end
      local batch = setmetatable({ dataset = dataset, rows = here, order = order, first = first, last = last, own = own,
        untouched = true }, Lazy)
      if lazy == "reused" then latest = batch end
      return batch
    end
  end)
  return self
end

--- The positions of a batch that nobody has gathered yet, or nil.
---@param batch table
---@return table|nil rows i64 tensor of positions in batch.dataset.columns
function batches.rows(batch)
  return batch.untouched and rawget(batch, "rows") or nil
end

--- x of a batch's first sample, without gathering the others.
---@param batch table
---@return any x of one sample
function batches.first(batch)
  local rows = batches.rows(batch)
  if rows then return columns.take(batch.dataset.columns.x, rows[{ { 1, 1 } }]) end
  return columns.range(batch.x, 1, 1)
end

return batches
