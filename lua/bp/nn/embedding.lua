--- nn.embedding: a vector of one's own for each of a vocabulary of ids.
local core = require "bp.core"
local layer = require "bp.nn.layer"
local options = require "bp.options"
local sequence = require "bp.nn.sequence"

local ops = core.ops

--- A learnt vector for each id 1..vocab: [..] whole numbers -> [..][dim].
---
--- With padding_index, that id stands for nothing: its vector is zeros and stays so, and [batch][time] ids also give each sample a length,
--- its last step that is not padding, which recurrent layers behind it take up by themselves. So pad at the end, not at the beginning.
---@class nn.embedding
local Embedding = layer.define("embedding", "A learnt vector for each id.", {
  { "vocab", "int", min = 1, required = true, help = "how many ids there are: 1..vocab" },
  { "dim", "int", min = 1, required = true, help = "length of a vector" },
  { "padding_index", "int", min = 1, named = true, help = "the id that fills up short samples; default none" },
  { "kernel_init", "string|number|function", default = "uniform",
    named = true, help = "initialiser of the vectors; uniform is -0.05 to 0.05, as in Keras" },
  { "l1", "number", min = 0, default = 0, named = true, help = "adds l1 * sum(|w|) over the vectors to the loss" },
  { "l2", "number", min = 0, default = 0, named = true, help = "adds l2 * sum(w^2) over the vectors to the loss" },
})

-- What stands in for an input where only its shape is known.
Embedding.wants_dtype = "i64"

function Embedding:setup(o)
  if o.padding_index and o.padding_index > o.vocab then
    self.spec:fail("padding_index %d is no id; expected 1 to %d, the vocabulary", o.padding_index, o.vocab)
  end
  self:build_for{}
end

function Embedding:build()
  local o = self.options
  self.kernel = layer.parameter("embedding", o.kernel_init, { o.vocab, o.dim })
  if o.padding_index then core.no_grad(function() self.kernel[o.padding_index]:fill_(0) end) end
end

function Embedding:forward(ids)
  local padding = self.options.padding_index
  if not core.is_tensor(ids) then core.error("embedding: the input is " .. options.describe(ids) .. "; expected a tensor of ids") end
  local y = ops.embedding(ids, self.kernel, { padding_index = padding })
  if padding and ids.ndim == 2 and ids:shape(2) > 0 then sequence.attach(y, sequence.from_mask(ops.ne(ids, padding))) end
  return y
end

Embedding.own_penalty = layer.kernel_penalty

return Embedding
