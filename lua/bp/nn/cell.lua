--- One step of a recurrent layer, made of small ops: nn.rnn_cell, nn.gru_cell and nn.lstm_cell for loops of one's own, and what the
--- layers fall back on where the fused ops do not reach (other activations, recurrent dropout, second derivatives).
local core = require "bp.core"
local activations = require "bp.nn.activations"
local init = require "bp.nn.initializers"
local layer = require "bp.nn.layer"

local ops = core.ops
local cell = {}

--- Options of weights that cells and layers share.
---@param kind string "rnn", "gru" or "lstm"
---@return table[] fields
function cell.fields(kind)
  local list = {
    { "units", "int", min = 1, required = true, help = "size of the state" },
    { "activation", "string|function", default = "tanh", named = true, help = "of the new state: a name or a function" },
  }
  local function add(field) list[#list + 1] = field end
  if kind ~= "rnn" then
    add{ "recurrent_activation", "string|function", default = "sigmoid", named = true, help = "of the gates" }
  end
  for _, field in ipairs(layer.weight_fields()) do add(field) end
  add{ "recurrent_init", "string|number|function", default = "orthogonal", named = true, help = "initialiser of the state's weights" }
  if kind == "lstm" then
    add{ "unit_forget_bias", "boolean", default = true, named = true, help = "the bias of the forget gate begins at 1 (Jozefowicz 2015)" }
  end
  if kind == "gru" then
    add{ "reset_after", "boolean", default = true, named = true,
      help = "the reset gate works on the state's product, as in PyTorch; false: on the state itself" }
  end
  add{ "inputs", "int", min = 1, named = true, help = "size of a step's input, when the parameters are to be there before the first call" }
  return list
end

local gates = { rnn = 1, gru = 3, lstm = 4 }

local function forget_bias(units)
  return function() return ops.concat({ init.zeros{ units }, init.ones{ units }, init.zeros{ 2 * units } }, { axis = 1 }) end
end

--- Makes the parameters of a cell or of a layer of one direction.
---@param self table
---@param kind string
---@param inputs integer
function cell.build(self, kind, inputs)
  local o, all = self.options, gates[kind] * self.options.units
  self.kernel = layer.parameter(self.class_name, o.kernel_init, { inputs, all })
  self.recurrent_kernel = layer.parameter(self.class_name, o.recurrent_init, { o.units, all })
  if not o.use_bias then return end
  local ones = kind == "lstm" and o.unit_forget_bias and o.bias_init == "zeros"
  self.bias = layer.parameter(self.class_name, ones and forget_bias(o.units) or o.bias_init, { all })
  if kind == "gru" and o.reset_after then self.recurrent_bias = layer.parameter(self.class_name, o.bias_init, { all }) end
end

local function block(x, units, from, to)
  return ops.slice(x, { axis = -1, start = (from - 1) * units + 1, stop = to * units })
end

-- Each: x w + b of one step, the state (a list), the mask of recurrent dropout or nil -> the new state.
local steps = {}

local function masked(h, mask) return mask and h * mask or h end

function steps.rnn(self, z, state, mask)
  return { self.act(z + ops.linear(masked(state[1], mask), self.recurrent_kernel)) }
end

function steps.lstm(self, z, state, mask)
  local n = self.options.units
  z = z + ops.linear(masked(state[1], mask), self.recurrent_kernel)
  local i, f, o = self.gate(block(z, n, 1, 1)), self.gate(block(z, n, 2, 2)), self.gate(block(z, n, 4, 4))
  local c = f * state[2] + i * self.act(block(z, n, 3, 3))
  return { o * self.act(c), c }
end

function steps.gru(self, a, state, mask)
  local o, n, h = self.options, self.options.units, masked(state[1], mask)
  local z, r, new
  if o.reset_after then
    local p = ops.linear(h, self.recurrent_kernel, self.recurrent_bias)
    local both = self.gate(block(a, n, 1, 2) + block(p, n, 1, 2))
    z, r = block(both, n, 1, 1), block(both, n, 2, 2)
    new = self.act(block(a, n, 3, 3) + r * block(p, n, 3, 3))
  else
    local both = self.gate(block(a, n, 1, 2) + ops.matmul(h, block(self.recurrent_kernel, n, 1, 2)))
    z, r = block(both, n, 1, 1), block(both, n, 2, 2)
    new = self.act(block(a, n, 3, 3) + ops.matmul(r * h, block(self.recurrent_kernel, n, 3, 3)))
  end
  return { z * state[1] + (1 - z) * new }
end
cell.steps = steps

--- Finds the activations.
---@param self table
---@param kind string
function cell.setup(self, kind)
  local o = self.options
  rawset(self, "act", activations.get(self.class_name, o.activation))
  if kind ~= "rnn" then rawset(self, "gate", activations.get(self.class_name, o.recurrent_activation)) end
end

--- A state of zeros.
---@param kind string
---@param x table the input, for batch and dtype
---@param units integer
---@return table state { h } or { h, c }
function cell.zeros(kind, x, units)
  local h = ops.full{ shape = { x:shape(1), units }, value = 0, dtype = x.dtype == "f64" and "f64" or "f32" }
  return kind == "lstm" and { h, h } or { h }
end

-- ---- classes -------------------------------------------------------------------------------------------------------------------------

local function two_numbers(_, given)
  local options = require "bp.options"
  if options.is_plain(given) and given[1] ~= nil and given[2] ~= nil and given[3] == nil then
    local copy = { inputs = given[1], units = given[2] }
    for key, value in pairs(given) do
      if type(key) == "string" then copy[key] = value end
    end
    return copy
  end
  return given
end
cell.two_numbers = two_numbers

local function define(kind, summary)
  local class = layer.define(kind .. "_cell", summary, cell.fields(kind), two_numbers)
  function class:setup(o)
    cell.setup(self, kind)
    if o.inputs then self:build_for{ o.inputs } end
  end
  function class:build(shape)
    layer.need_dims(self, shape, 2, "[batch][inputs], one step")
    cell.build(self, kind, shape[2])
  end
  function class:forward(x, ...)
    local state = { ... }
    if #state == 0 then state = cell.zeros(kind, x, self.options.units) end
    if #state < (kind == "lstm" and 2 or 1) then self.spec:fail("one state was given; expected both, h and c: h, c = cell(x, h, c)") end
    return table.unpack(steps[kind](self, ops.linear(x, self.kernel, self.bias), state))
  end
  class.own_penalty = layer.kernel_penalty
  cell[kind .. "_cell"] = class
end

--- One step of a simple recurrent layer: h = cell(x, h), x [batch][inputs], h [batch][units]; without h it begins at zeros.
---@class nn.rnn_cell
define("rnn", "One step of a simple recurrent layer: h = cell(x, h).")
--- One step of a GRU: h = cell(x, h).
---@class nn.gru_cell
define("gru", "One step of a GRU: h = cell(x, h).")
--- One step of an LSTM: h, c = cell(x, h, c).
---@class nn.lstm_cell
define("lstm", "One step of an LSTM: h, c = cell(x, h, c).")

return cell
