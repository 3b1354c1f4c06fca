--- A convolutional net for Fashion-MNIST: bplua scripts/train_fashion.lua [--quick]
-- Trains on the 60,000 pictures of Debian's package dataset-fashion-mnist until the validation loss stops falling, then measures the 10,000
-- of the test set. Writes fashion.safetensors (the model), history.svg and history.csv. --quick takes 2,000 pictures and one epoch.
local bp = require "bp"
local nn, optim, data, callbacks = bp.nn, bp.optim, bp.data, bp.callbacks
local quick = arg[1] == "--quick"
bp.seed(42)

local train, test = assert(data.fashion_mnist())
if quick then train, test = train:subset(bp.arange(2000)), test:subset(bp.arange(1000)) end

local model = nn.sequential{
  nn.rescaling(1 / 255),
  nn.conv2d{32, 3, activation = "relu"},
  nn.max_pool2d(2),
  nn.conv2d{64, 3, activation = "relu"},
  nn.max_pool2d(2),
  nn.dropout(0.25),
  nn.flatten(),
  nn.dense{128, activation = "relu", l2 = 1e-4},
  nn.dropout(0.5),
  nn.dense(10),
}
print(model:summary{28, 28, 1})

model:compile{ optimizer = optim.adam{lr = 1e-3}, loss = "sparse_categorical_crossentropy", metrics = {"accuracy"} }
local history = model:fit{ train, validation_split = 0.1, epochs = quick and 1 or 16, batch_size = 128, callbacks = {
  callbacks.early_stopping{ monitor = "val_loss", patience = 3 } } }

local result = model:evaluate{test, batch_size = 500}
history:plot()
print("test: " .. tostring(result))

assert(model:save "fashion.safetensors")
assert(history:svg "history.svg")
assert(history:csv "history.csv")
print "wrote fashion.safetensors, history.svg and history.csv"

local scores = model:predict(test.x[{ {1, 5} }])
for i = 1, 5 do
  print(("picture %d: %s, the net says %s"):format(i, test.classes[test.y[i]:item()], test.classes[scores[i]:argmax(1):item()]))
end
