-- As mlp.lua: a CNN with batch-norm, its running statistics, SGD with momentum along a schedule, class weights.
local common = dofile((arg[0]:match "^(.*/)" or "./") .. "common.lua")
local bp = require "bp"
local nn, optim = bp.nn, bp.optim

bp.seed(12)
local x, y = common.images(160, 10)
local model = nn.sequential{
  nn.conv2d{6, 3, activation = "relu"}, nn.batch_norm(), nn.max_pool2d(2), nn.conv2d{8, 3, use_bias = false}, nn.batch_norm(),
  nn.flatten(), nn.dropout(0.25), nn.dense{4, l2 = 1e-3} }
model:compile{ optimizer = optim.sgd{ lr = optim.schedule.cosine{ 0.05, steps = 80, warmup = 9 }, momentum = 0.9 },
  loss = "sparse_categorical_crossentropy", metrics = { "accuracy" } }
common.train(model, {}, { x, y, epochs = 10, batch_size = 16, validation_split = 0.2, class_weight = { 1, 2, 1, 0.5 }, callbacks = {} })
