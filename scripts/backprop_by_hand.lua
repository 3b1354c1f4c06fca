--- Backpropagation written out, without autograd: bplua scripts/backprop_by_hand.lua
-- A net 2-8-1 learns XOR by its own four steps: forward, loss, delta by delta backwards, update. Every gradient is compared with
-- autograd's.
local bp = require "bp"
bp.seed(3)

local x = bp.tensor{ {0, 0}, {0, 1}, {1, 0}, {1, 1} }
local t = bp.tensor{ {0}, {1}, {1}, {0} }
local lr = 2.0
local w1, b1 = bp.randn(2, 8), bp.zeros(8)
local w2, b2 = bp.randn(8, 1), bp.zeros(1)

-- The same net for autograd, on copies of the weights.
local function loss_of(p)
  local hidden = (x:matmul(p.w1) + p.b1):tanh()
  local y = (hidden:matmul(p.w2) + p.b2):sigmoid()
  return (y - t):square():mean()
end

local worst = 0
local function compare(name, mine, theirs)
  local difference = (mine - theirs):abs():max():item()
  worst = math.max(worst, difference)
  if difference > 1e-6 then error(("gradient of %s: by hand and by autograd differ by %g"):format(name, difference)) end
end

for step = 1, 2000 do
  -- 1. Forward: z = x w + b, then the activation.
  local hidden = (x:matmul(w1) + b1):tanh()                    -- [4][8]
  local y = (hidden:matmul(w2) + b2):sigmoid()                 -- [4][1]

  -- 2. Loss: the mean of (y - t)^2.
  local loss = (y - t):square():mean():item()

  -- 3. Backwards. delta is d loss / d z of a layer; sigmoid' = y (1 - y), tanh' = 1 - h^2.
  local delta2 = (y - t) * (2 / t:numel()) * y * (1 - y)       -- [4][1]
  local dw2, db2 = hidden:t():matmul(delta2), delta2:sum(1)
  local delta1 = delta2:matmul(w2:t()) * (1 - hidden:square()) -- [4][8]
  local dw1, db1 = x:t():matmul(delta1), delta1:sum(1)

  if step == 1 or step % 500 == 0 then
    local gradients, value = bp.grad(loss_of){ w1 = w1, b1 = b1, w2 = w2, b2 = b2 }
    compare("w2", dw2, gradients.w2)
    compare("b2", db2, gradients.b2)
    compare("w1", dw1, gradients.w1)
    compare("b1", db1, gradients.b1)
    print(("step %4d  loss %.6f  autograd's %.6f  |delta2| %.4f  |delta1| %.4f  largest difference %.1e"):format(
      step, loss, value:item(), delta2:abs():max():item(), delta1:abs():max():item(), worst))
  end

  -- 4. Update.
  w1, b1 = w1 - dw1 * lr, b1 - db1 * lr
  w2, b2 = w2 - dw2 * lr, b2 - db2 * lr
end

local y = ((x:matmul(w1) + b1):tanh():matmul(w2) + b2):sigmoid()
for i = 1, 4 do
  print(("%d xor %d = %d, the net says %.3f"):format(x[{i, 1}]:item(), x[{i, 2}]:item(), t[{i, 1}]:item(), y[{i, 1}]:item()))
end
