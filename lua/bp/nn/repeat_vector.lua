--- nn.repeat_vector(n): [batch][features] -> [batch][n][features].
local core = require "bp.core"
local layer = require "bp.nn.layer"

--- The same vector at each of n steps.
---@class nn.repeat_vector
local RepeatVector = layer.define("repeat_vector", "The same vector at each of n steps.", {
  { "n", "int", min = 1, required = true, help = "number of steps" },
})

function RepeatVector:forward(x)
  layer.need_dims(self, x:shape(), 2, "[batch][features]")
  return core.ops.expand(core.ops.unsqueeze(x, { axis = 2 }), { shape = { x:shape(1), self.options.n, x:shape(2) } })
end

return RepeatVector
