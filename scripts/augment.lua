--- Augmentation, looked at and trained with: bplua scripts/augment.lua [--quick]
-- Writes augment.png: the first row has pictures as they are, each further row the same pictures with new draws.
local bp = require "bp"
local nn, optim, data, augment = bp.nn, bp.optim, bp.data, bp.augment
local quick = arg[1] == "--quick"
bp.seed(11)

local train, test = assert(data.fashion_mnist())
local aug = augment.compose{ seed = 3, fill = "constant",
  augment.flip{ horizontal = true },
  augment.rotate{ degrees = 10 },
  augment.scale{ {0.9, 1.1} },
  augment.translate{ x = 0.08, y = 0.08 },
  augment.brightness(0.1), augment.contrast(0.2), augment.noise(0.02),
}

local pictures = train.x[{ {1, 12} }]
local rows = { pictures }
for _ = 1, 5 do rows[#rows + 1] = (aug(pictures)) end
assert(augment.sheet("augment.png", bp.concat(rows), { columns = 12 }))
print "wrote augment.png"

train = train:subset(bp.arange(quick and 1000 or 20000))
test = test:subset(bp.arange(quick and 500 or 10000))
for _, transform in ipairs{ false, aug } do
  bp.seed(11)
  local model = nn.sequential{
    nn.rescaling(1 / 255),
    nn.conv2d{16, 3, strides = 2, activation = "relu"}, nn.conv2d{32, 3, strides = 2, activation = "relu"},
    nn.flatten(), nn.dense{64, activation = "relu"}, nn.dense(10),
  }
  model:compile{ optimizer = optim.adam{lr = 2e-3}, loss = "sparse_categorical_crossentropy", metrics = {"accuracy"} }
  print(transform and "with augmentation" or "without augmentation")
  model:fit{ train, validation = test, epochs = quick and 1 or 8, batch_size = 64, transform = transform or nil }
end
