--- Programs where a captured function could give other results than the same function run eagerly.
local bp = require "bp"

describe("a captured function", function()
  it("does not take another tensor for a result that a finalizer frees while the call ends", function()
    local result, other, big
    local step = bp.capture(function(x)
      result = x + 1
      setmetatable({}, { __gc = function()
        result:free()
        other = bp.full({ 2 }, -1)
      end })
      big = bp.full({ 64 << 18 }, 0) -- so much that the next tensor made collects garbage first: the one for the result
      return result
    end)
    local ok, err = pcall(step, bp.ones(2))
    big:free()
    assert.is_false(ok)
    assert.matches("was freed", err)
    assert.same({ -1, -1 }, other:totable())
  end)

  it("copies a constant into memory from outside at every call", function()
    local outside = bp.zeros(4)
    local step = bp.capture(function()
      outside:copy_(bp.ones(4))
      outside:add_(1)
    end)
    for _ = 1, 3 do
      step()
      assert.same({ 2, 2, 2, 2 }, outside:totable())
    end
  end)

  it("tells an argument from its own use of the same tensor", function()
    local own = bp.ones(3)
    local add = bp.capture(function(x) return x + own end)
    assert.same({ 2, 2, 2 }, add(own):totable())
    assert.same({ 11, 11, 11 }, add(bp.full({ 3 }, 10)):totable())
    assert.same({ 2, 2, 2 }, add(own):totable())
  end)

  it("writes into its argument in place, at the first call as well", function()
    local count = bp.capture(function(x)
      x:add_(1)
      return x:sum()
    end)
    local x = bp.zeros(2)
    for i = 1, 3 do
      assert.equal(2 * i, count(x):item())
      assert.same({ i, i }, x:totable())
    end
  end)

  it("keeps a pooled result that is copied outside while its mask moves", function()
    bp.seed(5)
    local w = bp.randn(1, 4, 4, 1):requires_grad_()
    local outside, seed = bp.zeros(1, 2, 2, 1), bp.ones(1, 2, 2, 1)
    local function body()
      local pooled = bp.ops.max_pool2d(w:relu(), 2)
      outside:copy_(pooled:detach())
      w:zero_grad()
      pooled:backward{ grad = seed }
    end
    body()
    local gradient, copied = w.grad:clone(), outside:clone()
    local step = bp.capture(body)
    for _ = 1, 3 do
      outside:fill_(0)
      step()
      assert.is_true(w.grad:eq(gradient):all():item())
      assert.is_true(outside:eq(copied):all():item())
    end
  end)

  it("refuses a gradient with a history in .grad", function()
    local w = bp.ones(2):requires_grad_()
    local step = bp.capture(function() w:square():sum():backward{ create_graph = true } end)
    assert.error_matches(function() step() end, "create_graph inside a captured function")
  end)
end)

describe("create_graph", function()
  it("gathers into gradients of one's own", function()
    local x, y, seed = bp.zeros(2):requires_grad_(), bp.zeros(2):requires_grad_(), bp.ones(2)
    for _ = 1, 2 do (x + y):backward{ grad = seed, create_graph = true } end
    assert.same({ 2, 2 }, x.grad:totable())
    assert.same({ 2, 2 }, y.grad:totable())
    assert.same({ 1, 1 }, seed:totable())
    x:zero_grad()
    y:zero_grad();
    (x + y):sum():backward()
    assert.same({ 1, 1 }, x.grad:totable())
  end)

  it("keeps the history of a sum of gradients", function()
    local x = bp.tensor{ 2, 3 }:requires_grad_()
    for _ = 1, 2 do (x * x * x):sum():backward{ create_graph = true } end -- 2 * 3x^2
    local second = require("bp.core").gradients(x.grad:sum(), x)
    assert.same({ 24, 36 }, second:totable()) -- 12x
  end)
end)

describe("a captured function that also uses its arguments from outside", function()
  local w = bp.tensor{ 1, 2, 3 }
  local function fresh() return bp.tensor{ 10, 20, 30 } end

  it("tells them apart, alone", function()
    local f = bp.capture(function(x) return x + w * 100 end)
    f(w)
    assert.same({ 110, 220, 330 }, f(fresh()):totable())
  end)

  it("tells them apart, in tables", function()
    for _, wrap in ipairs{ function(t) return { t } end, function(t) return { x = t } end, function(t) return { a = { { b = t } } } end } do
      local get = function(t)
        while type(t) == "table" do t = select(2, next(t)) end
        return t
      end
      local f = bp.capture(function(t) return get(t) + w * 100 end)
      f(wrap(w))
      assert.same({ 110, 220, 330 }, f(wrap(fresh())):totable())
      assert.same({ 101, 202, 303 }, f(wrap(w)):totable())
    end
  end)

  it("tells the same tensor given twice apart", function()
    local f = bp.capture(function(a, t) return a * 1000 + t.x * 100 + t[1] * 10 + w end)
    f(w, { w, x = w })
    assert.same({ 5131, 5132, 5133 }, f(bp.full({ 3 }, 5), { bp.full({ 3 }, 3), x = bp.full({ 3 }, 1) }):totable())
    local g = bp.capture(function(a, b)
      a:add_(1)
      return a + b
    end)
    for _ = 1, 3 do
      local same = bp.zeros(2)
      assert.same({ 2, 2 }, g(same, same):totable())
      assert.same({ 1, 1 }, same:totable())
    end
  end)

  it("leaves the caller's table alone", function()
    local given = { x = w, note = "n", [1] = fresh() }
    local f = bp.capture(function(t)
      assert.equal("n", t.note)
      return t.x + t[1]
    end)
    f(given)
    assert.is_true(given.x == w)
    assert.same({ 11, 22, 33 }, f(given):totable())
  end)
end)

describe("gradients of a captured step", function()
  -- Losses of six steps, the function `captured` or not.
  local function losses(captured, step)
    bp.seed(1)
    local net = bp.nn.dense(2):build_for{ 3 }
    local optimizer = bp.optim.sgd(net:parameters(), { lr = 0.1 })
    local function loss_of(x) return net(x):square():mean() end
    local fn = step(optimizer, loss_of, captured and bp.capture or function(f) return f end)
    local list = {}
    for i = 1, 6 do list[i] = fn(bp.randn(4, 3)):item() end
    return list, net.kernel.grad:totable()
  end
  local function same(step)
    local eager, last = losses(false, step)
    local captured, last_captured = losses(true, step)
    assert.same(eager, captured)
    assert.same(last, last_captured)
  end

  it("are zero again after a zero_grad at its end", function()
    same(function(optimizer, loss_of, capture)
      return capture(function(x)
        local loss = loss_of(x)
        loss:backward()
        optimizer:step()
        optimizer:zero_grad()
        return loss
      end)
    end)
  end)

  it("reach an optimizer outside of it, and add up with others", function()
    for _, more in ipairs{ false, true } do
      same(function(optimizer, loss_of, capture)
        local function back(x)
          local loss = loss_of(x)
          loss:backward()
          return loss
        end
        local step = capture(back)
        return function(x)
          optimizer:zero_grad()
          local loss = step(x)
          if more then back(x + 1) end
          optimizer:step()
          return loss
        end
      end)
    end
  end)
end)
