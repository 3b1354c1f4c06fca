--- Looking for good settings of a small net: bplua scripts/search_fashion.lua [--quick]
-- First at random over learning rate, units, dropout and activation, then on a grid around the best. Writes trials.csv and grid.csv.
local bp = require "bp"
local nn, optim, data, search = bp.nn, bp.optim, bp.data, bp.search
local quick = arg[1] == "--quick"

bp.seed(1)
local all = assert(data.fashion_mnist())
local train, validation = all:subset(bp.arange(quick and 1500 or 12000)):split{ 0.8, 0.2, shuffle = true, stratify = true }

local function objective(p)
  local model = nn.sequential{
    nn.rescaling(1 / 255), nn.flatten(),
    nn.dense{p.units, activation = p.activation}, nn.dropout(p.dropout),
    nn.dense(10),
  }
  model:compile{ optimizer = optim.adam{lr = p.lr}, loss = "sparse_categorical_crossentropy", metrics = {"accuracy"} }
  local history = model:fit{ train, validation = validation, epochs = quick and 1 or 4, batch_size = 64, verbose = 0 }
  return { val_accuracy = history:best "val_accuracy", val_loss = history:best "val_loss" }
end

local random = search.study{ "random", direction = "maximize", metric = "val_accuracy", sampler = search.random{ seed = 5 } }
random:optimize{ trials = quick and 4 or 16, objective = objective, space = {
  lr = search.float{ 1e-4, 1e-1, log = true },
  units = search.int{ 32, 256, step = 32 },
  dropout = search.float{ 0, 0.5 },
  activation = search.choice{ "relu", "tanh", "gelu" },
} }
print(random)

local best = random.best.params
local grid = search.study{ "grid", direction = "maximize", metric = "val_accuracy", sampler = search.grid() }
grid:optimize{ objective = objective, space = {
  lr = search.float{ best.lr / 2, best.lr * 2, log = true, points = quick and 2 or 3 },
  units = search.choice(quick and { best.units } or { best.units, best.units * 2 }),
  dropout = search.choice{ best.dropout },
  activation = search.choice{ best.activation },
} }
print(grid)

assert(random:csv "trials.csv")
assert(grid:csv "grid.csv")
print "wrote trials.csv and grid.csv"
