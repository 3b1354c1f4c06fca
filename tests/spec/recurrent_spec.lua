--- Recurrent layers: the fused ops against the same cells made of small ops, values and all gradients; lengths, states, stacks, saving,
-- capture, threads.
local bp = require "bp"
local core = require "bp.core"
local files = require "support.files"
local sequence = require "bp.nn.sequence"
local near = require("support.vectors").near
local nn = bp.nn

local KINDS = { "simple_rnn", "gru", "lstm" }

local function bits(t) return core.to_bytes(t:contiguous()) end

-- Fails where two tensors differ by more than rtol of their size.
local function close(expected, actual, what, rtol)
  assert.same(expected:shape(), actual:shape(), what)
  local off, size = (expected:detach() - actual:detach()):abs():max():item(), 1 + expected:detach():abs():max():item()
  assert(off <= rtol * size, ("%s: off by %g; the largest is %g"):format(what, off, size - 1))
end

-- Two layers with the same weights, of dtype: one fused, one step by step.
local function twins(kind, o, x, dtype)
  local pair = {}
  for i, fused in ipairs{ true, false } do
    local given = { fused = fused, return_sequences = true, return_state = true }
    for key, value in pairs(o) do given[key] = value end
    pair[i] = nn[kind](given)
    pair[i](x)
  end
  local values = pair[1]:get_weights()
  for _, layer in ipairs(pair) do
    for name in layer:named_parameters() do layer[name] = nn.parameter((values[name] * 1.5 + 0.05):to(dtype)) end
  end
  return pair[1], pair[2]
end

local function leaf(...) return bp.randn(...):requires_grad_(true) end

describe("a fused sequence", function()
  for _, kind in ipairs(KINDS) do
    for _, dtype in ipairs{ "f64", "f32" } do
      it(("of %s in %s is the composed one, with all gradients"):format(kind, dtype), function()
        bp.seed(5)
        local shapes = { { 1, 1, 1, 1 }, { 3, 4, 2, 5 }, { 5, 7, 3, 8 }, { 19, 6, 9, 17 }, { 33, 3, 4, 16 }, { 2, 5, 40, 90 },
          { 5, 2, 2, 330 } }
        for number, s in ipairs(shapes) do
          local batch, steps, inputs, units = table.unpack(s)
          for variant = 1, units < 330 and 4 or dtype == "f32" and 1 or 0 do
            local o = { units = units, go_backwards = variant % 2 == 0, use_bias = number ~= 2,
              activation = kind == "simple_rnn" and variant == 3 and "relu" or nil }
            local rtol = dtype == "f64" and 1e-11 or 1e-4
            local a, b = twins(kind, o, bp.randn(batch, steps, inputs), dtype)
            local results, x0 = {}, bp.randn(batch, steps, inputs):to(dtype)
            local h0, c0 = bp.randn(batch, units):to(dtype), bp.randn(batch, units):to(dtype)
            local wy, wh, wc = bp.randn(batch, steps, units):to(dtype), bp.randn(batch, units):to(dtype), bp.randn(batch, units):to(dtype)
            local lengths = variant > 2 and bp.randint(0, steps, batch) or nil
            for i, layer in ipairs{ a, b } do
              local x, h, c = x0:clone():requires_grad_(true), h0:clone():requires_grad_(true), c0:clone():requires_grad_(true)
              local state = number % 2 == 0 and (kind == "lstm" and { h, c } or { h }) or nil
              local y, last = layer(x, { lengths = lengths, initial_state = state })
              local total = (y * wy):sum() + (last[1] * wh):sum()
              if last[2] then total = total + (last[2] * wc):sum() end
              total:backward()
              results[i] = { y = y, h = last[1], c = last[2], dx = x.grad, dh = state and h.grad, dc = state and kind == "lstm" and c.grad }
              for name, param in layer:named_parameters() do results[i]["d" .. name] = param.grad end
            end
            for name, value in pairs(results[2]) do
              if value then close(value, results[1][name], ("%d.%d %s"):format(number, variant, name), rtol) end
            end
          end
        end
      end)
    end

    it(("of %s in f32 is what f64's plain loops give, on random shapes"):format(kind), function()
      bp.seed(21)
      local function draw(most) return bp.randint(1, most, 1):item() end
      for number = 1, 60 do
        local batch, steps, inputs, units = draw(40), draw(6), draw(30), draw(70)
        local x, dy, lengths = bp.randn(batch, steps, inputs), bp.randn(batch, steps, units), nil
        if number % 2 == 0 then lengths = bp.randint(0, steps, batch) end
        local first = nn[kind]{ units, return_sequences = true, go_backwards = number % 3 == 0 }
        first(x)
        local values, found = first:get_weights(), {}
        for _, dtype in ipairs{ "f64", "f32" } do
          local layer, leaf_x = nn[kind]{ units, return_sequences = true, go_backwards = number % 3 == 0 }, x:to(dtype):requires_grad_(true)
          layer(x)
          for name in layer:named_parameters() do layer[name] = nn.parameter(values[name]:to(dtype)) end
          local y = layer(leaf_x, { lengths = lengths })
          y:backward{ grad = dy:to(dtype) }
          local all = { y = y:detach(), dx = leaf_x.grad }
          for name, param in layer:named_parameters() do all["d" .. name] = param.grad end
          for name, value in pairs(all) do
            if dtype == "f64" then found[name] = value:to "f32" else close(found[name], value, ("%d %s"):format(number, name), 1e-5) end
          end
        end
      end
    end)

    it(("of %s has the same bits on any number of threads, and captured"):format(kind), function()
      bp.seed(6)
      local layer = nn[kind]{ 40, return_sequences = true }
      local x, lengths = leaf(37, 9, 21), bp.randint(0, 9, 37)
      layer(x)
      local function step(seed)
        local y = layer(x, { lengths = lengths })
        layer:zero_grad()
        x:zero_grad()
        y:backward{ grad = seed }
        return y:detach(), x.grad:clone(), layer.kernel.grad:clone(), layer.recurrent_kernel.grad:clone(), layer.bias.grad:clone()
      end
      local seed, before, first = bp.randn(37, 9, 40), bp.threads(), nil
      for threads = 1, 3 do
        bp.threads(threads)
        local captured = bp.capture(step)
        for _, fn in ipairs{ step, captured, captured } do
          local all = {}
          for i, t in ipairs{ fn(seed) } do all[i] = bits(t) end
          first = first or all
          assert.same(first, all)
        end
      end
      bp.threads(before)
    end)
  end

  it("stops at each sample's length", function()
    bp.seed(7)
    for _, kind in ipairs(KINDS) do
      for _, go_backwards in ipairs{ false, true } do
        local layer = nn[kind]{ 6, return_sequences = true, return_state = true, go_backwards = go_backwards }
        local x, lengths = bp.randn(3, 5, 4), bp.tensor({ 5, 2, 0 }, { dtype = "i64" })
        local y, state = layer(x, { lengths = lengths })
        if go_backwards then y = y:flip{ axes = 2 } end
        for i, n in ipairs{ 5, 2, 0 } do
          for t = n + 1, 5 do assert.equal(0, y[{ i, t }]:abs():max():item()) end
          if n > 0 then
            local alone, last = layer(x[{ { i, i }, { 1, n } }]:contiguous())
            if go_backwards then alone = alone:flip{ axes = 2 } end
            assert.equal(bits(alone[1]), bits(y[{ i, { 1, n } }]))
            assert.equal(bits(last[1][1]), bits(state[1][i]))
          else
            assert.equal(0, state[1][i]:abs():max():item())
          end
        end
      end
    end
  end)
end)

