-- Batch normalisation with what a plan fuses it with: the same bits as one after the other, and fused where it should be.
local bp = require "bp"
local core = require "bp.core"
local support = require "support.core"
local nn, optim, ops = bp.nn, bp.optim, bp.ops

describe("batch normalisation in a plan", function()
  local before = support.alive()
  after_each(function() assert.same(before, support.alive()) end)

  local Block = nn.module("NormBlock", function(self, channels, stride, later)
    self.a = nn.conv2d{ channels, 3, strides = stride, padding = "same", use_bias = false }
    self.b = nn.conv2d{ channels, 3, padding = "same", use_bias = false }
    self.norm_a, self.norm_b = nn.batch_norm(), nn.batch_norm()
    if stride > 1 then self.side, self.norm_side = nn.conv2d{ channels, 1, strides = stride }, nn.batch_norm() end
    rawset(self, "later", later)
  end)
  function Block:forward(x)
    local y = self.norm_b(self.b(self.norm_a(self.a(x)):relu()))
    if self.side then x = self.norm_side(self.side(x)) end
    return (self.later and y + x or x + y):relu()
  end

  local function net(channels, later)
    return nn.sequential{ nn.conv2d{ channels, 3, padding = "same" }, nn.batch_norm(), nn.activation "relu", nn.max_pool2d(2),
      Block(channels, 1, later), Block(channels + 3, 2, later), nn.dropout(0.1), Block(channels + 3, 1, later),
      nn.global_avg_pool2d(), nn.dense(3) }
  end

  -- A step of training and what a step changes.
  local function training(channels, later, x)
    bp.seed(3)
    local model = net(channels, later)
    model:train()
    bp.no_grad(function() model(x) end)
    bp.seed(5)
    local opt = optim.sgd(model:parameters(), { lr = 0.05, momentum = 0.9 })
    local function step(a, b)
      local loss = nn.loss.cross_entropy(model(a), b)
      opt:zero_grad()
      loss:backward()
      opt:step()
      return loss
    end
    return step, function()
      local all = {}
      for name, t in model:named_parameters() do all[name] = t:totable() end
      for name, t in model:named_buffers() do all[name] = t:totable() end
      return all
    end, model
  end

  local function names_of(captured) return " " .. table.concat(captured:plans()[1].names, " ") .. " " end

  for _, shape in ipairs{ { 5, 17, 15, 6 }, { 2, 9, 8, 16 }, { 1, 8, 8, 33 } } do
    it(("trains to the same bits with %d images %dx%d and %d channels"):format(table.unpack(shape)), function()
      local n, h, w, channels = table.unpack(shape)
      for _, later in ipairs{ false, true } do
        bp.seed(1)
        local x, y = bp.randn(n, h, w, 2), bp.randint(1, 3, { n })
        local eager, eager_state = training(channels, later, x)
        local expected = {}
        for i = 1, 3 do expected[i] = bp.scope(function() return eager(x, y):item() end) end
        local step, state = training(channels, later, x)
        local captured = bp.capture(step)
        for i = 1, 3 do assert.equal(expected[i], captured(x, y):item()) end
        assert.same(eager_state(), state())
        local names = names_of(captured)
        assert.is_nil(names:find(" relu ", 1, true))
        assert.equal(1, select(2, names:gsub(" batch_norm ", ""))) -- of two that are added to each other one is the addend
        assert.is_truthy(names:find(" batch_norm_fused ", 1, true))
        assert.is_truthy(names:find(" batch_norm_fused_grad ", 1, true))
      end
    end)
  end

  it("predicts to the same bits", function()
    local x = bp.randn(3, 9, 10, 2)
    local step, _, model = training(7, false, x)
    bp.scope(function() step(x, ops.cast(bp.ones(3), { dtype = "i64" })) end)
    model:eval()
    local function predict(v) return bp.no_grad(function() return model(v) end) end
    local captured = bp.capture(predict)
    local expected = predict(x):totable()
    for _ = 1, 2 do assert.same(expected, captured(x):totable()) end
    local names = names_of(captured)
    assert.is_truthy(names:find(" batch_norm_inference_fused ", 1, true))
    for _, gone in ipairs{ " relu ", " add " } do assert.is_nil(names:find(gone, 1, true)) end
  end)

  -- Each function is run three times both ways, on fresh running statistics.
  local function both_ways(make)
    local x = ops.random_normal { shape = { 40, 5 } }
    local function results(wrap)
      local mean, var = bp.zeros(5), bp.ones(5)
      local fn, all = wrap(make(mean, var)), {}
      for i = 1, 3 do
        all[i] = {}
        for k, t in ipairs{ fn(x) } do all[i][k] = t:totable() end
      end
      all.mean, all.var = mean:totable(), var:totable()
      return all, fn
    end
    local expected = results(function(fn) return fn end)
    local got, captured = results(core.capture)
    assert.same(expected, got)
    return names_of(captured)
  end

  it("is left alone where somebody else looks at what lies between", function()
    local function norm(x, mean, var) return (ops.batch_norm(x, nil, nil, mean, var)) end
    local fused = { "batch_norm_fused", true }
    for what, case in pairs{
      ["nobody"] = { fused, function(mean, var) return function(x) return norm(x, mean, var):relu() end end },
      ["handed out"] = { {}, function(mean, var)
        return function(x)
          local y = norm(x, mean, var)
          return y, y:relu()
        end
      end },
      ["read twice"] = { {}, function(mean, var)
        return function(x)
          local y = norm(x, mean, var)
          return y:relu() + y
        end
      end },
      ["relu in place"] = { {}, function(mean, var) return function(x) return norm(x, mean, var):relu_() end end },
      ["statistics read in between"] = { {}, function(mean, var)
        return function(x)
          local y = norm(x, mean, var)
          local m = mean * 2
          return y:relu(), m
        end
      end },
      ["input written in between"] = { {}, function(mean, var)
        return function(x)
          local copy = x * 2
          local y = norm(copy, mean, var)
          copy:add_(1)
          return y:relu(), copy
        end
      end },
      ["a broadcast addend"] = { {}, function(mean, var) return function(x) return norm(x, mean, var) + mean end end },
      ["the addend written in between"] = { fused, function(mean, var)
        return function(x)
          local other = x * 3
          local y = norm(x, mean, var) + other -- fused with the addition; relu has to wait
          other:add_(1)
          return y:relu(), other
        end
      end },
      ["twice the same"] = { {}, function(mean, var)
        return function(x)
          local y = norm(x, mean, var)
          return (y + y):relu()
        end
      end },
    } do
      local names = both_ways(case[2])
      assert.equal(case[1][2], names:find(" batch_norm_fused ", 1, true) ~= nil or nil, what)
    end
  end)

  it("gives gradients and gradients of gradients to the same bits", function()
    local scale = bp.randn(5):requires_grad_()
    for _, create_graph in ipairs{ false, true } do
      local names = both_ways(function(mean, var)
        return function(x)
          local y = (ops.batch_norm(x * scale, scale, nil, mean, var) + x * scale):relu()
          local g = core.gradients((y * x):sum(), { scale }, { create_graph = create_graph })[1]
          if create_graph then g = core.gradients(g:square():sum(), { scale })[1] end
          return g, y
        end
      end)
      assert.is_truthy(names:find(" batch_norm_fused ", 1, true))
      assert.equal(not create_graph, names:find(" batch_norm_fused_grad ", 1, true) ~= nil)
    end
  end)
end)
