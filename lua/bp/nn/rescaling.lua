--- nn.rescaling: x * scale + offset, in floating point; turns image bytes into numbers between 0 and 1.
local core = require "bp.core"
local layer = require "bp.nn.layer"

--- x * scale + offset.
---@class nn.rescaling
local Rescaling = layer.define("rescaling", "x * scale + offset.", {
  { "scale", "number", required = true, help = "factor" },
  { "offset", "number", default = 0, help = "added after" },
})

function Rescaling:forward(x)
  local o = self.options
  if x.dtype ~= "f64" then x = core.ops.cast(x, { dtype = "f32" }) end
  local y = x * o.scale
  if o.offset ~= 0 then y = y + o.offset end
  return y
end

return Rescaling