describe("lengths", function()
  it("flow from an embedding's padding to the layers behind", function()
    bp.seed(8)
    local ids = bp.tensor({ { 3, 4, 2, 1, 1 }, { 5, 2, 2, 3, 4 } }, { dtype = "i64" })
    local model = nn.sequential{ nn.embedding{ 6, 4, padding_index = 1 }, nn.dropout(0.1), nn.dense(4),
      nn.gru{ 3, return_sequences = true }, nn.bidirectional(nn.lstm(5)) }:eval()
    local y = model(ids)
    local short = model(ids[{ { 1, 1 }, { 1, 3 } }]:contiguous())
    assert.equal(bits(short[1]), bits(y[1]))
  end)

  it("flow through models of one's own and of nodes, and not where time was turned", function()
    bp.seed(8)
    local ids = bp.tensor({ { 3, 4, 2, 1, 1 }, { 5, 2, 2, 3, 4 } }, { dtype = "i64" })
    local Net = nn.module("LengthsNet", function(self)
      self.embedding, self.drop, self.rnn = nn.embedding{ 6, 4, padding_index = 1 }, nn.dropout(0.5), nn.gru(3)
    end)
    function Net:forward(x) return self.rnn(self.drop(self.embedding(x))) end
    local own, first = Net():eval(), ids[{ { 1, 1 }, { 1, 3 } }]:contiguous()
    assert.equal(bits(own(first)[1]), bits(own(ids)[1]))
    local input, embedding, dense, rnn = nn.input{ 5, dtype = "i64" }, nn.embedding{ 6, 4, padding_index = 1 }, nn.dense(3), nn.lstm(3)
    local model = nn.model{ inputs = { input }, outputs = { rnn(dense(embedding(input))) } }
    assert.equal(bits(rnn(dense(embedding(first)))[1]), bits(model(ids)[1][1]))
    local turned = nn.lstm{ 3, go_backwards = true, return_sequences = true }(nn.embedding{ 6, 4, padding_index = 1 }(ids))
    assert.is_nil(sequence.lengths(turned))
    local y = nn.gru{ 3, return_sequences = true }
    assert.equal(bits(y(turned)), bits(y(turned:detach())))
  end)

  it("flow from masking", function()
    bp.seed(9)
    local x = bp.randn(2, 4, 3)
    x[{ 1, { 3, 4 } }]:fill_(0)
    local model = nn.sequential{ nn.masking(), nn.lstm{ 5, num_layers = 2, bidirectional = true } }:eval()
    assert.equal(bits(model(x[{ { 1, 1 }, { 1, 2 } }]:contiguous())[1]), bits(model(x)[1]))
  end)

  it("may be given by hand, and end where the steps change", function()
    local x = bp.randn(2, 4, 3)
    local layer = nn.gru(3)
    local with = layer(x, { lengths = bp.tensor({ 4, 2 }, { dtype = "i32" }) })
    assert.equal(bits(layer(x)[1]), bits(with[1]))
    assert.not_equal(bits(layer(x)[2]), bits(with[2]))
    local model = nn.sequential{ nn.embedding{ 6, 4, padding_index = 1 }, nn.flatten(), nn.dense(2) }
    assert.same({ 2, 2 }, model(bp.tensor({ { 3, 1 }, { 2, 1 } }, { dtype = "i64" })):shape())
  end)
end)

