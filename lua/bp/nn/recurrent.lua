--- nn.simple_rnn, nn.gru and nn.lstm: layers over sequences [batch][time][features].
---
---     nn.sequential{ nn.embedding{ 20000, 128, padding_index = 1 }, nn.lstm{ 128, bidirectional = true }, nn.dense(1) }
---     local y, state = rnn(x, { lengths = lengths, initial_state = state })
---
--- Weights and gates stand as in Keras: kernel [inputs][gates * units], recurrent_kernel [units][gates * units], gates i, f, c, o of an
--- LSTM and z, r, h of a GRU. A state is a list: { h }, of an LSTM { h, c }; with several layers or directions a list of such lists.
local core = require "bp.core"
local cell = require "bp.nn.cell"
local layer = require "bp.nn.layer"
local options = require "bp.options"
local sequence = require "bp.nn.sequence"

local ops = core.ops
local recurrent = {}

local function fields(kind)
  local list = cell.fields(kind)
  for _, field in ipairs{
    { "return_sequences", "boolean", default = false, named = true, help = "give the state after every step, not only after the last" },
    { "return_state", "boolean", default = false, named = true, help = "give the last state as a second result" },
    { "num_layers", "int", min = 1, default = 1, named = true, help = "layers on top of each other" },
    { "bidirectional", "boolean", default = false, named = true, help = "a second pass from the end to the beginning" },
    { "merge", "choice", choices = { "concat", "sum", "mul", "ave" }, default = "concat",
      named = true, help = "what becomes of the two directions' results" },
    { "go_backwards", "boolean", default = false, named = true,
      help = "from the last step to the first; sequences come out in that order, as in Keras" },
    { "stateful", "boolean", default = false, named = true,
      help = "begin a batch with the state the last one ended with; see reset_states" },
    { "dropout", "number", min = 0, below = 1, default = 0, named = true,
      help = "share of the inputs dropped while training, the same ones in all steps of a sample; in a stack, of each layer's inputs" },
    { "recurrent_dropout", "number", min = 0, below = 1, default = 0, named = true,
      help = "share of the state dropped on its way into the next step; runs step by step, which is slower" },
    { "fused", "boolean", default = true, named = true,
      help = "all steps in one op; false: step by step from small ops, which has second derivatives" },
  } do list[#list + 1] = field end
  return list
end

-- ---- what a call brings along --------------------------------------------------------------------------------------------------------

local call_options = options.define("recurrent call", "What a recurrent layer takes beside its input: rnn(x, { lengths = ... }).", {
  { "lengths", "tensor", named = true, help = "whole numbers [batch]: how many steps of each sample count; default what x brings along" },
  { "initial_state", "tensor|table", named = true,
    help = "state to begin with: h, { h } or { h, c }, one such list per layer and direction" },
})

local function read_call(self, x, given)
  if not core.is_tensor(x) or x.ndim ~= 3 then
    core.error(("%s: the input is %s; expected a tensor [batch][time][features]"):format(self.class_name, options.describe(x)))
  end
  if given ~= nil and not options.is_plain(given) then
    core.error(("%s: the second value is %s; expected a table: rnn(x, { lengths =, initial_state = })")
      :format(self.class_name, options.describe(given)))
  end
  local o = call_options:read(given)
  return o.lengths or sequence.lengths(x), o.initial_state
end

-- A state as a list { h } or { h, c }.
local function state_list(self, state, count)
  if core.is_tensor(state) then state = { state } end
  if state ~= nil and (#state ~= count or not core.is_tensor(state[1])) then
    core.error(("%s: the initial state has %d tensors; expected %s"):format(self.class_name, #state, count == 2 and "{ h, c }" or "{ h }"))
  end
  return state
end

-- ---- one direction -------------------------------------------------------------------------------------------------------------------

-- The same sequence made of small ops. Steps beyond a sample's length leave its state as it is.
local function step_by_step(self, kind, x, state, lengths, reverse)
  local o, count, outputs = self.options, x:shape(2), {}
  state = state or cell.zeros(kind, x, o.units)
  local z, mask = ops.linear(x, self.kernel, self.bias), nil
  if self.training and o.recurrent_dropout > 0 then
    mask = ops.dropout(ops.full{ shape = { x:shape(1), o.units }, value = 1, dtype = z.dtype }, { p = o.recurrent_dropout })
  end
  local open = lengths and ops.unsqueeze(lengths, { axis = 2 })
  for i = 1, count do
    local t = reverse and count + 1 - i or i
    local new = cell.steps[kind](self, ops.select(z, { axis = 2, index = t }), state, mask)
    local y = new[1]
    if open then
      local runs = ops.ge(open, t)
      y = ops.where(runs, y, 0)
      for k = 1, #new do new[k] = ops.where(runs, new[k], state[k]) end
    end
    state, outputs[t] = new, y
  end
  local y = count > 0 and ops.stack(outputs, { axis = 2 }) or ops.full{ shape = { x:shape(1), 0, o.units }, value = 0, dtype = z.dtype }
  return y, state
end

local fused = {}
function fused.lstm(self, x, state, lengths, reverse)
  local y, h, c = ops.lstm(x, self.kernel, self.recurrent_kernel, self.bias, state and state[1], state and state[2], lengths,
    { reverse = reverse })
  return y, { h, c }
end
function fused.gru(self, x, state, lengths, reverse)
  local y, h = ops.gru(x, self.kernel, self.recurrent_kernel, self.bias, self.recurrent_bias, state and state[1], lengths,
    { reverse = reverse })
  return y, { h }
end
function fused.rnn(self, x, state, lengths, reverse)
  local y, h = ops.rnn(x, self.kernel, self.recurrent_kernel, self.bias, state and state[1], lengths,
    { reverse = reverse, activation = self.options.activation })
  return y, { h }
end

local function can_fuse(self, kind)
  local o = self.options
  if not o.fused or self.training and o.recurrent_dropout > 0 then return false end
  if kind == "rnn" then return o.activation == "tanh" or o.activation == "relu" end
  return o.activation == "tanh" and o.recurrent_activation == "sigmoid" and (kind == "lstm" or o.reset_after)
end

-- Drops whole features of a sample: the same in all its steps.
local function drop_inputs(self, x)
  local rate = self.options.dropout
  if not self.training or rate == 0 then return x end
  return x * ops.dropout(ops.full{ shape = { x:shape(1), 1, x:shape(3) }, value = 1, dtype = x.dtype }, { p = rate })
end

-- y of all steps, aligned with x, and the last state.
local function one_direction(self, kind, x, state, lengths, reverse)
  x = drop_inputs(self, x)
  if can_fuse(self, kind) then return fused[kind](self, x, state, lengths, reverse) end
  return step_by_step(self, kind, x, state, lengths, reverse)
end

-- ---- several layers and directions ---------------------------------------------------------------------------------------------------

local merges = {
  concat = function(a, b) return ops.concat({ a, b }, { axis = -1 }) end,
  sum = function(a, b) return a + b end,
  mul = function(a, b) return a * b end,
  ave = function(a, b) return (a + b) * 0.5 end,
}
recurrent.merges = merges

local function is_stack(o) return o.num_layers > 1 or o.bidirectional end

-- The parts of a stack are layers of one direction; each is asked for its sequence and its state.
local function make_parts(self, class, o)
  local parts = {}
  for i = 1, o.num_layers do
    parts[i] = {}
    for direction = 1, o.bidirectional and 2 or 1 do
      local given = {}
      for key, value in pairs(o) do given[key] = value end
      given.num_layers, given.bidirectional, given.merge, given.inputs, given.name, given.stateful = nil, nil, nil, nil, nil, nil
      given.return_sequences, given.return_state, given.go_backwards = true, true, false
      local part = class(given)
      rawset(part, "reverse", direction == 2)
      self[("layer_%d%s"):format(i, direction == 2 and "_reverse" or "")] = part
      parts[i][direction] = part
    end
  end
  rawset(self, "parts", parts)
end

local function run_stack(self, x, state, lengths)
  local o, states, last = self.options, {}, nil
  local per_layer = o.bidirectional and 2 or 1
  if state ~= nil and (core.is_tensor(state) or #state ~= o.num_layers * per_layer) then
    core.error(("%s: the initial state is for %s; expected a list of %d states, layer after layer, forward before backward")
      :format(self.class_name, core.is_tensor(state) and "one layer" or #state, o.num_layers * per_layer))
  end
  for i, part in ipairs(self.parts) do
    local results, ends = {}, {}
    for direction = 1, per_layer do
      local at = (i - 1) * per_layer + direction
      results[direction], states[at] = part[direction](x, { lengths = lengths, initial_state = state and state[at] })
      ends[direction] = states[at][1]
    end
    local merge = merges[o.merge]
    x = per_layer == 2 and merge(results[1], results[2]) or results[1]
    last = per_layer == 2 and merge(ends[1], ends[2]) or ends[1]
  end
  return x, states, last
end

-- ---- classes -------------------------------------------------------------------------------------------------------------------------

-- The tensors of a state and those of another of the same form, pair by pair.
local function each(state, other, fn)
  if core.is_tensor(state) then return fn(state, other) end
  local list = {}
  for i, item in ipairs(state) do list[i] = each(item, other and other[i], fn) end
  return list
end

local function samples_of(state)
  while not core.is_tensor(state) do state = state[1] end
  return state:shape(1)
end

-- Room for the state between batches, made outside of any capture.
local function make_room(self, kind, x)
  local o = self.options
  core.pause(core.no_grad, function()
    local function zeros() return each(cell.zeros(kind, x, o.units), nil, function(t) return t:clone() end) end
    local room = is_stack(o) and {} or zeros()
    for i = 1, is_stack(o) and o.num_layers * (o.bidirectional and 2 or 1) or 0 do room[i] = zeros() end
    rawset(self, "kept_state", room)
  end)
end

-- A copy of the state that the last batch left.
local function kept_state(self, kind, x)
  local kept = rawget(self, "kept_state")
  if not kept or rawget(self, "was_reset") and samples_of(kept) ~= x:shape(1) then
    make_room(self, kind, x)
    kept = rawget(self, "kept_state")
  end
  rawset(self, "was_reset", nil)
  if samples_of(kept) ~= x:shape(1) then
    core.error(("%s: it is stateful and keeps the state of %d samples, but the batch has %d; give batches of one size, or call "
      .. "reset_states()"):format(self.class_name, samples_of(kept), x:shape(1)))
  end
  return core.no_grad(each, kept, nil, function(t) return t:clone() end)
end

local function keep_state(self, state)
  core.no_grad(each, rawget(self, "kept_state"), state, function(to, from) to:copy_(from:detach()) end)
end

--- Sets the state that a stateful layer keeps back to zeros: layer:reset_states(). The next batch may be of another size.
---@param self table a layer with stateful = true
function recurrent.reset_states(self)
  local kept = rawget(self, "kept_state")
  if not kept then return end
  core.pause(core.no_grad, each, kept, nil, function(t) t:fill_(0) end)
  rawset(self, "was_reset", true)
end

local function define(kind, name, summary)
  local class = layer.define(name, summary, fields(kind), cell.two_numbers)
  class.recurrent = true

  function class:setup(o)
    cell.setup(self, kind)
    if o.go_backwards and o.bidirectional then
      self.spec:fail("go_backwards and bidirectional; expected one of them: the second direction goes backwards already")
    end
    if is_stack(o) then make_parts(self, class, o) end
    if o.inputs then self:build_for{ 1, o.inputs } end
  end

  function class:build(shape)
    layer.need_dims(self, shape, 3, "[batch][time][features]")
    local o, inputs = self.options, shape[3]
    if not is_stack(o) then return cell.build(self, kind, inputs) end
    for _, part in ipairs(self.parts) do
      for _, one in ipairs(part) do one:build_for{ 1, inputs } end
      inputs = o.units * (o.bidirectional and o.merge == "concat" and 2 or 1)
    end
  end

  function class:forward(x, given)
    local o, lengths, state = self.options, read_call(self, x, given)
    if o.stateful and state == nil then state = kept_state(self, kind, x) end
    local y, last, result
    if is_stack(o) then
      y, state, last = run_stack(self, x, state, lengths)
    else
      y, state = one_direction(self, kind, x, state_list(self, state, kind == "lstm" and 2 or 1), lengths,
        o.go_backwards or rawget(self, "reverse") or false)
      last = state[1]
    end
    if o.stateful and rawget(self, "kept_state") then keep_state(self, state) end
    if o.return_sequences then
      result = o.go_backwards and ops.flip(y, { axes = 2 }) or y
      if lengths then sequence.attach(result, not o.go_backwards and lengths) end
    else
      result = last
    end
    if o.return_state then return result, state end
    return result
  end

  class.reset_states = recurrent.reset_states
  class.own_penalty = function(self) return rawget(self, "parts") == nil and layer.kernel_penalty(self) or nil end
  recurrent[name] = class
end

--- Simple recurrent layer (Elman 1990): h = activation(x w + h u + b).
---@class nn.simple_rnn
define("rnn", "simple_rnn", "Simple recurrent layer: h = activation(x w + h u + b).")
--- Gated recurrent unit (Cho et al. 2014).
---@class nn.gru
define("gru", "gru", "Gated recurrent unit.")
--- Long short-term memory (Hochreiter & Schmidhuber 1997).
---@class nn.lstm
define("lstm", "lstm", "Long short-term memory.")

return recurrent
