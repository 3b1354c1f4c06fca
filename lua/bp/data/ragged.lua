--- A column of sequences of unlike lengths: all ids one after the other, and where each sample begins.
---@internal
local core = require "bp.core"
local options = require "bp.options"

local ops = core.ops
local Ragged = { __name = "sequences" }
Ragged.__index = Ragged
local ragged = {}

--- Whether a column is one.
---@param value any
---@return boolean
function ragged.is(value) return getmetatable(value) == Ragged end

--- Makes a column of lists.
---@param who string for messages
---@param o table { x = lists, padding, max_length, round }
---@return table column
function ragged.new(who, o)
  local flat, starts, lengths, at = {}, {}, {}, 0
  for i, list in ipairs(o.x) do
    if not options.is_plain(list) then
      core.error(("%s: sample %d is %s; expected a list of ids"):format(who, i, options.describe(list)))
    end
    local n = math.min(#list, o.max_length or math.huge)
    starts[i], lengths[i] = at, n
    table.move(list, 1, n, at + 1, flat)
    at = at + n
  end
  flat[at + 1] = o.padding
  local ok, ids = pcall(core.tensor, flat, { dtype = "i64" })
  if not ok then core.error(("%s: the samples are to hold whole numbers only: %s"):format(who, (ids:gsub("^.-:%d+: ", "")))) end
  return setmetatable({ n = #starts, flat = ids, starts = core.tensor(starts, { dtype = "i64" }), lengths = lengths,
    counts = core.tensor(lengths, { dtype = "i64" }), round = o.round, last = at + 1 }, Ragged)
end

Ragged.ndim, Ragged.dtype = 2, "i64"

function Ragged:__len() return self.n end

--- The shape as far as it is known, or one of its sizes.
---@param d integer|nil
---@return any shape
function Ragged:shape(d)
  local shape = { self.n, "?" }
  return d and shape[d] or not d and shape or nil
end

--- The samples at positions as [n][steps], the short ones filled up.
---@param index table i64 tensor
---@return table ids
function Ragged:take(index)
  local n = index:shape(1)
  local starts, counts = ops.take(self.starts, index, { axis = 1 }), ops.take(self.counts, index, { axis = 1 })
  local longest = n > 0 and ops.max(counts):item() or 0
  local steps = math.max(1, (longest + self.round - 1) // self.round) * self.round
  local step = ops.arange{ start = 1, stop = steps + 1, dtype = "i64" }
  local place = ops.unsqueeze(starts, { axis = 2 }) + step
  place = ops.where(ops.le(step, ops.unsqueeze(counts, { axis = 2 })), place, self.last)
  return ops.reshape(ops.take(self.flat, ops.reshape(place, { shape = { n * steps } }), { axis = 1 }), { shape = { n, steps } })
end

--- The samples first..last.
---@param first integer
---@param last integer
---@return table ids
function Ragged:range(first, last)
  return self:take(ops.arange{ start = first, stop = last + 1, dtype = "i64" })
end

--- Positions in an order in which samples of like length come together: stretches of `together` positions are each sorted by length.
--- Batches of `size` then change places, but for a last one that is smaller.
---@param lengths integer[] length of each sample in the order of the positions
---@param order integer[]
---@param size integer
---@param together integer
---@param shuffle function shuffle(n) gives the positions 1..n in random order
---@return integer[] order
function ragged.bucketed(lengths, order, size, together, shuffle)
  local n, sorted = #order, {}
  for first = 1, n, together do
    local part = table.move(order, first, math.min(first + together - 1, n), 1, {})
    local rank = {}
    for i, position in ipairs(part) do rank[position] = i end
    table.sort(part, function(a, b)
      if lengths[a] ~= lengths[b] then return lengths[a] < lengths[b] end
      return rank[a] < rank[b]
    end)
    table.move(part, 1, #part, first, sorted)
  end
  local whole, result = n // size, {}
  for i, batch in ipairs(shuffle(whole)) do table.move(sorted, (batch - 1) * size + 1, batch * size, (i - 1) * size + 1, result) end
  return table.move(sorted, whole * size + 1, n, whole * size + 1, result)
end

return ragged
