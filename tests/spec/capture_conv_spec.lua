-- Convolutions and products with what a plan lets them hand their results to: the same bits as one after the other, and in one where it
-- should be.
local bp = require "bp"
local core = require "bp.core"
local check = require "support.check"
local support = require "support.core"
local nn, optim, ops = bp.nn, bp.optim, bp.ops

describe("convolutions in a plan", function()
  local before = support.alive()
  after_each(function() assert.same(before, support.alive()) end)

  local function names_of(captured) return " " .. table.concat(captured:plans()[1].names, " ") .. " " end

  -- fn(x) is run three times both ways; names of the plan's ops.
  local function both_ways(fn, x, what)
    local captured = core.capture(fn)
    local function results(f)
      core.seed(7)
      return {
    { f(x) }, { f(x) }, { f(x) } }
    end
    local expected = results(fn)
    for i, all in ipairs(results(captured)) do
      assert.equal(#expected[i], #all, what)
      for k, t in ipairs(all) do assert.is_true(check.equal(expected[i][k], t), what) end
    end
    return names_of(captured)
  end

  local function has(names, name) return names:find(" " .. name .. " ", 1, true) ~= nil end

  it("pool their result where nobody else reads it", function()
    bp.seed(1)
    local w, b, x = bp.randn(3, 3, 8, 24), bp.randn(24), bp.randn(20, 22, 20, 8)
    local function conv(v) return ops.conv2d(v, w, b, { activation = "relu" }) end
    local function max(v, options) return (ops.max_pool2d(v, options)) end
    for what, case in pairs{
    ["max"] = { true, function(v) return max(conv(v)) end },
    ["max and where it was"] = { true, function(v) return ops.max_pool2d(conv(v), { size = 3, stride = 2, padding = "same" }) end },
    ["mean"] = { true, function(v) return ops.avg_pool2d(conv(v), { size = { 2, 3 } }) end },
    ["a vector of images"] = { true, function(v) return max(conv(v)
                                                            : reshape{ shape = { 20, 20 * 18, 24 } }
                                                            : reshape{ shape = { 20, 20, 18, 24 } }) end },
    ["handed out"] = { false, function(v) local y = conv(v) return y, max(y) end }, ["read twice"] = {
        false,
        function(v) local y = conv(v) return max(y),
        y : sum() end
    },
    ["seen as another shape"] = { false, function(v) return max(conv(v)
                                                                : reshape{ shape = { 20, 10, 36, 24 } }) end },
    ["a part of it"] = { false, function(v) return max(conv(v)[{ { 2, 18 } }]) end }, ["written in between"] = {
        false,
        function(v) local y = conv(v) y : add_(1) return max(y) end
    },
    ["input written in between"] = { false, function(v) local copy = v * 2 local y = conv(copy) copy : add_(1) return max(y), copy end },
    ["small"] = { false, function(v) return max(conv(v[{ { 1, 5 } }])) end },
    ["1x1"] = { false, function(v) return max(ops.conv2d(v, w[{ { 1, 1 }, { 1, 1 } }])) end },
    } do
      local names = both_ways(case[2], x, what)
      assert.equal(case[1], has(names, "conv2d_max_pool2d") or has(names, "conv2d_avg_pool2d"), what)
    end
    w, b, x = ops.cast(w, { dtype = "f64" }), ops.cast(b, { dtype = "f64" }), ops.cast(x, { dtype = "f64" })
    assert.is_false(has(both_ways(function(v) return max(conv(v)) end, x), "conv2d_max_pool2d"))
  end)

  it("take in a relu after them where nobody else reads what lies between", function()
    bp.seed(3)
    local w, b, d, u, x = bp.randn(3, 3, 8, 16), bp.randn(16), bp.randn(3, 3, 8, 1), bp.randn(8, 16), bp.randn(5, 9, 8, 8)
    local point = bp.randn(1, 1, 8, 16)
    for what, case in pairs{
    ["conv2d"] = { true, function(v) return ops.conv2d(v, w, b) : relu() end },
    ["no bias"] = { true, function(v) return ops.conv2d(v, w) : relu() end }, ["seen as another shape"] = {
        true,
        function(v) return ops.conv2d(v, w, b) : reshape{ shape = { -1 } } : relu() end
    },
    ["depthwise"] = { true, function(v) return ops.depthwise_conv2d(v, d) : relu() end }, ["linear"] = {
        true,
        function(v) return ops.linear(v, u, b) : relu() end
    },
    ["1x1"] = { true, function(v) return ops.conv2d(v, point, b) : relu() end }, ["linear without bias"] = {
        false,
        function(v) return ops.linear(v, u) : relu() end
    },
    ["1x1 without bias"] = { false, function(v) return ops.conv2d(v, point) : relu() end }, ["in place"] = {
        false,
        function(v) return ops.conv2d(v, w, b) : relu_() end
    },
    ["handed out"] = { false, function(v) local y = ops.conv2d(v, w, b) return y, y : relu() end }, ["read twice"] = {
        false,
        function(v) local y = ops.conv2d(v, w, b) return y : relu() + y end
    },
    ["a part of it"] = { false, function(v) return ops.conv2d(v, w, b)[{ { 2, 4 } }] : relu() end }, ["input written in between"] = {
        false,
        function(v) local copy = v * 2 local y = ops.conv2d(copy, w, b) copy : add_(1) return y : relu(),
        copy end
    },
    } do
      local names = both_ways(case[2], x, what)
      assert.equal(case[1], not has(names, "relu"), what)
    end
  end)

  it("undo a relu on their gradients where nobody else reads them", function()
    bp.seed(2)
    local w, dy, y = bp.randn(3, 3, 16, 8), bp.randn(20, 22, 20, 8), bp.randn(20, 22, 20, 16)
    local d, dense, cols = bp.randn(3, 3, 16, 1), bp.randn(16, 8), bp.randn(20, 22, 20, 16)
    local function conv() return ops.conv2d_grad_input(dy, w, { size = { 22, 20 }, padding = "same" }) end
    local function depthwise() return ops.depthwise_conv2d_grad_input(cols, d, { size = { 22, 20 }, padding = "same" }) end
    local function product() return dy:matmul(dense:t()) end
    for name, fn in pairs{
    conv2d_grad_input = conv, depthwise_conv2d_grad_input = depthwise, matmul = product } do
      for what, case in pairs{
    ["relu"] = { true, function(v) return ops.relu_grad(fn(), v * 1) end },
    ["of an argument"] = { true, function(v) return ops.relu_grad(fn(), v) end }, ["over the result"] = {
        true,
        function(v) return ops.relu_grad(fn(), v
                                         : relu()) : sum() end
    },
    ["dropout"] = { true, function(v) return ops.relu_dropout_grad(fn(), v * 2, { p = 0.25 }) end },
    ["flat"] = { true, function(v) return ops.relu_grad(fn()
                                                        : reshape{ shape = { -1 } }, (v * 1)
                                                        : reshape{ shape = { -1 } }) end },
    ["handed out"] = { false, function(v) local t = fn() return t, ops.relu_grad(t, v) end },
    ["read twice"] = { false, function(v) local t = fn() return ops.relu_grad(t, v) + t end }, ["written in between"] = {
        false,
        function(v) local t = fn() t : mul_(2) return ops.relu_grad(t, v) end
    },
    ["through gaps"] = { false, function(v) return ops.relu_grad(fn()[{ {}, {}, { 1, 9 } }], v[{ {}, {}, { 1, 9 } }]) end },
      } do
        local names = both_ways(function(v)
          dy:mul_(1) -- else all of it is a constant
          d:mul_(1)
          cols:mul_(1)
          return case[2](v)
        end, y, name .. ": " .. what)
        local left = has(names, "relu_grad") or has(names, "relu_dropout_grad")
        assert.equal(case[1], not left, name .. ": " .. what)
      end
    end
  end)

  it("train nets drawn by lot to the same bits", function()
    local random = math.random
    math.randomseed(11)
    local seen = {}
    for trial = 1, 16 do
      local layers = {}
      local function add(l) layers[#layers + 1] = l end
      local function activation() return random(3) > 1 and "relu" or nil end
      for group = 1, 1 + random(2) do
        for _ = 1, random(2) do
          if random(4) == 1 then
            add(nn.depthwise_conv2d{ 3, padding = "same", activation = activation() })
          else
            local channels = ({ 4, 12, 16, 24 })[random(4)]
            add(nn.conv2d{ channels, ({ 1, 2, 3, 3, 5 })[random(5)], padding = "same", strides = random(6) == 1 and 2 or 1,
              activation = activation() })
          end
          if random(4) == 1 then add(nn.activation "relu") end
          if random(5) == 1 then add(nn.dropout(0.3)) end
        end
        if random(4) > 1 then
          local pool = ({ nn.max_pool2d, nn.max_pool2d, nn.avg_pool2d })[random(3)]
          add(pool{ random(3) + 1, strides = random(3), padding = (group > 1 or random(2) == 1) and "same" or "valid" })
        end
        if random(5) == 1 then add(nn.dropout(0.3)) end
      end
      add(random(2) == 1 and nn.flatten() or nn.global_avg_pool2d())
      add(nn.dense{ 600, activation = activation() })
      if random(2) == 1 then add(nn.dropout(0.4)) end
      add(nn.dense(3))
      local n = ({ 3, 20, 40, 300 })[random(4)]
      local side = n == 300 and 8 or 16 + random(12)
      local function training()
        bp.seed(trial)
        local x, y = bp.randn(n, side, side + 1, 4), bp.randint(1, 3, { n })
        local model = nn.sequential(layers)
        model:train()
        bp.no_grad(function() model(x) end)
        for _, p in ipairs(model:parameters()) do bp.no_grad(function() p:copy_(bp.randn(table.unpack(p:shape())) * 0.2) end) end
        bp.seed(5)
        local opt = optim.sgd(model:parameters(), { lr = 0.01 })
        return function(a, b)
          local loss = nn.loss.cross_entropy(model(a), b)
          opt:zero_grad()
          loss:backward()
          opt:step()
          return loss
        end, x, y, model
      end
      local step, x, y, model = training()
      local expected, values = {}, {}
      for i = 1, 3 do expected[i] = bp.scope(function() return step(x, y):item() end) end
      for name, t in model:named_parameters() do values[name] = t:totable() end
      step, x, y, model = training()
      local captured = bp.capture(step)
      for i = 1, 3 do assert.equal(expected[i], captured(x, y):item(), "net " .. trial) end
      for name, t in model:named_parameters() do assert.same(values[name], t:totable(), name) end
      for name in names_of(captured):gmatch "%S+" do seen[name] = true end
    end
    for _, name in ipairs{
    "conv2d_max_pool2d", "matmul_relu_grad" } do assert.is_true(seen[name], name) end
  end)
end)
