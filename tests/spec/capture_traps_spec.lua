--- Programs where a captured function could give other results than the same function run eagerly.
local bp = require "bp"

describe("a captured function", function()
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
