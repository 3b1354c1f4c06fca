--- Preprocessing layers, and what regularisers and constraints do in training.
local bp = require "bp"
local core = require "bp.core"
local bad = require "support.bad"
local check = require "support.check"
local files = require "support.files"
local nn, data = bp.nn, bp.data

local function bits(t) return core.to_bytes(t:detach():contiguous()) end

describe("normalization", function()
  local x = bp.randn(60, 3) * 4 + bp.tensor{ 1, 20, -5 }

  it("gives what it was adapted to mean 0 and variance 1", function()
    local layer = nn.normalization()
    assert.is_false(layer:adapted())
    layer:adapt(x)
    assert.is_true(layer:adapted())
    local y = layer(x)
    check.near(bp.zeros(3), y:mean(1), 1e-5)
    check.near(bp.ones(3), y:square():mean(1), 1e-5)
    check.near(x:mean(1), layer.mean, 1e-5)
    assert.equal(60, layer.samples:item())
    local images = bp.randn(8, 5, 6, 2) * 3 + 1
    check.near(bp.zeros(2), nn.normalization():adapt(images)(images):mean{ axes = { 1, 2, 3 } }, 1e-5)
    local rows = nn.normalization(2):adapt(images)
    check.near(bp.zeros(5), rows(images):mean{ axes = { 1, 3, 4 } }, 1e-5)
    assert.same({ 1 }, nn.normalization("none"):adapt(images).mean:shape())
    local bytes = bp.randint(0, 255, 50, 4):to "u8"
    check.near(bp.zeros(4), nn.normalization():adapt(data.tensors{ bytes })(bytes):mean(1), 1e-5)
  end)

  it("is measured batch by batch as if at once, far from 0 too", function()
    local far = bp.randn{ 3000, 2, dtype = "f64" } * 0.01 + 1000
    local layer = nn.normalization():adapt(far)
    check.near(((far - far:mean(1)):square():mean(1)):to "f32", layer.variance, 1e-9)
  end)

  it("takes known means and variances", function()
    local layer = nn.normalization{ mean = { 1, 20, -5 }, variance = 16 }
    check.near((x - bp.tensor{ 1, 20, -5 }) / 4, layer(x), 1e-6)
    assert.is_true(layer:adapted())
  end)

  it("is adapted by fit on the training part alone, once, and to what reaches it", function()
    local samples = data.tensors{ x, x:sum{ axes = { 2 } } }
    local train, validation = samples:split{ 40, 20, shuffle = false }
    local function fitted(model, given)
      model:compile{ loss = "mse", optimizer = bp.optim.sgd{ lr = 0 } }
      given.verbose, given.epochs = 0, 1
      model:fit(given)
      return model
    end
    local model = fitted(nn.sequential{ nn.normalization(), nn.dense(1) }, { train, validation = validation })
    check.near(train.x:mean(1), model:layer(1).mean, 1e-5)
    assert.equal(40, model:layer(1).samples:item())
    fitted(model, { validation })
    assert.equal(40, model:layer(1).samples:item())
    local held = fitted(nn.sequential{ nn.normalization(), nn.dense(1) }, { samples, validation_split = 0.25 })
    assert.equal(45, held:layer(1).samples:item())
    local inner = fitted(nn.sequential{ nn.rescaling(2), nn.sequential{ nn.normalization{ name = "n" } }, nn.dense(1) }, { train })
    check.near(train.x:mean(1) * 2, inner:layer(2):layer "n".mean, 1e-5)
    local a, b = nn.input(3), nn.input(3)
    local graph = nn.model{ inputs = { a, b }, outputs = nn.dense(1)(nn.normalization()(nn.concat()(a, b))) }
    fitted(graph, { { x, x * 2 }, samples.y })
    check.near(bp.concat({ x:mean(1), x:mean(1) * 2 }, 1), graph:layer "normalization_1".mean, 1e-5)
  end)

  it("is saved with the model, and not adapted again", function()
    local f = files.folder()
    local model = nn.sequential{ nn.normalization(), nn.dense(2) }
    model:layer(1):adapt(x)
    model(x)
    assert(model:save(f:at "m.safetensors"))
    local loaded = assert(bp.load(f:at "m.safetensors"))
    assert.is_true(loaded:layer(1):adapted())
    assert.equal(bits(model:predict(x)), bits(loaded:predict(x)))
    loaded:compile{ loss = "mse" }:fit{ x * 100, x[{ {}, { 1, 2 } }], epochs = 1, verbose = 0 }
    assert.equal(bits(model:layer(1).mean), bits(loaded:layer(1).mean))
    f:remove()
  end)

  it("gives the same bits captured and eager", function()
    local results = {}
    for i, capture in ipairs{ true, false } do
      bp.seed(8)
      local model = nn.sequential{ nn.normalization(), nn.dense(2) }
      model:compile{ loss = "mse", optimizer = "adam" }:fit{ x, x[{ {}, { 1, 2 } }], epochs = 3, verbose = 0, capture = capture }
      results[i] = bits(model:predict{ x, capture = capture })
    end
    assert.equal(results[1], results[2])
  end)
end)

