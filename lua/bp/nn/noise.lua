--- Layers that disturb what passes through them while training, and are the identity otherwise. They draw from the stream "dropout".
local core = require "bp.core"
local layer = require "bp.nn.layer"

local ops = core.ops
local layers = {}

local rate = { "rate", "number", min = 0, below = 1, required = true, help = "probability of being dropped" }

-- 0 with probability p, 1 / (1 - p) otherwise.
local function mask(x, shape, p) return (ops.dropout(ops.full{ shape = shape, value = 1, dtype = x.dtype }, { p = p })) end

local function normal(x, std) return ops.random_normal(core.stream "dropout", { shape = x:shape(), std = std, dtype = x.dtype }) end

local function float(x) return (x.dtype == "f32" or x.dtype == "f64") and x or ops.cast(x, { dtype = "f32" }) end

-- The same draw for all positions of a channel (Tompson et al., 2015).
local function spatial(name, dims, expected)
  local class = layer.define(name, "Zeroes whole channels at random while training.", { rate })
  layers[name] = class
  function class:forward(x)
    layer.need_dims(self, x:shape(), dims + 2, expected)
    if not self.training or self.options.rate == 0 then return x end
    local shape = x:shape()
    for i = 2, dims + 1 do shape[i] = 1 end
    x = float(x)
    return x * mask(x, shape, self.options.rate)
  end
end
spatial("spatial_dropout1d", 1, "[batch][time][channels]")
spatial("spatial_dropout2d", 2, "[batch][height][width][channels]")

local function noise(name, summary, fields, disturb)
  local class = layer.define(name, summary, fields)
  layers[name] = class
  function class:forward(x)
    if not self.training then return x end
    return disturb(float(x), self.options)
  end
end

noise("gaussian_noise", "Adds normal noise while training.", {
  { "stddev", "number", min = 0, required = true, help = "standard deviation of what is added" },
}, function(x, o) return o.stddev == 0 and x or x + normal(x, o.stddev) end)

noise("gaussian_dropout", "Multiplies with normal noise of mean 1 while training.", {
  { "rate", "number", min = 0, below = 1, required = true, help = "the standard deviation is sqrt(rate / (1 - rate))" },
}, function(x, o) return o.rate == 0 and x or x * (normal(x, math.sqrt(o.rate / (1 - o.rate))) + 1) end)

-- What is dropped takes selu's limit, -alpha * scale; then all is moved so that mean 0 and variance 1 stay (Klambauer et al., 2017).
local LIMIT = -1.6732632423543772848170429916717 * 1.0507009873554804934193349852946
noise("alpha_dropout", "Dropout for nets of selu: keeps mean and variance.", { rate }, function(x, o)
  if o.rate == 0 then return x end
  local kept = ops.cast(ops.gt(mask(x, x:shape(), o.rate), 0), { dtype = x.dtype })
  local a = 1 / math.sqrt((1 - o.rate) * (1 + o.rate * LIMIT * LIMIT))
  return (x * kept + (1 - kept) * LIMIT) * a - a * LIMIT * o.rate
end)

return layers
