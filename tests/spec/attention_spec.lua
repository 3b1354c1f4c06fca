--- Attention: the op, nn.multi_head_attention, nn.transformer_block, nn.positional.
local bad = require "support.bad"
local bp = require "bp"
local vectors = require "support.vectors"
local near, leaf = vectors.near, vectors.leaf
local nn, ops = bp.nn, bp.ops

local parts = { "query", "key", "value", "output" }

describe("nn.multi_head_attention agrees with PyTorch and Keras:", function()
  vectors.compare("attention", {
    attention = function(case)
      local o = case.options
      for dtype, rtol in pairs{ f64 = 1e-9, f32 = 1e-3 } do
        local least = dtype == "f32" and 0.2 or nil -- a sum is no better than the unit in the last place of its terms
        local layer = nn.multi_head_attention{ o.heads, causal = o.causal }
        layer:build_for{ case.q:shape(2), case.q:shape(3) }
        for _, part in ipairs(parts) do
          for _, what in ipairs{ "kernel", "bias" } do layer[part][what] = nn.parameter(case[part .. "_" .. what]:to(dtype)) end
        end
        local inputs = { leaf(case.q, dtype), case.k and leaf(case.k, dtype), case.v and leaf(case.v, dtype) }
        local y = layer(inputs[1], inputs[2], inputs[3], { lengths = case.lengths })
        near(case.y, y, dtype .. " y", rtol, least)
        y:backward{ grad = case.dy:to(dtype) }
        for i, name in ipairs{ "q", "k", "v" } do
          if inputs[i] then near(case["d" .. name], inputs[i].grad, dtype .. " d" .. name, rtol, least) end
        end
        for _, part in ipairs(parts) do
          near(case["d" .. part .. "_kernel"], layer[part].kernel.grad, dtype .. " kernel of " .. part, rtol, least)
          if part == "key" then
            assert.near(0, layer.key.bias.grad:abs():max():item(), rtol * 10)
          else
            near(case["d" .. part .. "_bias"], layer[part].bias.grad, dtype .. " bias of " .. part, rtol, least)
          end
        end
      end
    end,

    transformer_block = function(case)
      local o = case.options
      for dtype, rtol in pairs{ f64 = 1e-9, f32 = 1e-3 } do
        local least = dtype == "f32" and 0.2 or nil
        local block = nn.transformer_block{ o.heads, hidden = o.hidden, causal = o.causal }
        block:build_for{ case.x:shape(2), case.x:shape(3) }
        local a = block.attention
        local layers = { norm_1 = block.norm_1, query = a.query, key = a.key, value = a.value, output = a.output, norm_2 = block.norm_2,
          dense_1 = block.dense_1, dense_2 = block.dense_2 }
        local function each(fn)
          for name, layer in pairs(layers) do
            local names = name:find "norm" and { "gamma", "beta" } or { "kernel", "bias" }
            for _, what in ipairs(names) do fn(name .. "_" .. what, layer, what) end
          end
        end
        each(function(name, layer, what) layer[what] = nn.parameter(case[name]:to(dtype)) end)
        local x = leaf(case.x, dtype)
        local y = block(x)
        near(case.y, y, dtype .. " y", rtol, least)
        y:backward{ grad = case.dy:to(dtype) }
        near(case.dx, x.grad, dtype .. " dx", rtol, least)
        each(function(name, layer, what)
          if case["d" .. name] then near(case["d" .. name], layer[what].grad, dtype .. " d" .. name, rtol, least) end
        end)
      end
    end,
  }, {})
end)

