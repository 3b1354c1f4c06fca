--- How each built-in layer is checked: one row per layer. tests/spec/layers_spec.lua runs what the rows say and fails where a layer of
--- bp.nn has none.
--
-- row.make(nn, bp): a fresh layer. row.shape: of one input with its batch; row.shapes: of several; row.input(bp): an input made otherwise.
-- row.gradient: 2 (first and second order are compared with differences), 1 (the first), or why there is none to compare.
-- row.low: moves the input away from kinks.
local checks = {}

local image, series, rows = { 1, 5, 6, 2 }, { 2, 7, 4 }, { 3, 4 }

-- A row for a layer that is made with nn.NAME(options).
local function row(name, options, shape, gradient, more)
  local one = { make = function(nn) return nn[name](options) end, shape = shape, gradient = gradient }
  for key, value in pairs(more or {}) do one[key] = value end
  checks[name] = one
end

row("dense", { 3, activation = "tanh" }, rows, 2)
row("conv1d", { 3, 3, padding = "causal", activation = "tanh" }, series, 2)
row("conv2d", { 4, 3, padding = "same", activation = "tanh" }, image, 2)
row("conv1d_transpose", { 3, 3, strides = 2 }, series, 2)
row("conv2d_transpose", { 2, 3, strides = 2, padding = "same", activation = "tanh" }, image, 2)
row("depthwise_conv1d", { 3, activation = "tanh" }, series, 2)
row("depthwise_conv2d", { 3, padding = "same", activation = "tanh" }, image, 2)
row("separable_conv1d", { 3, 3, activation = "tanh" }, series, 2)
row("separable_conv2d", { 4, 3, activation = "tanh" }, image, 2)
row("max_pool1d", 2, series, 1)
row("avg_pool1d", { 3, 2, padding = "same" }, series, 1)
row("max_pool2d", 2, image, 1)
row("avg_pool2d", { 3, 2, padding = "same" }, image, 1)
for _, kind in ipairs{ "avg", "max" } do
  row(("global_%s_pool1d"):format(kind), nil, series, 1)
  row(("global_%s_pool2d"):format(kind), nil, image, 1)
  row(("adaptive_%s_pool1d"):format(kind), 3, series, 1)
  row(("adaptive_%s_pool2d"):format(kind), { { 2, 4 } }, image, 1)
end
row("zero_pad1d", { 1, 2 }, series, 1)
row("zero_pad2d", 1, image, 1)
row("crop1d", 1, series, 1)
row("crop2d", 1, image, 1)
row("upsample1d", 2, series, 1)
row("upsample2d", { 2, "bilinear" }, image, 1)
row("permute", { 2, 1 }, series, 1)
row("flatten", nil, image, 1)
row("reshape", { 2, 2 }, rows, 1)
for _, name in ipairs{ "relu", "leaky_relu", "relu6", "hard_tanh", "linear" } do row(name, nil, rows, 1) end
for _, name in ipairs{ "elu", "selu", "gelu", "silu", "mish", "sigmoid", "tanh", "softplus", "softsign", "softmax", "log_softmax",
  "exponential", "glu" } do
  row(name, nil, rows, 2)
end
row("hard_sigmoid", nil, rows, 1)
row("prelu", nil, rows, 1)
row("activation", "tanh", rows, 2)
row("rescaling", { 0.5, 1 }, rows, 1)
row("normalization", nil, rows, 1)
row("lambda", "spec_layer_checks", rows, 2)
row("dropout", 0.4, rows, 1)
row("spatial_dropout1d", 0.4, series, 1)
row("spatial_dropout2d", 0.4, image, 1)
row("gaussian_noise", 0.3, rows, 1)
row("gaussian_dropout", 0.3, rows, 1)
row("alpha_dropout", 0.3, rows, 1)
row("batch_norm", nil, rows, "its running statistics are f32; the op's cases and the stored vectors are f64")
for _, name in ipairs{ "layer_norm", "rms_norm" } do row(name, nil, rows, 2) end
row("group_norm", 2, series, 2)
for _, name in ipairs{ "add", "subtract", "multiply", "average", "maximum", "minimum", "concat", "dot" } do
  row(name, nil, nil, (name == "multiply" or name == "dot") and 2 or 1, { shapes = { rows, rows } })
end

-- From labels, or to labels: there is no gradient.
for _, name in ipairs{ "one_hot", "category_encoding", "discretization" } do checks[name] = { elsewhere = "preprocess_spec.lua" } end

-- Containers and symbols, which have specs of their own.
local containers = "what it is made of is checked; see functional_spec.lua and nn_spec.lua"
checks.sequential = { elsewhere = containers }
checks.model = { elsewhere = containers }

-- Layers whose spec checks all of this by itself.
for name, spec in pairs{ embedding = "recurrent_spec.lua", simple_rnn = "recurrent_spec.lua", gru = "recurrent_spec.lua",
  lstm = "recurrent_spec.lua", rnn_cell = "recurrent_spec.lua", gru_cell = "recurrent_spec.lua", lstm_cell = "recurrent_spec.lua",
  bidirectional = "recurrent_spec.lua", time_distributed = "recurrent_spec.lua", masking = "recurrent_spec.lua",
  repeat_vector = "recurrent_spec.lua", text_vectorization = "text_spec.lua", multi_head_attention = "attention_spec.lua",
  positional = "attention_spec.lua", transformer_block = "attention_spec.lua", lora = "lora_spec.lua" } do
  checks[name] = { elsewhere = spec }
end

--- The layers of bp.nn: classes that have a name to be saved by.
---@param nn table
---@return string[] names sorted
local function layers_of(nn)
  local names = {}
  for name, value in pairs(nn) do
    if type(value) == "table" and rawget(value, "builtin") and rawget(value, "class_name") then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

return { rows = checks, layers = layers_of }
