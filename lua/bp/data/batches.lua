--- Going through a dataset batch by batch. Each batch is gathered by one op per tensor; where the order is the stored one it is a view.
---@internal
local columns = require "bp.data.columns"
local core = require "bp.core"
local options = require "bp.options"

local ops = core.ops

local spec = options.define("batches", "Iterates over a dataset in batches.", {
  { "size", "int", min = 1, default = 32, help = "samples in a batch" },
  { "shuffle", "boolean", default = false, named = true, help = "a new random order, drawn from the shuffle stream at the call" },
  { "drop_last", "boolean", default = false, named = true, help = "leave out a last batch with fewer samples" },
})

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

--- An iterator for the generic for; leaving the loop early needs no care.
---@param dataset table
---@param given any { 64, shuffle = false, drop_last = false } or the size
---@return function next gives { x =, y =, weight =, index = }; index: i64 tensor, the samples' positions in the dataset
return function(dataset, given)
  local o = spec:read(given)
  local n = #dataset
  local last_start = o.drop_last and n - o.size + 1 or n
  local start = 1
  return core.no_grad(function()
    local order, rows = ops.arange{ start = 1, stop = n + 1, dtype = "i64" }, dataset.rows
    if o.shuffle and n > 0 then
      order = ops.random_permutation(core.stream "shuffle", { n = n })
      rows = rows and ops.take(rows, order, { axis = 1 }) or order
    end
    return function()
      if start > last_start then return nil end
      local first, last = start, math.min(start + o.size - 1, n)
      start = last + 1
      return core.no_grad(function()
        local batch = { index = order[{ { first, last } }] }
        local place = rows and rows[{ { first, last } }]
        for name, column in pairs(dataset.columns) do
          batch[name] = place and columns.take(column, place) or columns.range(column, first, last)
        end
        return transform(batch, dataset.functions)
      end)
    end
  end)
end
