--- nn.reshape: other dimensions for each sample, the batch kept.
local core = require "bp.core"
local layer = require "bp.nn.layer"

--- Other dimensions for each sample, the batch kept.
---@class nn.reshape
local Reshape = layer.define("reshape", "Other dimensions for each sample; the batch is kept.", {
  { "shape", "ints", min = -1, required = true, named = true, help = "dimensions of one sample; one of them may be -1" },
}, function(_, given)
  if type(given) == "table" and given.shape == nil then
    local shape, rest = {}, {}
    for key, value in pairs(given) do
      if type(key) == "number" then shape[key] = value else rest[key] = value end
    end
    rest.shape = shape
    return rest
  end
  return type(given) == "number" and { shape = { given } } or given
end)

function Reshape:forward(x)
  return core.ops.reshape(x, { shape = { x:shape(1), table.unpack(self.options.shape) } })
end

return Reshape
