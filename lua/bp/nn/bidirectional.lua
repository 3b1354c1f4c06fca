--- nn.bidirectional(nn.lstm(64)): a recurrent layer and a second one like it that walks the sequence from its end.
local core = require "bp.core"
local layer = require "bp.nn.layer"
local options = require "bp.options"
local recurrent = require "bp.nn.recurrent"
local sequence = require "bp.nn.sequence"
local tree = require "bp.nn.tree"

--- A recurrent layer run in both directions, each with weights of its own. The same as the layer's option bidirectional.
---@class nn.bidirectional
local Bidirectional = layer.define("bidirectional", "A recurrent layer run in both directions.", {
  { "layer", "any", required = true, help = "nn.simple_rnn, nn.gru or nn.lstm: its options hold for both" },
  { "merge", "choice", choices = { "concat", "sum", "mul", "ave" }, default = "concat", help = "what becomes of the two results" },
})

function Bidirectional:setup(o)
  if not tree.is_module(o.layer) or not o.layer.recurrent then
    self.spec:fail("the layer is %s; expected nn.simple_rnn, nn.gru or nn.lstm",
      tree.is_module(o.layer) and o.layer.class_name or options.describe(o.layer))
  end
  local own = o.layer.options
  if own.go_backwards or own.bidirectional then
    self.spec:fail("the layer has a direction already; give it without bidirectional or go_backwards")
  end
  if own.stateful then self.spec:fail("the layer is stateful; a backward pass has nothing to go on from") end
  local given = {}
  for key, value in pairs(own) do given[key] = value end
  given.go_backwards, given.name = true, nil
  self.forward_layer, self.backward_layer = o.layer, getmetatable(o.layer).__methods(given)
end

function Bidirectional:forward(x, given)
  local own = self.options.layer.options
  local state = given and given.initial_state
  local function call(one, which)
    local copy = {}
    for key, value in pairs(given or {}) do copy[key] = value end
    copy.initial_state = state and state[which]
    return one(x, copy)
  end
  local y, first = call(self.forward_layer, 1)
  local back, second = call(self.backward_layer, 2)
  if own.return_sequences then back = core.ops.flip(back, { axes = 2 }) end
  local result = sequence.attach(recurrent.merges[self.options.merge](y, back), sequence.lengths(y))
  if own.return_state then return result, { first, second } end
  return result
end

return Bidirectional
