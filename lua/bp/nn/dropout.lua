--- nn.dropout: while training, sets elements to zero with probability rate and scales the rest by 1 / (1 - rate); the identity otherwise.
local core = require "bp.core"
local layer = require "bp.nn.layer"

--- Inverted dropout (Srivastava et al. 2014). Draws from the stream "dropout".
---@class nn.dropout
local Dropout = layer.define("dropout", "Zeroes elements at random while training.", {
  { "rate", "number", min = 0, below = 1, required = true, help = "probability of zero" },
})

function Dropout:forward(x)
  if not self.training or self.options.rate == 0 then return x end
  return (core.ops.dropout(x, { p = self.options.rate }))
end

return Dropout
