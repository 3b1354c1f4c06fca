-- As mlp.lua: an LSTM over sequences, RMSprop, dropout between.
local common = dofile((arg[0]:match "^(.*/)" or "./") .. "common.lua")
local bp = require "bp"
local nn, optim = bp.nn, bp.optim

bp.seed(13)
local images, y = common.images(200, 9)
local model = nn.sequential{ nn.reshape{ 9, 9 }, nn.lstm(12), nn.dropout(0.2), nn.dense(4) }
model:compile{ optimizer = optim.rmsprop{ lr = 5e-3 }, loss = "sparse_categorical_crossentropy", metrics = { "accuracy" } }
common.train(model, {}, { images, y, epochs = 25, batch_size = 20, validation_split = 0.2, callbacks = {} })
