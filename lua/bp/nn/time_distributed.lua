--- nn.time_distributed(layer): the same layer at every step.
local core = require "bp.core"
local layer = require "bp.nn.layer"
local options = require "bp.options"
local tree = require "bp.nn.tree"

local ops = core.ops

--- The same layer, with the same weights, at every step: [batch][time][...] -> [batch][time][...].
---@class nn.time_distributed
local TimeDistributed = layer.define("time_distributed", "The same layer at every step of a sequence.", {
  { "layer", "any", required = true, help = "what is applied to each step" },
})

function TimeDistributed:setup(o)
  if not tree.is_module(o.layer) then self.spec:fail("the layer is %s; expected a layer", options.describe(o.layer)) end
  self.layer = o.layer
end

function TimeDistributed:forward(x)
  if not core.is_tensor(x) or x.ndim < 3 then
    core.error(("time_distributed: the input is %s; expected [batch][time][features] or more dimensions"):format(options.describe(x)))
  end
  local shape = x:shape()
  local y = self.layer(ops.reshape(x, { shape = { shape[1] * shape[2], table.unpack(shape, 3) } }))
  return ops.reshape(y, { shape = { shape[1], shape[2], table.unpack(y:shape(), 2) } })
end

return TimeDistributed
