--- nn.multi_head_attention and nn.transformer_block (Vaswani et al., "Attention is all you need", 2017).
---
---     local attention = nn.multi_head_attention{ 4, causal = true }
---     local y = attention(x)                                     -- self-attention: x [batch][time][features]
---     local y = attention(x, memory, { lengths = lengths })      -- x looks at memory, of which lengths[i] steps count in row i
local core = require "bp.core"
local activations = require "bp.nn.activations"
local dense = require "bp.nn.dense"
local layer = require "bp.nn.layer"
local norm = require "bp.nn.norm"
local options = require "bp.options"
local positional = require "bp.nn.positional"
local sequence = require "bp.nn.sequence"

local dropout = { "dropout", "number", min = 0, below = 1, default = 0, named = true }
local causal = { "causal", "boolean", default = false, named = true, help = "a step sees itself and the steps before it only" }
local rotary = { "rotary", "boolean", default = false, named = true,
  help = "turn queries and keys by their position (Su et al., RoFormer, 2021); the size of a head must be even" }

local call_spec = options.define("multi_head_attention call", "What goes with the inputs of a call.", {
  { "lengths", "tensor", named = true, help = "[batch] whole numbers: how many steps of key and value count in each row; default what the "
    .. "key brings along (nn.embedding with padding_index), else all" },
})

-- The tensors of a call and the options at its end.
local function arguments(self, ...)
  local list = table.pack(...)
  local given = list[list.n]
  if list.n > 0 and options.is_plain(given) then
    list[list.n], list.n = nil, list.n - 1
  else
    given = nil
  end
  for i = 1, list.n do
    if list[i] == nil and i > 1 then goto next end -- left out
    if not core.is_tensor(list[i]) then
      core.error(("%s '%s': input %d is %s; expected a tensor [batch][time][features], or { lengths = } at the end"):format(self.class_name,
        self:own_name(), i, options.describe(list[i])))
    end
    if list[i].ndim ~= 3 then layer.need_dims(self, list[i]:shape(), 3, "[batch][time][features]") end
    ::next::
  end
  return list, call_spec:read(given)
end

local fields = {
  { "heads", "int", min = 1, required = true, help = "number of heads" },
  { "size", "int", min = 1, help = "size of a query and a key of one head (Keras' key_dim); default features of the query / heads" },
  { "value_size", "int", min = 1, named = true, help = "size of a value of one head; default size" },
  { "units", "int", min = 1, named = true, help = "features of the result; default those of the query" },
  causal,
  { "dropout", "number", min = 0, below = 1, default = 0, named = true,
    help = "chance of an attention weight to be dropped while training" },
  rotary,
}
table.move(layer.weight_fields(), 1, 3, #fields + 1, fields)

--- Attention of several heads side by side: query, key, value and output are dense layers of their own.
---@class nn.multi_head_attention
local Attention = layer.define("multi_head_attention", "Lets every step look at all steps, with several heads.", fields)

function Attention:build(shape)
  local o = self.options
  if #shape ~= 3 then layer.need_dims(self, shape, 3, "[batch][time][features]") end
  local features = shape[3]
  if not o.size and features % o.heads ~= 0 then
    core.error(("multi_head_attention '%s': %d features cannot be cut into %d heads of equal size; choose another number of heads, or "
      .. "say size"):format(self:own_name(), features, o.heads))
  end
  local size = o.size or features // o.heads
  if o.rotary and size % 2 ~= 0 then
    core.error(("multi_head_attention '%s': rotary turns pairs, so the size of a head must be even; it is %d"):format(self:own_name(),
      size))
  end
  local function projection(units)
    return dense{ units, use_bias = o.use_bias, kernel_init = o.kernel_init, bias_init = o.bias_init }
  end
  self.query = projection(o.heads * size)
  self.key = projection(o.heads * size)
  self.value = projection(o.heads * (o.value_size or size))
  self.output = projection(o.units or features)
end

--- query looks at key and takes from value; key is query when left out, value is key.
---@param ... any query, key, value, { lengths = }
---@return tensor y [batch][time of query][units]
function Attention:forward(...)
  local list, given = arguments(self, ...)
  if list.n < 1 or list.n > 3 then
    core.error(("multi_head_attention '%s': %d inputs; expected query, or query and key, or query, key and value"):format(self:own_name(),
      list.n))
  end
  local o = self.options
  local key_in = list[2] or list[1]
  local query, key, value = self.query(list[1]), self.key(key_in), self.value(list[3] or key_in)
  if o.rotary then query, key = positional.rotate(query, o.heads), positional.rotate(key, o.heads) end
  local y = core.ops.attention(query, key, value, given.lengths or sequence.lengths(key_in), nil, nil,
    { heads = o.heads, causal = o.causal, p = self.training and o.dropout or 0 })
  return self.output(y)
end

-- ---- transformer block ---------------------------------------------------------------------------------------------------------------

dropout.help = "chance of an element to be dropped while training: of the attention's weights, and of what each half adds"

--- x + attention(norm(x)), then x + feed-forward(norm(x)): the pre-norm block (Xiong et al., "On layer normalization in the transformer
--- architecture", 2020).
---@class nn.transformer_block
local Block = layer.define("transformer_block", "Attention and two dense layers, each behind a normalisation and added to what came in.", {
  { "heads", "int", min = 1, required = true, help = "number of heads" },
  { "hidden", "int", min = 1, help = "units of the first dense layer; default 4 times the features" },
  causal,
  dropout,
  { "activation", "string|function", default = "gelu", named = true, help = "of the first dense layer" },
  { "norm", "choice", choices = { "layer_norm", "rms_norm" }, default = "layer_norm", named = true, help = "which normalisation" },
  rotary,
})

function Block.setup(_, o)
  activations.split("transformer_block", o.activation) -- an unknown name is an error here, not at the first call
end

function Block:build(shape)
  local o = self.options
  if #shape ~= 3 then layer.need_dims(self, shape, 3, "[batch][time][features]") end
  self.norm_1 = norm[o.norm]()
  self.attention = Attention{ o.heads, causal = o.causal, dropout = o.dropout, rotary = o.rotary }
  self.norm_2 = norm[o.norm]()
  self.dense_1 = dense{ o.hidden or 4 * shape[3], activation = o.activation }
  self.dense_2 = dense(shape[3])
end

local function drop(self, x)
  local p = self.options.dropout
  if not self.training or p == 0 then return x end
  return (core.ops.dropout(x, { p = p }))
end

--- The block over x, with { lengths = } of its rows.
---@param ... any x, { lengths = }
---@return tensor y like x
function Block:forward(...)
  local list, given = arguments(self, ...)
  if list.n ~= 1 then core.error(("transformer_block '%s': %d inputs; expected one"):format(self:own_name(), list.n)) end
  local x = list[1]
  x = x + drop(self, self.attention(self.norm_1(x), { lengths = given.lengths or sequence.lengths(list[1]) }))
  return x + drop(self, self.dense_2(self.dense_1(self.norm_2(x))))
end

return { multi_head_attention = Attention, transformer_block = Block }
