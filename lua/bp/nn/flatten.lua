--- nn.flatten: [batch][...] -> [batch][product of the rest].
local core = require "bp.core"
local layer = require "bp.nn.layer"

--- All dimensions but the batch become one.
---@class nn.flatten
local Flatten = layer.define("flatten", "All dimensions but the batch become one.", {})

function Flatten.forward(_, x)
  local shape = x:shape()
  local rest = 1
  for i = 2, #shape do rest = rest * shape[i] end
  return core.ops.reshape(x, { shape = { shape[1], rest } })
end

return Flatten
