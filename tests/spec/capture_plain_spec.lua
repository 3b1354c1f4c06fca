--- Calls whose arguments are tensors and nothing else find their plan without a key being made. They must find what the key would.
local bp = require "bp"
local core = require "bp.core"

-- The same function twice: on the tensors themselves, and on a table of them, which goes by the key.
local function both(fn)
  local packed = bp.capture(function(t) return fn(table.unpack(t, 1, 2)) end)
  return bp.capture(fn), function(a, b) return packed{ a, b } end
end

-- What a call gives, or its message; false: an error whose text depends on how it was called.
local function outcome(fn, ...)
  local ok, result = pcall(fn, ...)
  return ok and result
end

local function same(a, b)
  if not (a and b) then return a == b end
  return a.dtype == b.dtype and bp.ops.eq(a, b):all():item()
end

local function message(fn, ...)
  local ok, text = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(text):gsub("^[^:]+:%d+: ", "")
end

describe("plain arguments of a captured function", function()
  it("find the plan that their looks, the modes and the generation say", function()
    bp.seed(3)
    math.randomseed(3)
    local given = 0
    local plain, keyed = both(function(a, b) return a * 2 + b end)
    local shapes = { { 3 }, { 1, 3 }, { 2, 3 }, { 0, 3 } }
    for round = 1, 400 do
      local function make()
        local t = bp.randn(table.unpack(shapes[math.random(#shapes)]))
        local way = math.random(8)
        if way == 1 then return bp.ops.cast(t, { dtype = "f64" }) end
        if way == 2 then return bp.randn(2, 5)[{ { 1, 2 }, { 2, 4 } }] end
        if way == 3 then return bp.randn(3, 2):transpose(1, 2) end
        return t
      end
      local a, b = make(), make()
      if math.random(10) == 1 then b = a end
      local train = math.random(3) == 1
      local function call(fn)
        if train then return outcome(fn, a, b) end
        return bp.no_grad(outcome, fn, a, b)
      end
      if math.random(20) == 1 then core.renew_captures() end
      local one, two = call(plain), call(keyed)
      given = given + (one and 1 or 0)
      assert(same(one, two), ("round %d: %s and %s"):format(round, tostring(one), tostring(two)))
    end
    assert.is_true(given > 50)
  end)

  it("meet what a table, a number, nil or nothing would be", function()
    local seen = 0
    local step = bp.capture(function(a, b)
      seen = seen + 1
      return core.is_tensor(b) and a + b or a + 1
    end)
    local x, y = bp.ones(3), bp.ones(3)
    assert.equal(6, step(x, y):sum():item())
    assert.equal(6, step(x, y):sum():item())
    assert.equal(1, seen)
    assert.equal(6, step(x):sum():item())
    assert.equal(6, step(x, nil):sum():item())
    assert.equal(6, step(x, 5):sum():item())
    assert.equal(6, step(x, y):sum():item())
    assert.equal(4, seen)
  end)

  it("have no gaps where they have no elements, whatever their strides", function()
    local step = bp.capture(function(a) return a * 2 end)
    local stepped = bp.zeros(0, 6)[{ {}, { 1, 6, 2 } }]
    assert.is_true(core.replayable(stepped))
    for _, x in ipairs{ bp.zeros(0, 3), stepped, bp.zeros(0, 3), bp.zeros(3, 0):t() } do assert.same({ 0, 3 }, step(x):shape()) end
    assert.equal(1, #step:plans())
    local backwards = bp.capture(function(a) return a * 2 end)
    for _, x in ipairs{ stepped, bp.zeros(0, 3) } do assert.same({ 0, 3 }, backwards(x):shape()) end
  end)

  it("say what is wrong with them as they did before", function()
    local step = bp.capture(function(a) return a + 1 end)
    local x, out = bp.ones(3), bp.zeros(3)
    step(x)
    step:into(out, x)
    local gone = bp.ones(3)
    gone:free()
    assert.error_matches(function() step(gone) end, "a tensor among the arguments was freed")
    assert.error_matches(function() step:into(out, gone) end, "a tensor among the arguments was freed")
    assert.error_matches(function() step:into(gone, x) end, "out was freed")
    assert.error_matches(function() step:into(bp.zeros(4), x) end, "out is .*; the result there is f32 %[3%]")
    assert.error_matches(function() step:into(bp.zeros(3):requires_grad_(true), x) end, "requires a gradient")
    local trained = bp.ones(3):requires_grad_(true)
    local fresh = bp.capture(function(a) return a + 1 end)
    assert.equal(message(fresh, trained), message(step, trained))
    assert.equal(2, step(x)[1]:item())
  end)

  it("may be changed by what runs before the call", function()
    local x, y, z = bp.ones(3), bp.ones(3) * 5, bp.zeros(3)
    local step = bp.capture(function(a) return a * 2 end)
    step(x)
    local hook
    step:before(function() if hook then hook() end end)
    hook = function() x:copy_(y) end
    step:into(z, x)
    assert.equal(10, z[1]:item())
    hook = function() x:free() end
    assert.error_matches(function() step(x) end, "was freed")
    hook = function() core.renew_captures() end
    assert.equal(10, step(y)[1]:item())
  end)

  it("follow parameters that are replaced", function()
    local nn = bp.nn
    local net = nn.sequential{ nn.dense(2) }
    local x, out = bp.ones(1, 3), bp.zeros(1, 2)
    net(x)
    local step = bp.capture(function(v) return bp.no_grad(function() return net(v) end) end)
    for _ = 1, 3 do
      step:into(out, x)
      assert.is_true(same(net(x):detach(), out))
      for _, p in ipairs(net:parameters()) do bp.no_grad(function() p:copy_(bp.randn(table.unpack(p:shape()))) end) end
    end
  end)
end)
