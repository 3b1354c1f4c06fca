--- captured:into(out, ...): the results of a captured function in tensors of the caller, with the bits of the plain call, and nothing made.
local bp = require "bp"
local core = require "bp.core"

local function same(a, b) return a.dtype == b.dtype and bp.ops.eq(a, b):all():item() end

describe("captured:into", function()
  it("leaves the one result in the tensor given, which it returns", function()
    local w = bp.randn(3, 5)
    local f = bp.capture(function(x) return x:matmul(w):relu() end)
    local out = bp.zeros(2, 5)
    for _ = 1, 4 do
      local x = bp.randn(2, 3)
      assert.is_true(rawequal(f:into(out, x), out))
      assert.is_true(same(x:matmul(w):relu(), out))
      assert.is_true(same(f(x), out))
    end
  end)

  it("leaves several in tables arranged as they are", function()
    local function body(x, k) return { twice = x * 2, [1] = { sum = x:sum(), name = "n" }, k = k }, x + k, "text", x:argmax(1) end
    local f = bp.capture(body)
    for _ = 1, 3 do
      local x = bp.randn(4)
      local out = { { twice = bp.zeros(4), { sum = bp.zeros({}) } }, bp.zeros(4), nil, bp.zeros({}, { dtype = "i64" }) }
      assert.is_true(rawequal(f:into(out, x, 3), out))
      local table_, plus, _, position = body(x, 3)
      assert.is_true(same(table_.twice, out[1].twice) and same(table_[1].sum, out[1][1].sum) and same(plus, out[2]))
      assert.equal(position:item(), out[4]:item())
    end
  end)

  it("takes one table for a function that returns one", function()
    local f = bp.capture(function(x) return { n = x + 1, x - 1 } end)
    for _ = 1, 3 do
      local out = f:into({ bp.zeros(2), n = bp.zeros(2) }, bp.ones(2))
      assert.same({ 0, 0 }, out[1]:totable())
      assert.same({ 2, 2 }, out.n:totable())
    end
  end)

  it("has nothing to write for a function without results", function()
    local count = bp.zeros(1)
    local f = bp.capture(function(x) count:add_(x) end)
    for i = 1, 3 do
      f:into({}, bp.ones(1))
      assert.equal(i, count:item())
    end
  end)

  it("takes every dtype, and tensors without elements", function()
    for _, dtype in ipairs{ "f32", "f64", "i32", "i64", "u8" } do
      for _, shape in ipairs{ { 3, 4 }, { 0, 4 }, {}, { 1 } } do
        local f = bp.capture(function(x) return x + x, x:gt(1), x:reshape(-1) end)
        local x = bp.full(shape, 2, { dtype = dtype })
        local sum, flags, flat = x + x, x:gt(1), x:reshape(-1)
        local out = { sum:clone():fill_(0), bp.zeros(shape, { dtype = "bool" }), bp.zeros(flat:shape(), { dtype = dtype }) }
        for _ = 1, 3 do
          f:into(out, x)
          assert.is_true(same(sum, out[1]) and same(flags, out[2]) and same(flat, out[3]), dtype)
        end
      end
    end
  end)

  it("computes in memory that begins anywhere", function()
    local nn = bp.nn
    local net = nn.sequential{ nn.conv2d{ 5, 3, padding = "same" }, nn.batch_norm(), nn.activation "relu", nn.max_pool2d(2), nn.flatten(),
      nn.dense{ 9, activation = "tanh" } }
    local layers = { net, nn.conv2d{ 16, 3 }, nn.conv2d{ 3, 5 }, nn.depthwise_conv2d(3), nn.layer_norm(), nn.avg_pool2d(2) }
    for _, layer in ipairs(layers) do
      local x = bp.randn(2, 12, 12, 16)
      layer(x)
      layer:eval()
      local f = bp.capture(function(v) return bp.no_grad(function() return layer(v) end) end)
      local want = f(x)
      local n = want:numel()
      local room = bp.zeros(n + 17)
      for shift = 1, 17, 4 do
        local out = room[{ { shift, shift + n - 1 } }]:reshape(want:shape())
        room:fill_(-7)
        f:into(out, x)
        assert.is_true(same(want, out))
        if shift > 1 then assert.equal(-7, room[shift - 1]:item()) end
        assert.equal(-7, room[shift + n]:item())
      end
    end
  end)

  it("makes neither memory nor garbage", function()
    local w = bp.randn(10, 4)
    local one = bp.capture(function(x) return x:matmul(w) end)
    local several = bp.capture(function(x) return { a = x:matmul(w), b = x + 1 }, x, x:sum() end)
    local x, out = bp.randn(1, 10), bp.zeros(1, 4)
    local outs = { { a = bp.zeros(1, 4), b = bp.zeros(1, 10) }, bp.zeros(1, 10), bp.zeros{} }
    local function run(n)
      for _ = 1, n do
        one:into(out, x)
        several:into(outs, x)
      end
    end
    run(3)
    collectgarbage()
    collectgarbage "stop"
    local calls = core.memory().calls
    local garbage = collectgarbage "count"
    run(50)
    local more, more_calls = collectgarbage "count" - garbage, core.memory().calls - calls
    collectgarbage "restart"
    assert.equal(0, more)
    assert.equal(0, more_calls)
  end)

  it("leaves results of plain calls alone, and they leave it alone", function()
    local f = bp.capture(function(x) return x + 1, x * 2 end)
    f(bp.full({ 2 }, 1))
    local a, b = f(bp.full({ 2 }, 10))
    local c, d = bp.zeros(2), bp.zeros(2)
    f:into({ c, d }, bp.full({ 2 }, 100))
    assert.same({ 11, 20, 101, 200 }, { a[1]:item(), b[1]:item(), c[1]:item(), d[1]:item() })
    local e = f(bp.full({ 2 }, 1000))
    assert.same({ 11, 20, 101, 200, 1001 }, { a[1]:item(), b[1]:item(), c[1]:item(), d[1]:item(), e[1]:item() })
    f:into({ b, a }, a) -- each other's memory, and an argument
    assert.same({ 12, 22 }, { b[1]:item(), a[1]:item() })
    f:into({ a, b }, a)
    assert.same({ 23, 44 }, { a[1]:item(), b[1]:item() })
  end)

  it("goes round: out is the argument", function()
    local w = bp.randn(4, 4)
    local f = bp.capture(function(s) return (s:matmul(w) + s):tanh() end)
    local state, want = bp.ones(1, 4), bp.ones(1, 4)
    for _ = 1, 5 do
      f:into(state, state)
      want = (want:matmul(w) + want):tanh()
      assert.is_true(same(want, state))
    end
  end)

  it("is seen by a gradient that kept what it overwrites", function()
    local f = bp.capture(function(x) return x + 1 end)
    local out, p = bp.ones(2), bp.ones(2):requires_grad_()
    f:into(out, bp.ones(2))
    local loss = (p * out):sum()
    f:into(out, bp.ones(2))
    assert.error_matches(function() loss:backward() end, "changed in place")
  end)

  it("repeats random draws and hooks as the plain call does", function()
    local function make()
      bp.seed(9)
      local net = bp.nn.sequential{ bp.nn.dense(4), bp.nn.dropout(0.5), bp.nn.dense(1) }
      local x = bp.randn(8, 3)
      bp.no_grad(function() net(x) end)
      net:train()
      local opt = bp.optim.sgd(net:parameters(), { lr = 0.1, momentum = 0.9 })
      return x, bp.capture(function(v)
        local loss = net(v):square():mean()
        opt:zero_grad()
        loss:backward()
        opt:step()
        return loss
      end)
    end
    local x, plain = make()
    local losses = {}
    for i = 1, 6 do losses[i] = plain(x):item() end
    local _, given = make()
    local out = bp.zeros({})
    for i = 1, 6 do assert.equal(losses[i], given:into(out, x):item()) end
  end)

  describe("refuses", function()
    local w = bp.randn(3, 5)
    local one = bp.capture(function(x) return x:matmul(w) end)
    local two = bp.capture(function(x) return { left = x + 1, right = { x * 2 } }, x:sum() end)
    local hands = bp.capture(function(x) return x + 1, w:t() end)
    local x = bp.ones(2, 3)
    local function good() return { { left = bp.zeros(2, 3), right = { bp.zeros(2, 3) } }, bp.zeros{} } end
    local function bad(change)
      return function(f)
        local out = good()
        change(out)
        two:into(out, x)
        return f
      end
    end
    local freed = bp.zeros(2, 5)
    freed:free()
    local cases = {
      ["no output"] = { function() one:into() end, "a tensor, or a table of tensors, for the results is expected" },
      ["a number"] = { function() one:into(3, x) end, "a tensor, or a table of tensors, for the results is expected" },
      ["another shape"] = { function() one:into(bp.zeros(5, 2), x) end,
        "out is a tensor f32 %[5x2%]; the result there is f32 %[2x5%], so make it with bp.zeros of" },
      ["another dtype"] = { function() one:into(bp.zeros(2, 5, { dtype = "f64" }), x) end, "the result there is f32" },
      ["a view with gaps"] = { function() one:into(bp.zeros(5, 2):t(), x) end, "view with gaps.*contiguous" },
      ["an expanded tensor"] = { function() one:into(bp.zeros(1, 5):expand(2, 5), x) end, "view with gaps" },
      ["a freed tensor"] = { function() one:into(freed, x) end, "out was freed" },
      ["a parameter"] = { function() one:into(bp.zeros(2, 5):requires_grad_(), x) end, "requires a gradient.*detach" },
      ["a table for one"] = { function() one:into({ bp.zeros(2, 5) }, x) end, "the result there is f32 %[2x5%]" },
      ["one for a table"] = { function() two:into(bp.zeros(2, 3), x) end, "a table arranged as the results" },
      ["a missing field"] = { bad(function(o) o[1].left = nil end), "out%[1%]%.left is nil" },
      ["a wrong field"] = { bad(function(o) o[1].right[1] = bp.zeros(3) end), "out%[1%]%.right%[1%] is a tensor f32 %[3%]" },
      ["no inner table"] = { bad(function(o) o[1].right = 7 end), "out%[1%]%.right is 7; a table" },
      ["a missing scalar"] = { bad(function(o) o[2] = nil end), "out%[2%] is nil" },
      ["the same tensor twice"] = { bad(function(o) o[1].right[1] = o[1].left end), "share memory" },
      ["the memory of what is handed on"] = { function() hands:into({ w:reshape(15)[{ { 1, 6 } }]:reshape(2, 3), bp.zeros(5, 3) }, x) end,
        "handed on" },
      ["what is handed on, turned"] = { function() hands:into({ bp.zeros(2, 3), w:reshape(5, 3) }, x) end, "handed on" },
      ["a dot for the colon"] = { function() one.into(bp.zeros(2, 5), x) end, "called without its captured function.*captured:into%(" },
      ["being recorded"] = { function() bp.capture(function(v) one:into(bp.zeros(2, 5), v) end)(x) end, "inside another capture" },
    }
    for name, case in pairs(cases) do
      it(name, function()
        for _ = 1, 2 do -- recorded, replayed
          local ok, message = pcall(case[1])
          assert.is_false(ok)
          assert.matches(case[2], message)
          assert.matches("capture_into_spec.lua:%d+:", message)
        end
        one:into(bp.zeros(2, 5), x)
        two:into(good(), x)
        assert.is_true(same(w:t(), hands:into({ bp.zeros(2, 3), bp.zeros(5, 3) }, x)[2]))
      end)
    end
  end)
end)
