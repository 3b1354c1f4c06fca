--- Functional models: nodes, graphs with several inputs and outputs, shared layers, training and saving them, and merge layers.
local bp = require "bp"
local core = require "bp.core"
local bad = require "support.bad"
local check = require "support.check"
local files = require "support.files"
local nn = bp.nn

local function bits(t) return core.to_bytes(t:detach():contiguous()) end

-- Two inputs, a shared layer, two outputs of different kinds.
local function two_headed(named)
  bp.seed(3)
  local a, b = nn.input{ 4, name = "left" }, nn.input{ 6 }
  local shared = nn.dense{ 5, activation = "tanh" }
  local h = nn.concat()(shared(nn.dense(3)(a)), shared(nn.dense(3)(b)))
  local amount, topic = nn.dense(1)(h), nn.dense{ 3, name = "topic" }(nn.dropout(0.25)(h))
  if named then return nn.model{ inputs = { left = a, right = b }, outputs = { amount = amount, topic = topic } } end
  return nn.model{ inputs = { a, b }, outputs = { amount, topic } }
end

local function samples(n)
  bp.seed(5)
  return bp.randn(n, 4), bp.randn(n, 6), bp.randn(n, 1), bp.randint(1, 3, n)
end

describe("a functional model", function()
  it("computes what its layers compute, with one set of parameters for a shared layer", function()
    local m = two_headed():eval()
    local x1, x2 = samples(7)
    local shared = m:layer "dense_2"
    local h = bp.concat({ shared(m:layer "dense_1"(x1)), shared(m:layer "dense_3"(x2)) }, -1)
    local y = m(x1, x2)
    assert.equal(2, #y)
    assert.is_true(check.equal(y[1], m:layer "dense_4"(h)))
    assert.is_true(check.equal(y[2], m:layer "topic"(h)))
    assert.equal(10, #m:parameters())
    assert.equal(15 + 21 + 20 + 11 + 33, m:count())
    -- the shared layer's gradient is the sum over both places
    y[1]:sum():backward()
    local both = shared.kernel.grad:clone()
    local function only(first)
      for _, p in ipairs(m:parameters()) do p:zero_grad() end
      local s1, s2 = shared(m:layer "dense_1"(x1)), shared(m:layer "dense_3"(x2))
      if first then s2 = s2:detach() else s1 = s1:detach() end
      m:layer "dense_4"(bp.concat({ s1, s2 }, -1)):sum():backward()
      return shared.kernel.grad:clone()
    end
    check.near(both, only(true) + only(false), 1e-6)
  end)

  it("takes inputs one by one, in a list or by name, and gives outputs in the form of outputs", function()
    local x1, x2 = samples(4)
    local m = two_headed():eval()
    local y = m(x1, x2)
    for _, other in ipairs{ m{ x1, x2 }, m{ left = x1, input_2 = x2 } } do
      assert.is_true(check.equal(y[1], other[1]) and check.equal(y[2], other[2]))
    end
    local n = two_headed(true):eval()
    local z = n{ left = x1, right = x2 }
    assert.is_true(check.equal(y[1], z.amount) and check.equal(y[2], z.topic))
    assert.is_true(check.equal(z.topic, n(x1, x2).topic)) -- by name, in alphabetical order
    local x = nn.input(3)
    local one = nn.model{ inputs = x, outputs = nn.dense(2)(x) }
    assert.is_true(bp.is_tensor(one(bp.ones(2, 3))))
  end)

  it("tells shapes while it is put together, open dimensions too", function()
    local image = nn.input{ 28, 28, 1 }
    local maps = nn.conv2d{ 8, 3, strides = 2 }(image)
    assert.same({ -1, 13, 13, 8 }, maps:shape())
    assert.equal(8, maps:shape(-1))
    assert.equal(4, maps.ndim)
    assert.equal("f32", maps.dtype)
    assert.match("node conv2d %[%?%]%[13%]%[13%]%[8%]", tostring(maps))
    local series = nn.input{ -1, 3 }
    assert.same({ -1, -1, 2 }, nn.dense(2)(series):shape())
    assert.same({ -1, 3 }, nn.lambda(function(t) return t:sum{ axes = { 2 } } end)(series):shape())
    local m = nn.model{ inputs = series, outputs = nn.dense(2)(series) }
    assert.same({ 2, 9, 2 }, m(bp.ones(2, 9, 3)):shape())
    assert.same({ 4, 1, 2 }, m(bp.ones(4, 1, 3)):shape())
    local ids = nn.input{ dtype = "i64" }
    assert.same({ -1, 5 }, nn.lambda(function(t) return bp.one_hot(t, { classes = 5 }) end)(ids):shape())
  end)

  it("adds, subtracts and multiplies nodes with operators", function()
    local a, b = nn.input(3), nn.input(3)
    local m = nn.model{ inputs = { a, b }, outputs = { a + b, a - b, a * b, a * 2 + 1, 1 - a, -b } }
    local x, y = bp.randn(4, 3), bp.randn(4, 3)
    local z = m(x, y)
    for i, expected in ipairs{ x + y, x - y, x * y, x * 2 + 1, x * -1 + 1, y * -1 } do assert.is_true(check.equal(expected, z[i]), i) end
  end)

  it("nests: models and modules are layers", function()
    local x = nn.input(4)
    local inner = nn.model{ inputs = x, outputs = { nn.dense(3)(x), nn.dense(2)(x) } }
    local Net = nn.module("SpecTwoResults", function(self) self.one, self.two = nn.dense(2), nn.dense(1) end)
    function Net:forward(t) return self.one(t), { deep = self.two(t) } end
    local a, b = nn.input(4), nn.input(4)
    local p, q = inner(a), inner(b)
    local first, rest = Net()(nn.concat()(p[1], q[2]))
    local sequence = nn.sequential{ nn.dense(5), nn.relu() }(nn.concat()(p[2], q[1]))
    local m = nn.model{ inputs = { a, b }, outputs = { first, rest.deep, sequence } }:eval()
    local x1, x2 = bp.randn(2, 4), bp.randn(2, 4)
    local u, v = inner(x1), inner(x2)
    assert.is_true(check.equal(m(x1, x2)[3], m:layer "sequential_1"(bp.concat({ u[2], v[1] }, -1))))
    assert.same({ 2, 1 }, m(x1, x2)[2]:shape())
    local f = files.folder()
    assert(m:save(f:at "n.safetensors"))
    local loaded = assert(bp.load(f:at "n.safetensors"))
    for i = 1, 3 do assert.equal(bits(m(x1, x2)[i]), bits(loaded(x1, x2)[i])) end
    f:remove()
  end)

  it("makes a model of a part of another", function()
    local m = two_headed():eval()
    local x1, x2 = samples(3)
    local features = nn.model{ inputs = m.inputs, outputs = m:node "concat_1" }
    local tail_input = m:node "concat_1"
    local tail = nn.model{ inputs = tail_input, outputs = m.outputs[1] }
    assert.is_true(check.equal(m(x1, x2)[1], tail(features(x1, x2))))
    assert.is_true(rawequal(features:layer "dense_1", m:layer "dense_1"))
  end)

  it("shows inputs, and what each layer is called on, in its summary", function()
    local text = two_headed():summary()
    for _, line in ipairs{ "left%s+input%s+%[%?%]%[4%]", "input_2%s+input%s+%[%?%]%[6%]",
      "dense_2%s+dense%s+%[%?%]%[5%]%s+20%s+dense_1; dense_3",
      "concat_1%s+concat%s+%[%?%]%[10%]%s+0%s+dense_2, dense_2", "topic%s+dense%s+%[%?%]%[3%]%s+33%s+dropout_1", "parameters: 100" } do
      assert.match(line, text)
    end
  end)
end)

describe("training a functional model", function()
  local function compiled(named)
    local m = two_headed(named)
    return m:compile{ optimizer = bp.optim.adam{ lr = 0.01 }, loss = named and { amount = "mse", topic = "sparse_categorical_crossentropy" }
      or { "mse", "sparse_categorical_crossentropy" }, loss_weights = { 1, 0.5 }, metrics = { topic = { "accuracy" },
      [named and "amount" or "dense_4"] = "mae" } }
  end

  it("adds up the outputs' losses with their weights, and reports each", function()
    local m = compiled()
    local x1, x2, amount, topic = samples(50)
    local result = m:evaluate{ { x1, x2 }, { amount, topic }, batch_size = 16 }
    local y = m:predict{ x1, x2 }
    local mse, entropy = nn.loss.mse(y[1], amount):item(), nn.loss.cross_entropy(y[2], topic):item()
    assert.near(mse, result.dense_4_loss, 1e-5)
    assert.near(entropy, result.topic_loss, 1e-5)
    assert.near(mse + 0.5 * entropy, result.loss, 1e-5)
    assert.near((y[1] - amount):abs():mean():item(), result.dense_4_mae, 1e-5)
    assert.near(y[2]:argmax(-1):eq(topic):to("f32"):mean():item(), result.topic_accuracy, 1e-6)
  end)

  it("is the same by list and by name, captured and eager, from tensors and datasets", function()
    local x1, x2, amount, topic = samples(50)
    local function train(named, data, more)
      local m = compiled(named)
      bp.seed(9)
      more = more or {}
      more.epochs, more.verbose, more.batch_size = 3, 0, 16
      for key, value in pairs(data) do more[key] = value end
      local h = m:fit(more)
      local all = {}
      for _, p in ipairs(m:parameters()) do all[#all + 1] = bits(p) end
      return table.concat(all), h
    end
    local plain, history = train(false, { { x1, x2 }, { amount, topic } })
    assert.is_true(history.loss[3] < history.loss[1])
    assert.equal(plain, (train(true, { x = { left = x1, right = x2 }, y = { amount = amount, topic = topic } })))
    assert.equal(plain, (train(false, { { x1, x2 }, { amount, topic } }, { capture = false })))
    assert.equal(plain, (train(false, { bp.data.tensors{ x = { x1, x2 }, y = { amount, topic } } })))
    assert.equal(plain, (train(false, { { x = { left = x1, input_2 = x2 }, y = { amount, topic = topic } } })))
    local _, split = train(false, { { x1, x2 }, { amount, topic } }, { validation_split = 0.2, sample_weight = bp.ones(50) })
    assert.is_true(split.val_topic_loss[1] > 0 and split.val_dense_4_mae[1] > 0)
    local _, given = train(false, { { x1, x2 }, { amount, topic } }, { validation = { { x1, x2 }, { amount, topic } } })
    assert.near(given.val_loss[3], given.loss[3], 0.5)
  end)

  it("predicts in batches, in the form of the outputs", function()
    local x1, x2 = samples(50)
    local m = two_headed(true)
    local y = m:predict{ { left = x1, right = x2 }, batch_size = 16 }
    assert.same({ 50, 1 }, y.amount:shape())
    m:eval()
    assert.is_true(check.difference(y.topic, m(x1, x2).topic) < 1e-6)
    assert.is_true(check.equal(y.topic, m:predict{ x1, x2, batch_size = 16 }.topic))
    assert.is_true(check.equal(y.topic, m:predict{ bp.data.tensors{ x = { left = x1, right = x2 } }, batch_size = 16 }.topic))
    assert.is_true(check.equal(y.topic, m:predict{ { left = x1, right = x2 }, batch_size = 16, capture = false }.topic))
  end)

  it("comes back from a file as it was, compiled too", function()
    local f = files.folder()
    local x1, x2, amount, topic = samples(20)
    for _, named in ipairs{ false, true } do
      local m = compiled(named)
      m:layer "dense_3":freeze()
      assert(m:save(f:at "m.safetensors"))
      local loaded = assert(bp.load(f:at "m.safetensors"))
      assert.equal(tostring(m:summary()), tostring(loaded:summary()))
      assert.equal(tostring(m), tostring(loaded))
      assert(loaded:save(f:at "again.safetensors"))
      assert.equal(core.read_file(f:at "m.safetensors"), core.read_file(f:at "again.safetensors"))
      local results = {}
      for i, one in ipairs{ m, loaded } do
        bp.seed(4)
        one:fit{ { x1, x2 }, named and { amount = amount, topic = topic } or { amount, topic }, epochs = 2, verbose = 0 }
        results[i] = tostring(one:evaluate{ { x1, x2 }, named and { amount = amount, topic = topic } or { amount, topic } })
      end
      assert.equal(results[1], results[2])
      assert.match("topic_accuracy", results[1])
    end
    f:remove()
  end)

  it("refuses a file whose graph makes no sense", function()
    local f = files.folder()
    local m = two_headed()
    assert(m:save(f:at "m.safetensors"))
    local tensors, metadata = core.safetensors_load(f:at "m.safetensors")
    local function with(change)
      local config = bp.json.decode(metadata["bplua.model"])
      change(config.model.graph)
      core.safetensors_save(f:at "bad.safetensors", tensors, { ["bplua.model"] = bp.json.encode(config) })
      return bp.load(f:at "bad.safetensors")
    end
    bad.refuses("eformat", function()
      return with(function(g) g.calls[1].arguments[1] = { node = { 5, 1 } } end)
    end, "uses a value before it is computed", "a cycle?")
    bad.refuses("eformat", function() return with(function(g) g.calls[2].layer = 77 end) end, "its graph calls layer 77", "it has 7")
    bad.refuses("eformat", function() return with(function(g) g.inputs[1].shape = { 7 } end) end, "dense_1", "[4][3]")
    f:remove()
  end)
end)

describe("a functional model refuses", function()
  local a, b = nn.input{ 3, name = "a" }, nn.input(4)
  local x1, x2 = bp.ones(2, 3), bp.ones(2, 4)
  local h = nn.concat()(a, b)
  local net = nn.model{ inputs = { a, b }, outputs = { nn.dense(2)(h), nn.dense(1)(h) } }
  local function fresh() return nn.model{ inputs = { a, b }, outputs = { nn.dense(2)(h), nn.dense(1)(h) } } end
  bad.cases{
    { "no inputs", function() nn.model{ outputs = h } end, "model: option 'inputs' is missing", "a node, a list of nodes" },
    { "layers for nodes", function() nn.model{ inputs = a, outputs = nn.dense(1) } end, "outputs is a dense",
      "expected a node, as nn.input{...} and layers called on nodes give" },
    { "a tensor for a node", function() nn.model{ inputs = { a, x1 }, outputs = h } end, "inputs[2] is a tensor f32 [2][3]",
      "expected a node" },
    { "an output of an input that is not there", function() nn.model{ inputs = b, outputs = h } end,
      "output 1 depends on the input 'a' (node a [?][3]), which is not among the inputs", "add it" },
    { "an input that leads nowhere", function() nn.model{ inputs = { a, b }, outputs = { y = nn.dense(1)(b) } } end,
      "no output depends on the input 'a'", "connect it, or leave it out" },
    { "an input twice", function() nn.model{ inputs = { a, a }, outputs = nn.dense(1)(a) } end, "'a' is an input twice", "model" },
    { "two layers of one name", function()
      local y = nn.dense{ 2, name = "same" }(nn.dense{ 2, name = "same" }(a))
      nn.model{ inputs = a, outputs = y }
    end, "layers 1 and 2 are both called 'same'", "model" },
    { "shapes that do not fit, while put together", function() nn.add()(nn.dense(5)(a), b) end, "add(dense [?][5], input_2 [?][4])",
      "shapes [1x5] and [1x4] do not fit together" },
    { "an image that is too small, while put together", function() nn.conv2d{ 2, 5 }(nn.input{ 4, 4, 1 }) end, "conv2d(input [?][4][4][1])",
      "a window of 5x5 does not fit" },
    { "a tensor of another width", function() net(x1, bp.ones(2, 5)) end, "model: input 'input_2' is [2][5]", "expected [?][4]" },
    { "one input of two", function() net(x1) end, "called with 1 inputs", "expected 2: a, input_2" },
    { "an input left out", function() net{ a = x1 } end, "the input 'input_2' is missing", "expected a, input_2" },
    { "an input that there is not", function() net{ a = x1, input_2 = x2, c = x2 } end, "model: there is no input 'c'",
      "did you mean 'a'?" },
    { "what is no tensor", function() net(x1, 3) end, "input 'input_2' is a number (3)", "expected a tensor [?][4]" },
    { "a tensor's method on a node", function() a:reshape(3) end, "a node has no 'reshape'", "apply a layer to it" },
    { "indexing a node", function() local _ = a[1] end, "a node has no '1'", "apply a layer to it" },
    { "a node and a string", function() local _ = a + "x" end, 'add: a node and a string ("x")',
      "expected two nodes, or a node and a number" },
    { "an input of no size", function() nn.input{ 0 } end, "a dimension is 0", "-1 for any" },
    { "an input of text", function() nn.input "28" end, "input: option 'shape'", "whole numbers" },
    { "an unknown dtype", function() nn.input{ 3, dtype = "f31" } end, "option 'dtype' is \"f31\" (did you mean 'f32'?)",
      "expected one of" },
    { "a layer by a wrong name", function() net:node "dense_9" end, "there is no layer 'dense_9'", "did you mean 'dense_1'?" },
    { "a loss for one output of two", function() fresh():compile{ loss = { "mse" } } end, "there is no loss for the output 'dense_2'",
      "expected one for each" },
    { "a loss for an output that there is not", function() fresh():compile{ loss = { dense_1 = "mse", dense_3 = "mse" } } end,
      "loss has 'dense_3'", "did you mean 'dense_1'?" },
    { "weights of text", function() fresh():compile{ loss = "mse", loss_weights = { 1, "2" } } end,
      "the loss weight of 'dense_2' is a string (\"2\")", "expected a number at least 0" },
    { "weights for one output", function() nn.sequential{ nn.dense(1) }:compile{ loss = "mse", loss_weights = { 1 } } end,
      "loss_weights are for models with several outputs", "nn.model" },
    { "metrics for an output that there is not", function() fresh():compile{ loss = "mse", metrics = { dense = { "mae" } } } end,
      "metrics has 'dense'", "did you mean" },
    { "one target for two outputs", function() fresh():compile{ loss = "mse" }:evaluate{ { x1, x2 }, bp.ones(2, 2) } end,
      "the targets are one tensor for 2 outputs", "dense_1, dense_2" },
    { "a target left out", function() fresh():compile{ loss = "mse" }:evaluate{ { x1, x2 }, { bp.ones(2, 2) } } end,
      "the targets have nothing for the output 'dense_2'", "expected dense_1, dense_2" },
    { "a target for nobody", function()
      fresh():compile{ loss = "mse" }:evaluate{ { x1, x2 }, { bp.ones(2, 2), bp.ones(2, 1), extra = bp.ones(2) } }
    end, "the target has 'extra'", "no such output" },
    { "inputs of different lengths", function() fresh():compile{ loss = "mse" }:fit{ { x1, bp.ones(3, 4) }, { x1, x1 }, verbose = 0 } end,
      "fit: x.2 has 3 samples", "expected 2, as many as the others" },
    { "a tensor among nodes, saved", function()
      local y = nn.add()(a, bp.ones(3))
      nn.model{ inputs = a, outputs = y }:save "/dev/null"
    end, "an argument of a layer is a tensor f32 [3]", "which a file cannot hold" },
  }
end)

describe("merge layers", function()
  local x, y, z = bp.randn(4, 3), bp.randn(4, 3), bp.randn(4, 3)
  it("compute what their names say, of inputs one by one or in a list", function()
    local expected = { add = x + y + z, multiply = x * y * z, average = (x + y + z) / 3, maximum = x:maximum(y):maximum(z),
      minimum = x:minimum(y):minimum(z), concat = bp.concat({ x, y, z }, 2) }
    for name, value in pairs(expected) do
      assert.is_true(check.equal(value, nn[name]()(x, y, z)), name)
      assert.is_true(check.equal(value, nn[name](){ x, y, z }), name)
    end
    assert.is_true(check.equal(x - y, nn.subtract()(x, y)))
    assert.same({ 12, 3 }, nn.concat(1)(x, y, z):shape())
  end)

  it("dot sums over a dimension of each", function()
    check.near((x * y):sum{ axes = { 2 }, keepdims = true }, nn.dot()(x, y))
    local a, b = bp.randn(2, 3, 4, 5), bp.randn(2, 4, 6)
    local r = nn.dot{ axes = { 3, 2 } }(a, b)
    assert.same({ 2, 3, 5, 6 }, r:shape())
    local sum = bp.zeros(2, 3, 5, 6)
    for k = 1, 4 do sum = sum + a[{ {}, {}, k }]:unsqueeze(-1) * b[{ {}, k }]:reshape(2, 1, 1, 6) end
    check.near(sum, r, 1e-6)
    local cosine = nn.dot{ normalize = true }(x, x)
    check.near(bp.ones(4, 1), cosine, 1e-6)
  end)

  bad.cases{
    { "one input", function() nn.add()(x) end, "add 'add': it has 1 input", "expected at least 2: nn.add()(a, b)" },
    { "a number", function() nn.multiply()(x, 3) end, "input 2 is a number (3)", "expected a tensor" },
    { "three to subtract", function() nn.subtract()(x, y, z) end, "it has 3 inputs", "expected 2" },
    { "the batch as axis of a dot", function() nn.dot{ axes = 1 }(x, y) end, "axes[1] is 1", "dimensions 2 to 2 can be summed over" },
    { "a dot of other sizes", function() nn.dot()(x, bp.ones(4, 5)) end, "the inputs are [4][3] and [4][5]",
      "as many elements in dimension -1 of the first" },
    { "an unknown option", function() nn.concat{ axes = 1 } end, "unknown option 'axes'", "did you mean 'axis'?" },
    { "a model without its batch", function() nn.average()(x, bp.ones(2, 7)) end, "shapes [4x3] and [2x7]", "do not fit together" },
  }
end)
