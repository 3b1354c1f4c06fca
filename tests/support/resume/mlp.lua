-- Trained, killed and started again by tests: an MLP with Adam, dropout and augmentation with draws of its own, a schedule that the plateau
-- cannot follow being left to the next one.
local common = dofile((arg[0]:match "^(.*/)" or "./") .. "common.lua")
local bp = require "bp"
local nn, optim, callbacks, augment = bp.nn, bp.optim, bp.callbacks, bp.augment

bp.seed(11)
local x, y = common.images(320, 8)
local model = nn.sequential{
  nn.flatten(), nn.dense{24, activation = "relu"}, nn.dropout(0.3), nn.dense{16, activation = "tanh"}, nn.dropout(0.2), nn.dense(4) }
model:compile{ optimizer = optim.adam{ lr = 3e-3, clip_norm = 1 }, loss = "sparse_categorical_crossentropy", metrics = { "accuracy" } }
local aug = augment.compose{ seed = 5, augment.rotate{ degrees = 10 }, augment.translate{ x = 0.1 }, augment.noise(0.05) }
local own = { batches = 0, note = "" }
function own:on_batch_end(_, _, _) self.batches = self.batches + 1 end
function own:on_epoch_end(epoch, logs) self.note = self.note .. ("%d:%.17g "):format(epoch, logs.loss) end

common.train(model, own, { x, y, epochs = 14, batch_size = 24, validation_split = 0.2, transform = function(a, b) return aug(a), b end,
  callbacks = { own, callbacks.early_stopping{ patience = 12 }, callbacks.reduce_lr_on_plateau{ monitor = "loss", patience = 1,
    min_delta = 0.05, factor = 0.7 } } })
