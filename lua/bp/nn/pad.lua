--- Zeros around, and cutting off, along one dimension.
---@internal
local core = require "bp.core"

local pad = {}

--- Zeros before and after.
---@param x table tensor
---@param axis integer
---@param before integer
---@param after integer
---@return table tensor
function pad.zeros(x, axis, before, after)
  if before == 0 and after == 0 then return x end
  return core.ops.slice_grad(x, { axis = axis, start = before + 1, size = x:shape(axis) + before + after })
end

--- Without the first `before` and the last `after` positions; the caller sees to it that some are left.
---@param x table tensor
---@param axis integer
---@param before integer
---@param after integer
---@return table tensor
function pad.crop(x, axis, before, after)
  if before == 0 and after == 0 then return x end
  return core.ops.slice(x, { axis = axis, start = before + 1, stop = x:shape(axis) - after })
end

return pad
