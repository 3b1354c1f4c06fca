--- Sequences of different lengths in one batch. A tensor [batch][time][...] may have lengths beside it: how many steps of each sample
--- count. nn.embedding with a padding_index and nn.masking find them, layers that keep batch and time hand them on, recurrent layers take
--- them up; nobody has to pass them by hand.
---@internal
local core = require "bp.core"

local ops = core.ops
local sequence = {}

local lengths_of = setmetatable({}, { __mode = "k" })

--- The lengths that came with a tensor, or nil.
---@param x any
---@return table|nil lengths tensor i64 [batch]
function sequence.lengths(x) return x ~= nil and lengths_of[x] or nil end

--- Puts lengths beside a tensor.
---@param x table
---@param lengths table|boolean|nil false: none, whatever the layer's input has
---@return table x
function sequence.attach(x, lengths)
  lengths_of[x] = lengths
  return x
end

--- Hands the lengths of a layer's input on to its output, when that still has a batch and the same steps.
---@param x any
---@param y any
function sequence.carry(x, y)
  local lengths = lengths_of[x]
  if not lengths or not core.is_tensor(y) or lengths_of[y] ~= nil or x.ndim < 3 or y.ndim < 3 then return end
  if x:shape(1) == y:shape(1) and x:shape(2) == y:shape(2) then lengths_of[y] = lengths end
end

--- The last step that counts, for each sample.
---@param keep table bool [batch][time]
---@return table lengths tensor i64 [batch]
function sequence.from_mask(keep)
  local steps = ops.arange{ start = 1, stop = keep:shape(2) + 1, dtype = "i64" }
  return ops.max(ops.cast(keep, { dtype = "i64" }) * steps, { axes = 2 })
end

return sequence