-- The same from small ops: what the fused op has to give.
local function spelled_out(q, k, v, heads, causal, lengths)
  local batch, tq, tk = q:shape(1), q:shape(2), k:shape(2)
  local function split(x) return x:reshape(batch, x:shape(2), heads, -1):permute(1, 3, 2, 4) end
  local qs, ks, vs = split(q), split(k), split(v)
  local s = qs:matmul(ks:permute(1, 2, 4, 3)) / math.sqrt(qs:shape(4))
  local seen = bp.ones(batch, 1, tq, tk)
  if causal then seen = seen * bp.arange(1, tk):le(bp.arange(1, tq):reshape(tq, 1)):to "f32" end
  if lengths then seen = seen * bp.arange(1, tk):le(lengths:to "f32":reshape(batch, 1, 1, 1)):to "f32" end
  local weights = ops.softmax(s + (1 - seen) * -1e9) * seen
  return weights:matmul(vs):permute(1, 3, 2, 4):reshape(batch, tq, -1)
end

describe("the op attention", function()
  local function compare(batch, tq, tk, heads, size, value, causal, lengths)
    local function one(fn)
      bp.seed(5)
      local q, k, v = bp.randn(batch, tq, heads * size), bp.randn(batch, tk, heads * size), bp.randn(batch, tk, heads * value)
      for _, t in ipairs{ q, k, v } do t:requires_grad_(true) end
      local y = fn(q, k, v)
      y:backward{ grad = bp.randn(batch, tq, heads * value) }
      return { y, q.grad, k.grad, v.grad }
    end
    local fused = one(function(q, k, v) return (ops.attention(q, k, v, lengths, { heads = heads, causal = causal })) end)
    local expected = one(function(q, k, v) return spelled_out(q, k, v, heads, causal, lengths) end)
    for i = 1, 4 do near(expected[i], fused[i], "tensor " .. i, 2e-4, 0.1) end
  end

  it("gives what small ops give, over shapes", function()
    local function many(...) return bp.tensor({ ... }, { dtype = "i64" }) end
    compare(2, 3, 3, 1, 4, 4, false)
    compare(2, 7, 5, 3, 8, 4, false)
    compare(1, 130, 130, 2, 16, 16, true)
    compare(3, 50, 70, 2, 5, 9, false, many(70, 0, 33))
    compare(3, 65, 65, 1, 32, 32, true, many(1, 65, 17))
    compare(1, 3, 1500, 1, 8, 8, false)
    compare(1, 1500, 3, 1, 8, 8, true)
  end)

  it("gives 0 where nothing is seen, and no gradient", function()
    local q = bp.randn(1, 2, 4):requires_grad_(true)
    local y = ops.attention(q, q, q, bp.tensor({ 0 }, { dtype = "i64" }))
    assert.equal(0, y:abs():max():item())
    y:sum():backward()
    assert.equal(0, q.grad:abs():max():item())
  end)

  it("drops weights: the mean stays, the seed decides, and the gradient drops the same", function()
    local q, v = bp.zeros(4, 64, 8), bp.ones(4, 64, 8):requires_grad_(true)
    bp.seed(1)
    local y = ops.attention(q, q, v, { heads = 2, p = 0.3 })
    assert.near(1, y:mean():item(), 0.02)
    assert.is_true((y - 1):abs():mean():item() > 0.01)
    y:backward{ grad = bp.ones(4, 64, 8) }
    -- equal weights of 1/64: what a head of a sample gave in all is what its values got back
    near(y:reshape(4, 64, 2, 4):sum{ axes = 2 }, v.grad:reshape(4, 64, 2, 4):sum{ axes = 2 }, "sums", 1e-4)
    bp.seed(1)
    assert.is_true(ops.attention(q, q, v, { heads = 2, p = 0.3 }):eq(y):all():item())
    assert.is_false(ops.attention(q, q, v, { heads = 2, p = 0.3 }):eq(y):all():item())
  end)
end)

local models = {
  self_attention = function() return nn.multi_head_attention{ 4, causal = true, dropout = 0.2 } end,
  rotary = function() return nn.multi_head_attention{ 2, size = 6, value_size = 5, units = 3, rotary = true } end,
  block = function() return nn.transformer_block{ 4, causal = true, dropout = 0.1 } end,
  block_rms = function() return nn.transformer_block{ 2, hidden = 20, norm = "rms_norm", rotary = true, activation = "relu" } end,
  sinusoidal = function() return nn.sequential{ nn.positional(), nn.dense(8) } end,
  learned = function() return nn.positional{ "learned", 40 } end,
}

