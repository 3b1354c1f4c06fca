--- nn.masking: finds how long each sample of a padded batch is.
local core = require "bp.core"
local layer = require "bp.nn.layer"
local sequence = require "bp.nn.sequence"

local ops = core.ops

--- Gives each sample of [batch][time][features] a length: its last step with a feature that is not mask_value. Recurrent layers behind it
--- go no further. Steps of padding in the middle or at the beginning count like any other, so pad at the end.
---@class nn.masking
local Masking = layer.define("masking", "Leaves out the padded end of each sample.", {
  { "mask_value", "number", default = 0, help = "what all features of a padded step are" },
})

function Masking:forward(x)
  layer.need_dims(self, x:shape(), 3, "[batch][time][features]")
  local y = ops.reshape(x, { shape = x:shape() })
  if x:shape(2) == 0 then return y end
  return sequence.attach(y, sequence.from_mask(ops.any(ops.ne(x, self.options.mask_value), { axes = 3 })))
end

return Masking
