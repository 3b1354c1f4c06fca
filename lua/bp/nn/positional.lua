--- nn.positional: tells a sequence where its steps stand, by adding a vector of each position. Attention takes steps in any order alike,
--- so a transformer needs this, or rotary = true in its attention.
local core = require "bp.core"
local layer = require "bp.nn.layer"

local positional = {}

-- Tensors that depend on sizes alone, by what they depend on. Nothing of making them belongs to a capture.
local function remembered(memory, key, make)
  local found = memory[key]
  if not found then
    found = core.pause(core.no_grad, make)
    memory[key] = found
  end
  return found
end

-- [time][features]: sine and cosine of position / 10000^(2i / features), side by side; positions from 0.
local function waves(time, features, dtype)
  local rows = {}
  for t = 1, time do
    local row = {}
    for i = 1, features do
      local angle = (t - 1) / 10000 ^ ((i - 1) // 2 * 2 / features)
      row[i] = i % 2 == 1 and math.sin(angle) or math.cos(angle)
    end
    rows[t] = row
  end
  return core.tensor(rows, { dtype = dtype })
end

--- Adds a vector of its position to every step.
---@class nn.positional
local Positional = layer.define("positional", "Adds a vector of its position to every step of a sequence.", {
  { "kind", "choice", choices = { "sinusoidal", "learned" }, default = "sinusoidal",
    help = '"sinusoidal": sines of falling frequency, for any length; "learned": a parameter for each position' },
  { "max_length", "int", min = 1, help = "steps of the longest sequence, for \"learned\"" },
  { "init", "string|number|function", default = "normal", named = true, help = "initialiser of the learned vectors" },
}, function(spec, given)
  if given == "rotary" or type(given) == "table" and (given[1] == "rotary" or given.kind == "rotary") then
    spec:fail('option \'kind\' is "rotary"; it belongs to the attention: nn.multi_head_attention{ heads, rotary = true }')
  end
  return given
end)
positional.layer = Positional

function Positional:setup(o)
  if o.kind == "learned" and not o.max_length then
    self.spec:fail("kind \"learned\" needs max_length, the number of positions to learn: nn.positional{ \"learned\", 128 }")
  end
  rawset(self, "tables", {})
end

function Positional:build(shape)
  local o = self.options
  if #shape ~= 3 then layer.need_dims(self, shape, 3, "[batch][time][features]") end
  if o.kind == "learned" then self.embedding = layer.parameter("positional", o.init, { o.max_length, shape[3] }) end
end

function Positional:forward(x)
  local o = self.options
  if x.ndim ~= 3 then layer.need_dims(self, x:shape(), 3, "[batch][time][features]") end
  local time, features = x:shape(2), x:shape(3)
  if o.kind == "sinusoidal" then
    local key = ("%d %d %s"):format(time, features, x.dtype)
    return x + remembered(self.tables, key, function() return waves(time, features, x.dtype) end)
  end
  if time > o.max_length then
    core.error(("positional '%s': the sequences have %d steps, but max_length is %d; make max_length greater or cut the sequences")
      :format(self:own_name(), time, o.max_length))
  end
  return x + self.embedding[{ { 1, time } }]
end

-- ---- rotary --------------------------------------------------------------------------------------------------------------------------

local turns = {} -- cosines and sines by size, few and small

-- cos and sin of position / 10000^(2i / size), [time][1][size / 2]
local function turn(time, size, dtype)
  local cos, sin = {}, {}
  for t = 1, time do
    cos[t], sin[t] = { {} }, { {} }
    for i = 1, size // 2 do
      local angle = (t - 1) / 10000 ^ (2 * (i - 1) / size)
      cos[t][1][i], sin[t][1][i] = math.cos(angle), math.sin(angle)
    end
  end
  return { core.tensor(cos, { dtype = dtype }), core.tensor(sin, { dtype = dtype }) }
end

--- Turns each head of queries or keys by its position: elements i and i + size/2 of a head are a pair, turned by
--- position / 10000^(2i/size). The product of a query and a key then depends on the distance of their positions alone
--- (Su et al., "RoFormer", 2021).
---@param x table [batch][time][heads * size]
---@param heads integer
---@return table y of the same shape
function positional.rotate(x, heads)
  local batch, time, size = x:shape(1), x:shape(2), x:shape(3) // heads
  local by = remembered(turns, ("%d %d %s"):format(time, size, x.dtype), function() return turn(time, size, x.dtype) end)
  local pairs_of = x:reshape(batch, time, heads, 2, size // 2)
  local a, b = pairs_of[{ {}, {}, {}, 1 }], pairs_of[{ {}, {}, {}, 2 }]
  local turned = core.ops.stack({ a * by[1] - b * by[2], b * by[1] + a * by[2] }, { axis = 4 })
  return turned:reshape(batch, time, heads * size)
end

return positional