describe("an embedding", function()
  it("reads rows, adds up their gradients and leaves padding alone", function()
    bp.seed(10)
    local layer = nn.embedding{ 5, 3, padding_index = 2 }
    local ids = bp.tensor({ { 1, 2, 4 }, { 4, 4, 2 } }, { dtype = "i64" })
    local y = layer(ids)
    assert.same({ 2, 3, 3 }, y:shape())
    assert.equal(bits(layer.kernel[4]:detach()), bits(y[{ 2, 1 }]:detach()))
    assert.equal(0, y[{ 1, 2 }]:abs():max():item())
    y:sum():backward()
    assert.same({ { 1, 1, 1 }, { 0, 0, 0 }, { 0, 0, 0 }, { 3, 3, 3 }, { 0, 0, 0 } }, layer.kernel.grad:totable())
    assert.is_true(nn.embedding{ 200, 50 }.kernel:abs():max():item() <= 0.05)
  end)

  it("is trained, saved and summed up", function()
    local folder = files.folder()
    local model = nn.sequential{ nn.embedding{ 9, 4 }, nn.simple_rnn(3), nn.dense(2) }
    assert.is_truthy(model:build_for(7):summary():find("[?][7][4]", 1, true))
    local ids, labels = bp.randint(1, 9, 12, 7), bp.randint(1, 2, 12)
    model:compile{ optimizer = "adam", loss = "sparse_categorical_crossentropy" }
    model:fit{ ids, labels, epochs = 2, verbose = 0 }
    assert(model:save(folder:at "m.safetensors"))
    local loaded = assert(bp.load(folder:at "m.safetensors"))
    assert.equal(bits(model:predict(ids)), bits(loaded:predict(ids)))
    folder:remove()
  end)
end)

