local core = require "bp.core"
local support = require "support.core"
local failure = support.failure

local tensor, ops = core.tensor, core.ops

describe("capture", function()
  local before = support.alive()

  it("runs the function once, and replays what it computed", function()
    local calls = 0
    local f = core.capture(function(x, y)
      calls = calls + 1
      return (x * y + 1):sum()
    end)
    assert.equal(12, f(tensor { 1, 2 }, tensor { 2, 4 }):item())
    assert.equal(22, f(tensor { 2, 4 }, tensor { 2, 4 }):item())
    assert.equal(1, calls)
    assert.equal(1, #f:plans())
    assert.is_true(f:plans()[1].ops >= 1)
  end)

  it("undoes a relu behind a max pooling on the small side, with the same bits", function()
    core.seed(5)
    for _, options in ipairs{ { size = 2 }, { size = 3, stride = 2, padding = "same" }, { size = 2, stride = 1 } } do
      local x, weight = ops.random_normal { shape = { 2, 7, 6, 9 } }, nil
      x.requires_grad = true
      local function gradient(input)
        local pooled = ops.max_pool2d((input * x):relu(), options)
        weight = weight or core.pause(function() return ops.random_normal { shape = pooled:shape() } end)
        x:zero_grad()
        local loss = (pooled * weight):sum()
        loss:backward()
        return x.grad * 1
      end
      local input = ops.random_normal { shape = { 2, 7, 6, 9 } }
      gradient(input) -- from now on there is a gradient to set to zero
      local expected = gradient(input):totable()
      local f = core.capture(gradient)
      assert.same(expected, f(input):totable())
      assert.same(expected, f(input):totable())
      local order = table.concat(f:plans()[1].names, " ")
      assert.is_true(order:find("relu_grad", 1, true) < order:find("max_pool2d_grad", 1, true))
    end
  end)

  it("undoes dropout after a relu from its result, with the same bits", function()
    local w = tensor({ { 1, -2, 3 }, { 0.5, 4, -1 } }):requires_grad_()
    local function gradient(x)
      w:zero_grad()
      local y = ops.dropout(ops.linear(x, w, nil, { activation = "relu" }), { p = 0.4 })
      local loss = y:square():sum()
      loss:backward()
      return w.grad * 1, y
    end
    local x = ops.random_normal { shape = { 40, 2 } }
    gradient(x)
    local function results(f)
      core.seed(5)
      local all = {}
      for i = 1, 3 do
        local g, y = f(x)
        all[i] = { g:totable(), y:totable() }
      end
      return all
    end
    local f = core.capture(gradient)
    assert.same(results(gradient), results(f))
    local order = table.concat(f:plans()[1].names, " ")
    assert.is_truthy(order:find("relu_dropout_grad", 1, true))
    assert.is_nil(order:find("dropout.* dropout "))
  end)

  it("lays results over operands that nobody reads again", function()
    local x = ops.random_normal { shape = { 1000 } }
    local function chain(v) return ((v * 2):tanh() + 1):relu():sum() end
    local function kept(v)
      local a = v * 2
      local b = a:tanh()
      return (a + b + a):relu():sum() -- a + b may lie over b alone: a is read again
    end
    for fn, places in pairs { [chain] = 1, [kept] = 2 } do
      local f = core.capture(fn)
      for _ = 1, 3 do assert.equal(fn(x):item(), f(x):item()) end
      assert.is_true(f:plans()[1].arena_bytes < (places + 0.5) * 4000)
    end
    -- an operand with gaps or broadcast is not lain over
    local function broadcast(v) return (v:reshape { shape = { 10, 100 } } * 2):t() + v:reshape { shape = { 100, 10 } } end
    assert.same(broadcast(x):totable(), core.capture(broadcast)(x):totable())
  end)

  it("tells what each op of its replays took", function()
    local f = core.capture(function(x) return (x * 2):exp():sum() end)
    local x = tensor { 1, 2, 3 }
    f(x)
    assert.equal(0, f:plans()[1].steps[1].replays)
    f:time(true)
    for _ = 1, 3 do f(x) end
    local plan = f:plans()[1]
    assert.equal(plan.ops, #plan.steps)
    for i, step in ipairs(plan.steps) do
      assert.equal(plan.names[i], step.name)
      assert.equal(3, step.replays)
      assert.is_true(step.seconds > 0 and step.seconds < 10)
    end
    f:time(true) -- begins anew
    assert.equal(0, f:plans()[1].steps[1].replays)
    f:time(false)
    f(x)
    assert.equal(0, f:plans()[1].steps[1].replays)
    assert.matches("called without its captured function", failure(f.time, tensor { 1 }, true))
  end)

  it("is recorded anew for another shape, dtype, plain value or mode", function()
    local calls = 0
    local f = core.capture(function(x, options)
      calls = calls + 1
      return x * options.scale
    end)
    local function run(value, scale) return f(value, { scale = scale }):totable() end
    assert.same({ 2 }, run(tensor { 1 }, 2))
    assert.same({ 4 }, run(tensor { 2 }, 2))
    assert.equal(1, calls)
    assert.same({ 3 }, run(tensor { 1 }, 3))
    assert.equal(2, calls)
    assert.same({ 2, 2 }, run(tensor { 1, 1 }, 2))
    assert.equal(3, calls)
    assert.same({ 2 }, run(tensor({ 1 }, { dtype = "i32" }), 2))
    assert.equal(4, calls)
    core.training(true)
    run(tensor { 1 }, 2)
    core.training(false)
    assert.equal(5, calls)
    core.no_grad(run, tensor { 1 }, 2)
    assert.equal(6, calls)
    assert.same({ 14 }, run(tensor { 7 }, 2))
    assert.equal(6, calls)
  end)

  it("gives results back in the arrangement of the first call", function()
    local f = core.capture(function(x) return x + 1, "text", nil, { loss = x * 2, list = { x * 3, 7 } } end)
    for i = 1, 3 do
      local a, text, none, t = f(tensor { i })
      assert.equal(i + 1, a:item())
      assert.equal("text", text)
      assert.is_nil(none)
      assert.equal(2 * i, t.loss:item())
      assert.equal(3 * i, t.list[1]:item())
      assert.equal(7, t.list[2])
    end
    assert.equal(4, select("#", f(tensor { 1 })))
  end)

  it("takes tables of tensors, whatever the order of their fields", function()
    local f = core.capture(function(batch) return batch.x - batch.y + batch[1] end)
    assert.equal(13, f({ x = tensor { 5 }, y = tensor { 2 }, tensor { 10 } }):item())
    local other = { tensor { 1 } }
    other.y, other.x = tensor { 2 }, tensor { 9 }
    assert.equal(8, f(other):item())
    assert.equal(1, #f:plans())
  end)

  it("hands out results that later replays leave alone", function()
    local f = core.capture(function(x) return x * 2 end)
    local a = f(tensor { 1 })
    local b = f(tensor { 2 })
    local c = f(tensor { 3 })
    assert.same({ 2, 4, 6 }, { a:item(), b:item(), c:item() })
  end)

  it("trains as eagerly, to the bit", function()
    local function make()
      local w = tensor({ { 0.5, -0.25 }, { 0.125, 1 } }, { requires_grad = true })
      local function step(x)
        local loss = x:matmul(w):tanh():square():mean()
        w:zero_grad()
        loss:backward()
        core.no_grad(function() w:sub_(w.grad * 0.1) end)
        return loss
      end
      return w, step
    end
    local w1, eager = make()
    local w2, plain = make()
    local captured = core.capture(plain)
    for i = 1, 20 do
      local x = tensor { { i / 7, -i / 3 }, { 1, i / 11 } }
      local a, b = eager(x):item(), captured(x):item()
      assert.equal(a, b)
    end
    assert.equal(w1:to_bytes(), w2:to_bytes())
    assert.equal(1, #captured:plans())
  end)

  it("takes a view with gaps as it lies", function()
    local f = core.capture(function(x) return x:sum(1) end)
    local x = tensor { { 1, 2 }, { 3, 4 } }
    assert.same({ 3, 7 }, f(x:t()):totable())
    assert.same({ 4, 6 }, f(x):totable())
    assert.same({ 3, 7 }, f(x:t()):totable())
    assert.equal(2, #f:plans())
  end)

  it("takes one tensor twice", function()
    local f = core.capture(function(a, b) return a * 10 + b end)
    local x = tensor { 1, 2 }
    assert.same({ 11, 22 }, f(x, x):totable())
    assert.same({ 12, 24 }, f(x, tensor { 2, 4 }):totable())
    assert.same({ 22, 44 }, f(x * 2, x * 2):totable())
    x:mul_(3)
    assert.same({ 33, 66 }, f(x, x):totable())
    assert.same({ 10 * 6 + 3 }, f(x[{ { 2, 2 } }], x[{ { 1, 1 } }]):totable())
  end)

  it("hands out memory again that nobody holds, and never what somebody does", function()
    local f = core.capture(function(x) return x * 2 end)
    local kept, view = f(tensor { 1, 2 }), f(tensor { 3, 4 })[1]
    for i = 1, 5 do
      local passing = f(tensor { i, i + 1 })
      assert.same({ 2 * i, 2 * i + 2 }, passing:totable())
      passing:free()
      assert.is_true(passing:is_freed())
    end
    local leaf = f(tensor { 7, 8 })
    leaf.requires_grad = true
    leaf:free()
    assert.is_false(f(tensor { 7, 8 }).requires_grad)
    assert.same({ 2, 4 }, kept:totable())
    assert.equal(6, view:item())
  end)

  it("calls what is registered before every call", function()
    local rate, hits = tensor { 0 }, 0
    local f = core.capture(function(x) return x * rate end)
    f:before(function()
      hits = hits + 1
      core.pause(function() rate:fill_(hits) end)
    end)
    assert.same({ { 5 }, { 10 }, { 15 } }, { f(tensor { 5 }):totable(), f(tensor { 5 }):totable(), f(tensor { 5 }):totable() })
    assert.matches("before", failure(f.before, f, 1))
    assert.matches("called without its captured function", failure(f.before, tensor { 1 }, print))
  end)

  it("draws anew at each replay", function()
    core.seed(7)
    local f = core.capture(function() return ops.random_uniform { shape = { 4 } } end)
    local first, second = f():totable(), f():totable()
    assert.not_same(first, second)
    core.seed(7)
    assert.same(first, f():totable())
    assert.same(second, f():totable())
  end)

  it("raises when a value is read inside, and stays usable", function()
    local f = core.capture(function(x) return x * (x + 1):item() end)
    local message = failure(f, tensor { 1 })
    assert.matches("belongs to a step being captured", message)
    assert.matches("return the tensor from the captured function", message)
    assert.is_false(core.capturing())
    assert.matches("belongs to a step", failure(f, tensor { 1 }))
    local g = core.capture(function(x) return x + tensor { 1, 2 }:totable()[1] end)
    assert.equal(3, g(tensor { 2 }):item())
    assert.matches("belongs to a step", failure(core.capture(function(x) return x[1] < 2 end), tensor { 1 }))
    assert.matches("its value is not known while capturing", core.capture(function(x) return tostring(x + 1) end)(tensor { 1 }))
  end)

  it("abandons the capture when the function fails", function()
    local fail = true
    local f = core.capture(function(x)
      assert.is_true(core.capturing())
      if fail then error("oops", 0) end
      return x + 1
    end)
    assert.equal("oops", failure(f, tensor { 1 }))
    assert.is_false(core.capturing())
    fail = false
    assert.equal(2, f(tensor { 1 }):item())
  end)

  it("refuses to nest, to yield, and arguments that require a gradient", function()
    local inner = core.capture(function(x) return x end)
    local outer = core.capture(function(x) return inner(x) end)
    assert.matches("called inside another capture; call the plain function", failure(outer, tensor { 1 }))
    assert.matches("yield", failure(function() coroutine.wrap(function() core.capture(coroutine.yield)(tensor { 1 }) end)() end))
    assert.is_false(core.capturing())
    assert.matches("argument 1 requires a gradient", failure(inner, tensor({ 1 }, { requires_grad = true })))
    assert.matches("capture: argument 1 is 1; a function is expected", failure(core.capture, 1))
    local freed = tensor { 1 }
    freed:free()
    assert.matches("a tensor among the arguments was freed", failure(inner, freed))
  end)

  it("names the argument that makes too many plans", function()
    local f = core.capture(function(x, lr) return x * lr end)
    local x = tensor { 1 }
    for i = 1, 64 do f(x, i) end
    assert.matches("64 plans were made, which is the limit, because argument 2 keeps changing %(it is now 65%)", failure(f, x, 65))
    assert.equal(3, f(x, 3):item())
  end)

  it("forgets plans made before a parameter was frozen", function()
    local w = tensor({ 1 }, { requires_grad = true })
    local f = core.capture(function(x)
      local loss = (x * w):sum()
      if w.requires_grad then loss:backward() end
      return loss
    end)
    f(tensor { 1 })
    f(tensor { 1 })
    assert.equal(2, w.grad:item())
    w:requires_grad_(false)
    f(tensor { 1 })
    w:requires_grad_(true)
    w.grad = nil
    f(tensor { 3 })
    assert.equal(3, w.grad:item())
  end)

  it("counts what is made in a pause as older", function()
    local w
    local f = core.capture(function(x)
      w = w or core.pause(function() return tensor { 1 } + 1 end)
      return x * w
    end)
    assert.equal(2, f(tensor { 1 }):item())
    w:fill_(5)
    assert.equal(5, f(tensor { 1 }):item())
  end)

  it("frees its plans with the function", function()
    local used = core.memory().used
    local f = core.capture(function(x) return (x * 2 + 1):sum() end)
    f(ops.full({ 1000, 1000 }, 1))
    f = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    local m = core.memory()
    assert.is_true(m.used - m.cached <= used)
  end)

  it("leaves nothing behind", function() assert.equal(before, support.alive()) end)
end)
