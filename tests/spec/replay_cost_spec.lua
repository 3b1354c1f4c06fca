-- A replayed step asks the allocator for nothing, whatever it is made of.
local bp = require "bp"
local core = require "bp.core"
local support = require "support.core"

local nn, optim = bp.nn, bp.optim

describe("a replayed step", function()
  local before = support.alive()
  after_each(function() assert.same(before, support.alive()) end)

  -- Allocator calls of n replays; the results are let go of, as in a loop that reads the loss.
  local function calls(step, n)
    local start = core.memory().calls
    for _ = 1, n do step():free() end
    return core.memory().calls - start
  end

  local function training(net, optimizer, loss_of, x, y)
    net:train()
    bp.no_grad(function() net(x) end)
    local opt = optimizer(net:parameters())
    local captured = bp.capture(function(a, b)
      local loss = loss_of(net(a), b)
      opt:zero_grad()
      loss:backward()
      opt:step()
      return loss
    end)
    return function() return captured(x, y) end
  end

  local cases = {
    ["of dense layers with dropout and Adam"] = function()
      local net = nn.sequential{ nn.dense{ 40, activation = "relu" }, nn.dropout(0.2), nn.dense(3) }
      return training(net, function(p) return optim.adam(p, { lr = 1e-3 }) end, nn.loss.cross_entropy, bp.rand(17, 9),
        bp.randint(1, 3, { 17 }))
    end,
    ["of convolution, batch normalisation and pooling with momentum"] = function()
      local net = nn.sequential{ nn.conv2d{ 6, 3, padding = "same", use_bias = false }, nn.batch_norm(), nn.activation "relu",
        nn.max_pool2d(2), nn.conv2d{ 8, 5, activation = "relu" }, nn.flatten(), nn.dense(2) }
      return training(net, function(p) return optim.sgd(p, { lr = 1e-2, momentum = 0.9 }) end, nn.loss.cross_entropy,
        bp.rand(5, 13, 13, 2), bp.randint(1, 2, { 5 }))
    end,
    ["of inference"] = function()
      local net, x = nn.sequential{ nn.conv2d{ 4, 3, activation = "relu" }, nn.global_avg_pool2d(), nn.dense(2) }, bp.rand(1, 9, 9, 3)
      net(x)
      net:eval()
      local captured = bp.capture(function(v) return bp.no_grad(function() return net(v) end) end)
      return function() return captured(x) end
    end,
    ["that gathers its batch and clips its gradients"] = function()
      local all, labels, net = bp.rand(50, 6), bp.randint(1, 4, { 50 }), nn.sequential{ nn.dense{ 16, activation = "tanh" }, nn.dense(4) }
      bp.no_grad(function() net(all) end)
      local opt, rows = optim.adamw(net:parameters(), { lr = 1e-3 }), bp.randint(1, 50, { 8 })
      local captured = bp.capture(function(r)
        local loss = nn.loss.cross_entropy(net(bp.ops.take(all, r)), bp.ops.take(labels, r))
        opt:zero_grad()
        loss:backward()
        bp.clip_grad_norm(net:parameters(), 1)
        opt:step()
        return loss
      end)
      return function() return captured(rows) end
    end,
  }
  for name, make in pairs(cases) do
    it(name .. " allocates nothing", function()
      bp.scope(function()
        local step = make()
        calls(step, 3)
        assert.equal(0, calls(step, 20))
      end)
      collectgarbage()
      collectgarbage()
    end)
  end
end)
