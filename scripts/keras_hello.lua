--- Keras' hello world, line by line: bplua scripts/keras_hello.lua
-- Ten inputs, a hidden layer of 32, one output; the target is a sum with a little noise. Asking for accuracy on a regression is answered
-- with a warning.
local bp = require "bp"
local nn, optim = bp.nn, bp.optim
bp.seed(1)

local x = bp.randn(1000, 10)                          -- x = np.random.randn(1000, 10)
local y = x:sum(2):reshape(-1, 1) + bp.randn(1000, 1) * 0.1

local model = nn.sequential{                          -- model = keras.Sequential([
  input = {10},                                       --   keras.Input((10,)),
  nn.dense{32, activation = "relu"},                  --   layers.Dense(32, activation="relu"),
  nn.dense(1),                                        --   layers.Dense(1)])
}
print(model:summary())                                -- model.summary()

model:compile{                                        -- model.compile(
  optimizer = optim.adam{lr = 0.01},                  --   optimizer=optimizers.Adam(learning_rate=0.01),
  loss = "mse",                                       --   loss="mse",
  metrics = {"mae", "accuracy"},                      --   metrics=["mae", "accuracy"])
}
model:fit{x, y, batch_size = 32, epochs = 10}         -- model.fit(x, y, batch_size=32, epochs=10)
print(model:evaluate{x, y})                           -- model.evaluate(x, y)
print(model:predict(x[{ {1, 3} }]))                   -- model.predict(x[:3])