describe("labels as layers", function()
  it("are one row each, one row for all, or made of numbers", function()
    local labels = bp.tensor({ 1, 3, 2 }, { dtype = "i64" })
    assert.same({ { 1, 0, 0 }, { 0, 0, 1 }, { 0, 1, 0 } }, nn.one_hot(3)(labels):totable())
    assert.same({ { 1, 0, 0 }, { 0, 0, 1 }, { 0, 1, 0 } }, nn.one_hot(3)(labels:reshape(3, 1)):totable())
    local many = bp.tensor({ { 1, 1, 3 }, { 2, 2, 2 } }, { dtype = "i64" })
    assert.same({ { 1, 0, 1 }, { 0, 1, 0 } }, nn.category_encoding(3)(many):totable())
    assert.same({ { 2, 0, 1 }, { 0, 3, 0 } }, nn.category_encoding{ 3, "count" }(many):totable())
    local bins = nn.discretization{ 0, 10 }
    assert.same({ 1, 2, 2, 3, 3 }, bins(bp.tensor{ -1, 0, 9.5, 10, 1e9 }):totable())
    assert.same({ { 0, 1, 0 } }, nn.sequential{ bins, nn.one_hot(3) }(bp.tensor{ 5 }):totable())
  end)

  it("stand in models and their files", function()
    local f = files.folder()
    local age, place = nn.input{ 1 }, nn.input{ dtype = "i64", name = "place" }
    local bins = nn.one_hot(3)(nn.discretization{ 18, 65 }(age))
    local model = nn.model{ inputs = { age, place }, outputs = nn.dense(2)(nn.concat()(bins, nn.one_hot(4)(place))) }:eval()
    local x, y = bp.tensor{ { 3 }, { 30 } }, bp.tensor({ 4, 1 }, { dtype = "i64" })
    assert(model:save(f:at "m.safetensors"))
    local loaded = assert(bp.load(f:at "m.safetensors"))
    assert.equal(bits(model(x, y)), bits(loaded(x, y)))
    assert.equal(bits(model(x, y)), bits(loaded:predict{ x, y }))
    f:remove()
  end)
end)

