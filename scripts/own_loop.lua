--- A net and a training loop of one's own: bplua scripts/own_loop.lua [--quick]
-- The step is captured: it is recorded once and then replayed without Lua, as fast as model:fit.
local bp = require "bp"
local nn, optim, data = bp.nn, bp.optim, bp.data
local quick = arg[1] == "--quick"
bp.seed(7)

local Net = nn.module("Net", function(self, o)
  self.scale = nn.rescaling(1 / 255)
  self.first = nn.dense{o.units, activation = "relu"}
  self.second = nn.dense{o.units, activation = "relu"}
  self.out = nn.dense(o.classes)
end)

function Net:forward(x)
  local h = self.first(self.scale(x):reshape(x:size(1), -1))
  return self.out(h + self.second(h)) -- a shortcut around the second layer
end

local train, test = assert(data.fashion_mnist())
if quick then train, test = train:subset(bp.arange(2000)), test:subset(bp.arange(1000)) end

local net = Net{ units = 128, classes = 10 }
net:build_for{28, 28, 1}
local epochs, batch_size = quick and 2 or 5, 64
local steps = epochs * ((#train + batch_size - 1) // batch_size)
local opt = optim.adamw(net:parameters(), { lr = optim.schedule.cosine{ 2e-3, steps = steps, warmup = steps // 20 } })

local step = bp.capture(function(x, y)
  local loss = nn.loss.cross_entropy(net(x), y)
  opt:zero_grad()
  loss:backward()
  bp.clip_grad_norm(net:parameters(), 1.0)
  opt:step()
  return loss
end)

local function accuracy(set)
  net:eval()
  local right = bp.no_grad(function()
    local count = 0
    for batch in set:batches{ 500 } do count = count + net(batch.x):argmax(-1):eq(batch.y):sum():item() end
    return count
  end)
  net:train()
  return right / #set
end

for epoch = 1, epochs do
  local sum, count = 0, 0
  for batch in train:batches{ batch_size, shuffle = true } do
    local n = batch.x:size(1)
    sum, count = sum + step(batch.x, batch.y):item() * n, count + n
  end
  print(("epoch %d: loss %.4f, test accuracy %.4f, learning rate %.2e"):format(epoch, sum / count, accuracy(test), opt:get_lr()))
end
