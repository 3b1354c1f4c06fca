local core = require "bp.core"
local support = require "support.core"
local failure = support.failure

local tensor = core.tensor

describe("scope", function()
  local before = support.alive()

  it("frees what was made inside, and returns what the function returns", function()
    local outside, lost = tensor { 1 }, nil
    local a, b, n = core.scope(function(x)
      lost = x + 1
      return lost * 2, { sum = (x * 3):sum(), deeper = { x - 1 } }, 42
    end, outside)
    assert.is_true(lost:is_freed())
    assert.equal(4, a:item())
    assert.equal(3, b.sum:item())
    assert.equal(0, b.deeper[1]:item())
    assert.equal(42, n)
    assert.equal(1, outside:item())
  end)

  it("frees what was made inside when an error passes", function()
    local lost
    local ok, message = pcall(core.scope, function()
      lost = tensor { 1 }
      error({ "mine" })
    end)
    assert.is_false(ok)
    assert.same({ "mine" }, message)
    assert.is_true(lost:is_freed())
  end)

  it("nests: what an inner scope returns belongs to the outer one", function()
    local inner
    local result = core.scope(function()
      inner = core.scope(function() return tensor { 1 } end)
      assert.is_false(inner:is_freed())
      return inner + 1
    end)
    assert.is_true(inner:is_freed())
    assert.equal(2, result:item())
  end)

  it("spares what was made in a pause, or is kept", function()
    local paused, kept, lost
    core.scope(function()
      paused = core.pause(function() return tensor { 1 } end)
      kept = core.keep(tensor { 2 })
      lost = tensor { 3 }
    end)
    assert.equal(1, paused:item())
    assert.equal(2, kept:item())
    assert.is_true(lost:is_freed())
    assert.matches("keep: argument 1 is 1; a tensor is expected", failure(core.keep, 1))
  end)

  it("walks results with loops in them, and nets with metatables", function()
    local net = core.scope(function()
      local t = setmetatable({ w = tensor { 1 } }, { __index = function() error "not to be asked" end })
      t.self = t
      return t
    end)
    assert.equal(1, net.w:item())
  end)

  it("keeps memory that something else still holds", function()
    local w = tensor({ 2 }, { requires_grad = true })
    core.scope(function() (w * w):sum():backward() end)
    assert.equal(4, w.grad:item())
  end)

  it("frees at once, without the collector", function()
    collectgarbage "stop"
    local m = core.memory()
    local used = m.used - m.cached
    for _ = 1, 100 do
      core.scope(function()
        local t = core.ops.full({ 1000, 100 }, 1)
        for _ = 1, 10 do t = t + 1 end
      end)
    end
    m = core.memory()
    collectgarbage "restart"
    assert.is_true(m.used - m.cached - used < 100000)
  end)

  it("wants a function", function()
    assert.matches("scope: argument 1 is nothing; a function is expected", failure(core.scope))
    assert.matches("pause: argument 1 is 'x'; a function is expected", failure(core.pause, "x"))
    assert.equal(5, core.scope(setmetatable({}, { __call = function(_, v) return v end }), 5))
  end)

  it("does not let a coroutine leave in the middle", function()
    assert.matches("yield", failure(function() coroutine.wrap(function() core.scope(coroutine.yield) end)() end))
  end)

  it("leaves nothing behind", function() assert.equal(before, support.alive()) end)
end)
