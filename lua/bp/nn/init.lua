--- bp.nn: modules, layers, losses, initialisers.
local activation = require "bp.nn.activation"
local attention = require "bp.nn.attention"
local cell = require "bp.nn.cell"
local graph = require "bp.nn.graph"
local conv_transpose = require "bp.nn.conv_transpose"
local depthwise = require "bp.nn.depthwise"
local check_self = require "bp.methods"
local lambda = require "bp.nn.lambda"
local lora = require "bp.nn.lora"
local merge = require "bp.nn.merge"
local model = require "bp.model"
local module = require "bp.nn.module"
local noise = require "bp.nn.noise"
local norm = require "bp.nn.norm"
local names = require "bp.names"
local pool1d = require "bp.nn.pool1d"
local pool2d = require "bp.nn.pool2d"
local recurrent = require "bp.nn.recurrent"
local preprocess = require "bp.nn.preprocess"
local resample = require "bp.nn.resample"
local tree = require "bp.nn.tree"
local weights = require "bp.nn.weights"

local nn = {
  module = module.define,
  sequential = require "bp.nn.sequential",
  input = graph.input,
  model = require "bp.nn.functional",
  dense = require "bp.nn.dense",
  conv1d = require "bp.nn.conv1d",
  conv2d = require "bp.nn.conv2d",
  max_pool2d = pool2d.max_pool2d,
  avg_pool2d = pool2d.avg_pool2d,
  global_max_pool2d = pool2d.global_max_pool2d,
  global_avg_pool2d = pool2d.global_avg_pool2d,
  flatten = require "bp.nn.flatten",
  reshape = require "bp.nn.reshape",
  dropout = require "bp.nn.dropout",
  batch_norm = require "bp.nn.batch_norm",
  layer_norm = norm.layer_norm,
  rms_norm = norm.rms_norm,
  group_norm = norm.group_norm,
  multi_head_attention = attention.multi_head_attention,
  transformer_block = attention.transformer_block,
  positional = require("bp.nn.positional").layer,
  text_vectorization = require "bp.nn.text_vectorization",
  rescaling = require "bp.nn.rescaling",
  embedding = require "bp.nn.embedding",
  simple_rnn = recurrent.simple_rnn,
  gru = recurrent.gru,
  lstm = recurrent.lstm,
  rnn_cell = cell.rnn_cell,
  gru_cell = cell.gru_cell,
  lstm_cell = cell.lstm_cell,
  bidirectional = require "bp.nn.bidirectional",
  time_distributed = require "bp.nn.time_distributed",
  masking = require "bp.nn.masking",
  repeat_vector = require "bp.nn.repeat_vector",
  lambda = lambda.layer,
  register = lambda.register,
  init = require "bp.nn.initializers",
  loss = require "bp.nn.loss",
  parameter = weights.parameter,
}
for _, family in ipairs{ activation, merge, conv_transpose, depthwise, pool1d, preprocess, resample, noise } do
  for name, class in pairs(family) do nn[name] = class end
end

-- Layers whose first input is a tensor, which a call makes sure of.
local takes_more = { sequential = true, model = true, lambda = true, text_vectorization = true }
for name in pairs(merge) do takes_more[name] = true end
for name, class in pairs(nn) do
  if type(class) == "table" and rawget(class, "builtin") and not takes_more[name] then class.takes_tensor = true end
end

-- What every module can do beyond running forward lives in files of its own.
local Module = module.Module
Module.summary, Module.describe = require "bp.nn.summary", require "bp.nn.describe"
Module.get_weights, Module.set_weights = weights.get, weights.set
Module.compile, Module.evaluate, Module.predict = model.compile, model.evaluate, model.predict
Module.fit, Module.check, Module.lr_find = require "bp.fit", require "bp.check", require "bp.lr_find"
Module.save = require("bp.serialize").save
Module.load_weights, Module.groups = require "bp.nn.load_weights", require "bp.nn.groups"
Module.lora, Module.merge_lora, Module.save_lora, Module.load_lora = lora.add, lora.merge, lora.save, lora.load
check_self(Module, "model", tree.is_module, { new = true, call = true, own_name = true })

names.strict("nn.loss", nn.loss)
names.strict("nn.init", nn.init)

return nn
