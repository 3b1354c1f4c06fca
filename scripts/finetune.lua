-- Learns five kinds of clothes from many pictures, then the other five from a few: starting from what the first five taught, with the
-- trained layers at a lower rate, or with low-rank adapters, against starting from nothing. --quick is a short form.
local bp = require "bp"
local nn, optim, data, callbacks = bp.nn, bp.optim, bp.data, bp.callbacks
bp.seed(17)

local quick = arg[1] == "--quick"
local FEW = 5                                        -- pictures of each new class
local train, test = assert(data.fashion_mnist())

-- The samples of five classes, their labels from 1; at most `most` of each, after the first `skip` of each.
local function part(set, from, most, skip)
  local positions, labels, counts = {}, {}, {}
  for i, label in ipairs(set.y:totable()) do
    local own = label - from + 1
    counts[own] = (counts[own] or 0) + 1
    if own >= 1 and own <= 5 and counts[own] > (skip or 0) and counts[own] <= (skip or 0) + (most or math.huge) then
      positions[#positions + 1], labels[#labels + 1] = i, own
    end
  end
  return data.tensors{ x = set.x[bp.tensor(positions, { dtype = "i64" })], y = bp.tensor(labels, { dtype = "i64" }) }
end

local function network()
  return nn.sequential{ input = { 28, 28, 1 },
    nn.rescaling(1/255),
    nn.conv2d{ 16, 3, activation = "relu" }, nn.max_pool2d(2),
    nn.conv2d{ 32, 3, activation = "relu" }, nn.max_pool2d(2),
    nn.flatten(), nn.dense{ 64, activation = "relu" }, nn.dropout(0.3), nn.dense(5) }
end

local function compile(model, optimizer)
  return model:compile{ optimizer = optimizer, loss = "sparse_categorical_crossentropy", metrics = { "accuracy" } }
end

local rest = part(test, 6, quick and 200 or nil)
local function learn(model, few)
  model:fit{ few, epochs = quick and 15 or 60, batch_size = 10, verbose = 0 }
  return model:evaluate(rest).accuracy
end

-- From many pictures of the first five.
local first = compile(network(), optim.adam{ lr = 1e-3 })
first:fit{ part(train, 1, quick and 400 or 4000), epochs = quick and 3 or 4, batch_size = 64, validation_split = 0.1,
  callbacks = { callbacks.early_stopping{ patience = 2 } } }
assert(first:save "first.safetensors")

-- The convolutions of the first five under new dense layers.
local function tuned()
  local model = network()
  local report = assert(model:load_weights{ "first.safetensors", strict = false, pattern = "conv*" })
  return compile(model, optim.adam(model:groups{ { "conv*", lr = 5e-4 } }, { lr = 1e-3 })), report
end
print(select(2, tuned()))

-- The whole model of the first five with a new head and adapters of rank 4 on the hidden layer: a fifteenth of the weights is trained.
local function adapted()
  local model = assert(bp.load "first.safetensors")
  model:replace("dense_2", nn.dense(5)):build_for{ 28, 28, 1 }
  model:lora{ rank = 4, pattern = "dense_1", train = "dense_2" }
  return compile(model, optim.adam{ lr = 2e-3 })
end

-- Few pictures are few: the mean over several draws of them tells more than one.
local draws, scratch, fine, low_rank, model = quick and 2 or 6, 0, 0, 0, nil
for draw = 1, draws do
  local few = part(train, 6, FEW, draw * 50)
  scratch = scratch + learn(compile(network(), optim.adam{ lr = 1e-3 }), few) / draws
  fine = fine + learn((tuned()), few) / draws
  model = adapted()
  low_rank = low_rank + learn(model, few) / draws
end
assert(model:save_lora "adapters.safetensors")
model:merge_lora()
assert(model:save "adapted.safetensors")
print(("mean accuracy over %d draws of %d pictures a class:"):format(draws, FEW))
print(("  from nothing          %.4f"):format(scratch))
print(("  from the first five   %.4f (%+.4f)"):format(fine, fine - scratch))
print(("  adapters, a new head  %.4f (%+.4f)"):format(low_rank, low_rank - scratch))