describe("regularisers", function()
  local x, y = bp.randn(32, 4), bp.randn(32, 3)

  it("add to the loss of fit and evaluate; biases and norms are left out unless asked for", function()
    local function loss(options)
      bp.seed(4)
      options.units, options.bias_init = 3, 0.5
      local model = nn.sequential{ nn.batch_norm(), nn.dense(options) }
      model(x)
      model:compile{ loss = "mse" }
      return model:evaluate{ x, y, batch_size = 32 }.loss, model
    end
    local plain, model = loss{}
    local kernel, result = model:layer(2).kernel, model:predict(x)
    local cases = {
      { { l1 = 0.1 }, kernel:abs():sum() * 0.1 }, { { l2 = 0.1 }, kernel:square():sum() * 0.1 },
      { { l1 = 0.1, l2 = 0.2 }, kernel:abs():sum() * 0.1 + kernel:square():sum() * 0.2 },
      { { bias_l1 = 0.1, bias_l2 = 0.2 }, bp.tensor(3 * 0.5 * 0.1 + 3 * 0.25 * 0.2) },
      { { activity_l1 = 0.1 }, result:abs():sum() * (0.1 / 32) }, { { activity_l2 = 0.1 }, result:square():sum() * (0.1 / 32) },
    }
    for i, case in ipairs(cases) do assert.near(plain + case[2]:item(), (loss(case[1])), 1e-4, "case " .. i) end
  end)

  it("act on training: smaller results, shorter weights, the same bits captured and eager", function()
    local function trained(options, capture)
      bp.seed(4)
      options.units = 16
      local model = nn.sequential{ nn.dense(options), nn.relu(), nn.dense(3) }
      model:compile{ loss = "mse", optimizer = bp.optim.adam{ lr = 0.05 } }
      model:fit{ x, y, epochs = 20, verbose = 0, capture = capture }
      return model
    end
    local plain = trained({}, true)
    local small = trained({ activity_l2 = 0.05 }, true)
    assert.is_true(small:layer(1)(x):square():mean():item() < 0.5 * plain:layer(1)(x):square():mean():item())
    local short = trained({ max_norm = 0.3 }, true)
    local function longest(model) return model:layer(1).kernel:square():sum(1):sqrt():max():item() end
    assert.is_true(longest(plain) > 0.5)
    assert.near(0.3, longest(short), 1e-6)
    for _, options in ipairs{ { activity_l2 = 0.05 }, { max_norm = 0.3, bias_l2 = 0.1 } } do
      assert.equal(bits(trained(options, true):predict(x)), bits(trained(options, false):predict(x)))
    end
  end)

  it("know the outputs of a depthwise kernel", function()
    local layer = nn.separable_conv2d{ 3, 3, depth_multiplier = 2, max_norm = 0.2 }
    layer(bp.randn(1, 5, 5, 4))
    layer:constrain()
    assert.is_true((layer.kernel:square():sum{ axes = { 1, 2 } }:sqrt():max():item()) <= 0.2 + 1e-6)
    assert.is_true((layer.pointwise_kernel:square():sum{ axes = { 1, 2, 3 } }:sqrt():max():item()) <= 0.2 + 1e-6)
  end)
end)

describe("these refuse", function()
  local x = bp.ones(4, 3)
  bad.cases{
    { "the batch as axis", function() nn.normalization(1) end, "option 'axis' is 1, the batch", "expected another dimension" },
    { "an axis that is not there", function() nn.normalization(3)(x) end, "axis is 3; the input is [4][3]",
      "dimensions 2 to 2 can have means" },
    { "an axis by name", function() nn.normalization "last" end, 'option \'axis\' is "last"', '"none"' },
    { "a mean without variance", function() nn.normalization{ mean = 3 } end, "one of mean and variance is given",
      "expected both or none" },
    { "means for another width", function() nn.normalization{ mean = { 1, 2 }, variance = 1 }(x) end, "option 'mean' has the shape [2]",
      "expected [3]" },
    { "adapting to text", function() nn.normalization():adapt "x" end, 'adapt: the data is a string ("x")',
      "expected a dataset, { x, y } or tensors" },
    { "adapting to nothing", function() nn.normalization():adapt(bp.zeros(0, 3)) end, "there are no samples", "first dimension of x is 0" },
    { "labels of fractions", function() nn.one_hot(3)(x) end, "one_hot 'one_hot': the input is f32", "x:to 'i64'" },
    { "a label above the classes", function() nn.one_hot(2)(bp.tensor({ 3 }, { dtype = "i64" })) end, "one_hot", "3", "1..2" },
    { "no classes", function() nn.one_hot(0) end, "option 'classes' is a number (0)", "at least 1" },
    { "one label for many", function() nn.category_encoding(3)(bp.tensor({ 1 }, { dtype = "i64" })) end, "the input is [1]",
      "expected [batch][labels]" },
    { "an unknown mode", function() nn.category_encoding{ 3, "counts" } end, 'option \'mode\' is "counts" (did you mean \'count\'?)',
      "expected one of" },
    { "no boundaries", function() nn.discretization{} end, "option 'boundaries' is missing", "ascending" },
    { "boundaries that go down", function() nn.discretization{ 3, 1 } end, "boundary 2 is 1, not above 3", "expected ascending numbers" },
    { "a boundary of text", function() nn.discretization{ 3, "4" } end, 'boundary 2 is a string ("4")', "expected a number" },
    { "a length of 0", function() nn.dense{ 3, max_norm = 0 } end, "option 'max_norm' is a number (0)", "above 0" },
    { "a negative penalty of results", function() nn.dense{ 3, activity_l2 = -1 } end, "option 'activity_l2' is a number (-1)",
      "at least 0" },
  }
end)