describe("a recurrent layer", function()
  it("begins with Keras' weights: forget bias 1, orthogonal state", function()
    local layer = nn.lstm{ 3, 4 }
    assert.same({ 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0 }, layer.bias:totable())
    assert.same({ 4, 16 }, layer.recurrent_kernel:shape())
    local u = layer.recurrent_kernel:detach()
    near(bp.eye(4), u:matmul(u:permute{ axes = { 2, 1 } }), "u u^T", 1e-5, 1)
    assert.same({ 12 }, nn.gru{ 3, 4 }.recurrent_bias:shape())
    assert.is_nil(nn.gru{ 3, 4, reset_after = false }.recurrent_bias)
  end)

  it("stacks layers and directions", function()
    bp.seed(11)
    local x = bp.randn(3, 5, 4)
    local merged = { concat = 12, sum = 6, mul = 6, ave = 6 }
    for merge, width in pairs(merged) do
      local layer = nn.gru{ 6, num_layers = 2, bidirectional = true, merge = merge, return_sequences = true, return_state = true }
      local y, state = layer(x)
      assert.same({ 3, 5, width }, y:shape())
      assert.equal(4, #state)
      local again = layer(x, { initial_state = state })
      assert.not_equal(bits(y), bits(again))
    end
    local a = nn.lstm{ 4, bidirectional = true, return_sequences = true }
    a(x)
    local b = nn.bidirectional(nn.lstm{ 4, return_sequences = true })
    b(x)
    local w = a:get_weights()
    for name in b:named_parameters() do
      local from = name:gsub("^forward_layer", "layer_1"):gsub("^backward_layer", "layer_1_reverse")
      b:set_weights((function() local all = b:get_weights(); all[name] = w[from]; return all end)())
    end
    assert.equal(bits(a(x)), bits(b(x)))
  end)

  it("goes on from the state it kept, captured as well, until it is reset", function()
    for _, o in ipairs{ {}, { bidirectional = true }, { num_layers = 2 } } do
      bp.seed(12)
      local layer = nn.lstm{ 4, stateful = true, num_layers = o.num_layers, bidirectional = o.bidirectional }:eval()
      local x = bp.randn(2, 6, 3)
      local first, second = layer(x), layer(x)
      assert.not_equal(bits(first), bits(second))
      layer:reset_states()
      local step = bp.capture(function(input) return layer(input) end)
      assert.equal(bits(first), bits(step(x)))
      assert.equal(bits(second), bits(step(x)))
      layer:reset_states()
      assert.equal(bits(first), bits(step(x)))
      layer:reset_states()
      assert.same({ 5, o.bidirectional and 8 or 4 }, layer(bp.randn(5, 6, 3)):shape())
    end
    local layer, x = nn.gru{ 4, stateful = true }:eval(), bp.randn(2, 6, 3)
    local halves = { layer(x[{ {}, { 1, 2 } }]:contiguous()), layer(x[{ {}, { 3, 6 } }]:contiguous()) }
    layer:reset_states()
    assert.equal(bits(layer(x)), bits(halves[2]))
  end)

  it("drops inputs and states while training only", function()
    bp.seed(13)
    for _, kind in ipairs(KINDS) do
      local x = bp.ones(4, 5, 6)
      local layer = nn[kind]{ 7, dropout = 0.5, recurrent_dropout = 0.3 }
      assert.not_equal(bits(layer(x)), bits(layer(x)))
      layer:eval()
      assert.equal(bits(layer(x)), bits(layer(x)))
    end
  end)

  it("has second derivatives when it is not fused", function()
    bp.seed(14)
    local x = bp.randn(2, 3, 2):to "f64"
    for _, kind in ipairs(KINDS) do
      local layer = nn[kind]{ 3, fused = false }
      layer(x:to "f32")
      for name, param in layer:named_parameters() do layer[name] = nn.parameter(param:detach():to "f64") end
      local gradient = bp.grad(function(input) return layer(input):square():sum() end)
      assert.is_true(bp.checkgrad(function(input) return gradient(input):square():sum() end, x) < 1e-6)
      local fused = nn[kind]{ 2, 3 }
      local ok, message = pcall(bp.grad(function(input) return bp.grad(function(i) return fused(i):sum() end)(input):sum() end), x:to "f32")
      assert.is_false(ok)
      assert.is_truthy(message:find("fused = false", 1, true), message)
    end
  end)

  it("gives back what a cell gives step by step", function()
    bp.seed(15)
    local x = bp.randn(3, 4, 5)
    for kind, name in pairs{ rnn = "simple_rnn", gru = "gru", lstm = "lstm" } do
      local layer, cell = nn[name]{ 5, 6 }, nn[kind .. "_cell"]{ 5, 6 }
      cell:set_weights(layer:get_weights())
      local h, c
      for t = 1, 4 do
        if kind == "lstm" and h then h, c = cell(x[{ {}, t }], h, c) else h, c = cell(x[{ {}, t }], h) end
      end
      near(layer(x):detach(), h, kind, 1e-5, 1)
    end
  end)
end)

describe("every recurrent architecture", function()
  it("comes back from a file", function()
    local folder = files.folder()
    bp.seed(16)
    local x = bp.randn(3, 4, 5)
    for _, make in ipairs{
      function() return nn.lstm{ 4, num_layers = 2, bidirectional = true, return_sequences = true } end,
      function() return nn.bidirectional{ nn.gru{ 3, reset_after = false }, "sum" } end,
      function() return nn.simple_rnn{ 4, activation = "relu", go_backwards = true } end,
      function() return nn.time_distributed(nn.sequential{ nn.dense(3), nn.relu() }) end,
      function() return nn.sequential{ nn.masking(0.5), nn.lstm{ 4, activation = "sigmoid", use_bias = false } } end,
      function() return nn.sequential{ nn.flatten(), nn.repeat_vector(3), nn.gru{ 4, dropout = 0.2 } } end,
    } do
      local model = nn.sequential{ make() }
      local y = model:eval()(x)
      assert(model:save(folder:at "m.safetensors"))
      local loaded = assert(bp.load(folder:at "m.safetensors"))
      assert.equal(bits(y), bits(loaded(x)))
      assert.equal(tostring(model), tostring(loaded))
      assert.equal(model:summary(), loaded:summary())
    end
    folder:remove()
  end)
end)
