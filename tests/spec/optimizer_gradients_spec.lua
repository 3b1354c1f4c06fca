--- What an optimizer takes as gradient, and which parameters it moves: gradients set by hand, missing ones, frozen and thawed parameters.
local bp = require "bp"
local check = require "support.check"
local nn, optim = bp.nn, bp.optim

local function parameter(...) return bp.tensor({ ... }, { requires_grad = true }) end

describe("an optimizer's step", function()
  it("follows a gradient that was set by hand", function()
    local w = parameter(0, 0)
    local sgd = optim.sgd({ w }, { lr = 1 })
    w:sum():backward()
    w.grad = w.grad * 10
    sgd:step()
    assert.same({ -10, -10 }, w:totable())
    w.grad = bp.tensor{ 1, 2 }
    sgd:step()
    assert.same({ -11, -12 }, w:totable())
    w.grad = nil
    w:sum():backward()
    sgd:step()
    assert.same({ -12, -13 }, w:totable())
  end)

  it("follows a gradient that was set by hand in a captured step", function()
    local w = parameter(0, 0)
    local sgd = optim.sgd({ w }, { lr = 1 })
    local step = bp.capture(function(x)
      sgd:zero_grad();
      (w * x):sum():backward()
      w.grad = w.grad * 2
      sgd:step()
    end)
    for i = 1, 3 do step(bp.tensor{ i, 10 * i }) end
    assert.same({ -12, -120 }, w:totable())
  end)

  it("adds to a gradient that was changed in place", function()
    local w = parameter(0, 0)
    local sgd = optim.sgd({ w }, { lr = 1 })
    sgd:zero_grad()
    w.grad:add_(5)
    w:sum():backward()
    sgd:step()
    assert.same({ -6, -6 }, w:totable())
  end)

  it("takes a parameter that no backward reached as having gradient zero, and no other", function()
    local list, sizes = {}, { 5, 20, 5, 3 }
    for i, n in ipairs(sizes) do list[i] = bp.zeros{ n, requires_grad = true } end
    local sgd = optim.sgd(list, { lr = 1 })
    for round = 1, 2 do
      for missing = 1, 4 do
        sgd:zero_grad()
        local loss = 0
        for i, w in ipairs(list) do
          w:detach():fill_(0)
          if i ~= missing then loss = w:sum() + loss end
        end
        loss:backward()
        sgd:step()
        for i, w in ipairs(list) do
          assert.equal(i == missing and 0 or -sizes[i], w:sum():item(), ("round %d, %d of %d"):format(round, i, missing))
        end
      end
    end
  end)

  it("without any backward is refused", function()
    local w = parameter(1)
    local adam = optim.adam({ w })
    check.fails("no parameter has a gradient; call loss:backward() before step()", function() adam:step() end)
    w:sum():backward()
    adam:step()
    adam:zero_grad()
    check.fails("no parameter has a gradient", function() adam:step() end)
    assert.equal(1, adam:steps())
  end)

  it("keeps gradients that were gathered before another optimizer took the parameters over", function()
    local w, other = parameter(0), parameter(0)
    local first = optim.sgd({ w }, { lr = 1 })
    local step = bp.capture(function(x)
      first:zero_grad();
      (w * x):sum():backward()
      first:step()
    end)
    step(bp.tensor{ 3 })
    local second = optim.sgd({ w, other }, { lr = 10 })
    second:step()
    assert.same({ -33 }, w:totable())
    check.fails("taken over", function()
      w:sum():backward()
      first:step()
    end)
  end)
end)

describe("a frozen parameter", function()
  for _, captured in ipairs{ true, false } do
    local how = captured and "captured" or "eager"

    it("stays where it is, whatever momentum it has, and moves again when thawed: " .. how, function()
      bp.seed(1)
      local net = nn.sequential{ input = { 3 }, nn.dense(4), nn.dense(3), nn.dense(1) }
      local x, y = bp.randn(16, 3), bp.randn(16, 1)
      net:compile{ optimizer = optim.adam{ lr = 0.1, clip_norm = 1, weight_decay = 0.01 }, loss = "mse" }
      local function fit() net:fit{ x, y, epochs = 2, batch_size = 8, verbose = 0, capture = captured } end
      local function moved(fn)
        local before, which = net:get_weights(), {}
        fn()
        for name, after in pairs(net:get_weights()) do which[name] = not check.equal(before[name], after) end
        return which
      end
      local all = { ["dense_1.kernel"] = true, ["dense_1.bias"] = true, ["dense_2.kernel"] = true, ["dense_2.bias"] = true,
        ["dense_3.kernel"] = true, ["dense_3.bias"] = true }
      assert.same(all, moved(fit))
      for _, layer in ipairs{ 1, 2, 3 } do
        net:freeze("dense_" .. layer)
        local expected = {}
        for name in pairs(all) do expected[name] = not name:find("dense_" .. layer, 1, true) end
        assert.same(expected, moved(fit))
        net:unfreeze()
        assert.same(all, moved(fit))
      end
    end)

    it("that was frozen from the start joins when it is thawed: " .. how, function()
      bp.seed(2)
      local net = nn.sequential{ input = { 3 }, nn.dense(4), nn.dense(1) }
      net:freeze("dense_1")
      local x, y = bp.randn(16, 3), bp.randn(16, 1)
      net:compile{ optimizer = "adam", loss = "mse" }
      local function fit() net:fit{ x, y, verbose = 0, capture = captured } end
      local kernel = net:layer(1).kernel:clone()
      fit()
      assert.is_true(check.equal(kernel, net:layer(1).kernel))
      net:unfreeze()
      fit()
      assert.is_false(check.equal(kernel, net:layer(1).kernel))
    end)
  end

  it("counts for nothing in the norm that clip_norm looks at", function()
    local a, b = parameter(0), parameter(0)
    local sgd = optim.sgd({ a, b }, { lr = 1, clip_norm = 1 });
    (a * 3 + b * 4):sum():backward()
    sgd:step()
    b:requires_grad_(false)
    a:detach():fill_(0)
    sgd:zero_grad();
    (a * 0.5 + b * 4):sum():backward()
    sgd:step()
    check.near(a, bp.tensor{ -0.5 }, 1e-6)
  end)
end)