for name, make in pairs(models) do
  describe(name, function()
    it("is captured to the bit, with any number of threads", function()
      local results = {}
      for _, captured in ipairs{ false, true } do
        for _, threads in ipairs{ 1, 2, 3 } do
          bp.seed(7)
          bp.threads(threads)
          local model, x = make(), bp.randn(9, 33, 16)
          model:build_for{ 33, 16 }
          bp.seed(9)
          local opt = bp.optim.adam(model:parameters(), { lr = 0.01 })
          local function step(input)
            local loss = model(input):square():mean()
            opt:zero_grad()
            loss:backward()
            opt:step()
            return loss
          end
          if captured then step = bp.capture(step) end
          local losses = {}
          for i = 1, 3 do losses[i] = step(x):item() end
          for _, p in ipairs(model:parameters()) do losses[#losses + 1] = p:sum():item() end
          results[#results + 1] = losses
        end
      end
      bp.threads(2)
      assert.is_true(results[1][3] < results[1][1])
      for i = 2, #results do assert.same(results[1], results[i]) end
    end)

    it("survives saving", function()
      local path = os.tmpname()
      local model, x = nn.sequential{ make() }, bp.randn(3, 12, 16)
      model(x)
      assert(model:save(path))
      local loaded = assert(bp.load(path))
      os.remove(path)
      assert.is_true(model:predict(x):eq(loaded:predict(x)):all():item())
    end)

    it("drops nothing in inference", function()
      local model, x = make(), bp.randn(2, 5, 16)
      model(x)
      model:eval()
      assert.is_true(model(x):eq(model(x)):all():item())
    end)
  end)
end

describe("a causal net", function()
  it("does not see what comes later", function()
    local model = nn.sequential{ nn.positional(), nn.transformer_block{ 2, causal = true },
      nn.transformer_block{ 2, causal = true, rotary = true } }
    local a = bp.randn(1, 9, 8)
    local b = a:clone()
    b[{ {}, { 6, 9 } }] = bp.randn(1, 4, 8)
    local ya, yb = model:predict(a), model:predict(b)
    assert.is_true(ya[{ {}, { 1, 5 } }]:eq(yb[{ {}, { 1, 5 } }]):all():item())
    assert.is_false(ya[{ {}, 6 }]:eq(yb[{ {}, 6 }]):all():item())
  end)

  it("takes lengths: what lies behind them changes nothing", function()
    local block, lengths = nn.transformer_block{ 2 }, bp.tensor({ 3, 7 }, { dtype = "i64" })
    local a = bp.randn(2, 7, 8)
    local b = a:clone()
    b[{ 1, { 4, 7 } }] = bp.randn(4, 8)
    local ya, yb = block(a, { lengths = lengths }), block(b, { lengths = lengths })
    assert.is_true(ya[{ 1, { 1, 3 } }]:eq(yb[{ 1, { 1, 3 } }]):all():item())
    assert.is_true(ya[2]:eq(yb[2]):all():item())
  end)
end)

describe("attention behind an embedding", function()
  it("finds out by itself which steps are padding", function()
    bp.seed(2)
    local model = nn.sequential{ nn.embedding{ 20, 8, padding_index = 1 }, nn.positional(), nn.transformer_block(2),
      nn.multi_head_attention(2) }
    local short, long = bp.tensor({ { 5, 7, 9 } }, { dtype = "i64" }), bp.tensor({ { 5, 7, 9, 1, 1, 1 } }, { dtype = "i64" })
    vectors.near(model:predict(short), model:predict(long)[{ {}, { 1, 3 } }], "steps that count", 1e-5, 1)
  end)
end)

describe("nn.positional", function()
  it("adds Vaswani's waves", function()
    local y = nn.positional()(bp.zeros(1, 3, 4)):totable()[1]
    for t = 0, 2 do
      for i, v in ipairs{ math.sin(t), math.cos(t), math.sin(t / 100), math.cos(t / 100) } do assert.near(v, y[t + 1][i], 1e-6) end
    end
  end)

  it("turns queries and keys so that products depend on distance alone", function()
    local rotate = require("bp.nn.positional").rotate
    local q, k = bp.randn(8), bp.randn(8)
    local qs, ks = rotate(q:reshape(1, 1, 8):expand(1, 12, 8), 1), rotate(k:reshape(1, 1, 8):expand(1, 12, 8), 1)
    local products = qs[1]:matmul(ks[1]:permute(2, 1)):totable()
    for i = 2, 12 do
      for j = 2, 12 do assert.near(products[i - 1][j - 1], products[i][j], 1e-4) end
    end
    assert.near((q * k):sum():item(), products[5][5], 1e-4)
  end)
end)

describe("attention refuses", function()
  local x = bp.ones(2, 5, 6)
  bad.cases{
    { "no heads", function() nn.multi_head_attention{} end, "option 'heads' is missing", "number of heads" },
    { "heads that do not divide", function() nn.multi_head_attention(4)(x) end, "6 features", "4 heads", "say size" },
    { "odd rotary", function() nn.multi_head_attention{ 2, rotary = true }(x) end, "must be even", "it is 3" },
    { "a matrix", function() nn.multi_head_attention(2)(bp.ones(5, 6)) end, "the input is [5][6]", "[batch][time][features]" },
    { "a key that is no tensor", function() nn.multi_head_attention(2)(x, 3) end, "input 2 is a number (3)", "expected a tensor" },
    { "four inputs", function() nn.multi_head_attention(2)(x, x, x, x) end, "4 inputs", "query, key and value" },
    { "an unknown option of a call", function() nn.multi_head_attention(2)(x, { length = x }) end, "unknown option 'length'", "'lengths'" },
    { "lengths as a list", function() nn.multi_head_attention(2)(x, { lengths = { 1, 2 } }) end, "'lengths' is a table", "a tensor" },
    { "lengths as floats", function() nn.multi_head_attention(2)(x, { lengths = bp.ones(2) }) end, "is f32 [2]", "whole numbers [2]" },
    { "a length too many", function() nn.multi_head_attention(2)(x, { lengths = bp.tensor({ 1, 2, 3 }, { dtype = "i64" }) }) end,
      "'lengths' is i64 [3]", "[2]" },
    { "a length beyond the keys", function() nn.multi_head_attention(2)(x, { lengths = bp.tensor({ 5, 6 }, { dtype = "i64" }) }) end,
      "'lengths' is 6 in row 2", "0 to 5" },
    { "values of another length", function() nn.multi_head_attention(2)(x, x, bp.ones(2, 4, 6)) end, "k has shape [2x5x6]", "[2x4x6]" },
    { "another batch", function() nn.multi_head_attention(2)(x, bp.ones(3, 5, 6)) end, "q has shape [2x5x6]", "[3x5x6]" },
    { "the op with heads that do not divide", function() ops.attention(x, x, x, { heads = 4 }) end, "'q'", "[2x5x6]", "4 heads" },
    { "an unknown norm", function() nn.transformer_block{ 2, norm = "layernorm" } end, "option 'norm'", "did you mean 'layer_norm'?" },
    { "an unknown activation", function() nn.transformer_block{ 2, activation = "gelo" } end, "unknown activation 'gelo'", "'gelu'" },
    { "two inputs of a block", function() nn.transformer_block(2)(x, x) end, "transformer_block", "2 inputs" },
    { "a learned position without a number", function() nn.positional "learned" end, "max_length", "nn.positional{ \"learned\", 128 }" },
    { "a sequence too long", function() nn.positional{ "learned", 4 }(x) end, "5 steps", "max_length is 4" },
    { "rotary positions", function() nn.positional "rotary" end, "option 'kind' is \"rotary\"", "rotary = true" },
    { "positions of a matrix", function() nn.positional()(bp.ones(3, 4)) end, "the input is [3][4]", "[batch][time][features]" },
  }
end)
