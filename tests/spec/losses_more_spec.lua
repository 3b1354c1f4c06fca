--- Losses beyond the first six: gradients in f64, misuse, sequences of weights, ctc against a sum over all paths, losses written in Lua.
--- Values are compared with PyTorch and Keras in vectors_losses_more.
local bp = require "bp"
local bad = require "support.bad"
local check = require "support.check"
local nn, loss, near, fails = bp.nn, bp.nn.loss, check.near, check.fails

local function labels(...) return bp.tensor({ ... }, { dtype = "i64" }) end

describe("gradients of", function()
  bp.seed(5)
  local x, y, t = bp.randn{ 4, 3, dtype = "f64" }, bp.rand{ 4, 3, dtype = "f64" } + 0.1, bp.rand{ 4, 3, dtype = "f64" } + 0.2
  local yes, hot = bp.tensor{ { 0, 1, 1 }, { 1, 0, 0 }, { 0, 0, 1 }, { 1, 1, 0 } }, bp.one_hot(labels(1, 3, 2, 2), { classes = 3 })
  local some = labels(1, 7, 2, 7)
  local cases = {
    mape = { x, t }, msle = { y, t }, log_cosh = { x, t }, poisson = { y, t }, cosine_similarity = { x, t }, hinge = { x, yes },
    squared_hinge = { x, yes }, categorical_hinge = { x, hot }, kl_divergence = { y / 2, t / 2 }, dice = { x, yes },
    binary_focal_crossentropy = { x, yes, { gamma = 1.5, apply_class_balancing = true, label_smoothing = 0.1 } },
    categorical_focal_crossentropy = { x, hot, { label_smoothing = 0.1 } },
    sparse_categorical_focal_crossentropy = { x, some, { ignore_index = 7 } },
    sparse_categorical_crossentropy = { x, some, { ignore_index = 7, label_smoothing = 0.1, class_weights = { 1, 2, 3 } } },
  }
  for name, case in pairs(cases) do
    it(name, function()
      for _, reduction in ipairs{ "mean", "weighted_mean", "sum" } do
        local o = { reduction = reduction, weights = { 1, 2, 0.5, 3 } }
        for key, value in pairs(case[3] or {}) do o[key] = value end
        local made = loss[name](o)
        local worst, where = bp.checkgrad(function(p) return made(p, case[2]) end, case[1])
        assert.is_true(worst < 1e-6, where)
      end
    end)
  end

  it("triplet, in all three tensors", function()
    local z = bp.randn{ 4, 3, dtype = "f64" }
    for _, o in ipairs{ {}, { p = 1 }, { p = 3, swap = true, margin = 2 } } do
      local worst, where = bp.checkgrad(function(v) return loss.triplet(v[1], v[2], v[3], o) end, { x, t, z })
      assert.is_true(worst < 1e-6, where)
    end
  end)
end)

describe("weights and ignored labels", function()
  local x = bp.randn(2, 3, 4)
  local y = bp.tensor({ { 1, 9, 3 }, { 9, 2, 9 } }, { dtype = "i64" })
  local each = loss.cross_entropy{ reduction = "none" }
  local rows = each(x:reshape(6, 4), bp.tensor({ 1, 1, 3, 1, 2, 1 }, { dtype = "i64" }))
  local known = bp.tensor{ 1, 0, 1, 0, 1, 0 }

  it("average over what counts, over the batch and in each sample", function()
    near(loss.cross_entropy(x, y, { ignore_index = 9 }), (rows * known):sum() / 3, 1e-6)
    near(loss.cross_entropy(x, y, { ignore_index = 9, reduction = "none" }), bp.tensor{ (rows[1] + rows[3]):item() / 2, rows[5]:item() },
      1e-6)
    near(loss.cross_entropy(x, bp.ones(2, 3, { dtype = "i64" }) * 9, { ignore_index = 9 }), bp.tensor(0))
    near(loss.cross_entropy(x:softmax(), y, { ignore_index = 9, from_logits = false }), (rows * known):sum() / 3, 1e-5)
  end)

  it("may differ from step to step of a sequence", function()
    local w = bp.tensor{ { 1, 2, 3 }, { 4, 5, 6 } }
    local p, t = bp.randn(2, 3, 4), bp.randn(2, 3, 4)
    near(loss.mse(p, t, { weights = w }), ((p - t):square():mean{ axes = 3 } * w):mean(), 1e-6)
    near(loss.mse(p, t, { weights = w, reduction = "weighted_mean" }), ((p - t):square():mean{ axes = 3 } * w):sum() / 21, 1e-6)
    fails("the sample weights are [3][2] for a batch of 2; expected one number per sample, or [2][3][4]", loss.mse, p, t,
      { weights = bp.ones(3, 2) })
  end)

  it("leave a label that is not declared ignored an error", function()
    fails("label -100 in row 1 lies outside 1..4", loss.cross_entropy, bp.randn(2, 4), labels(-100, 1))
  end)
end)

-- -log of the sum over every path of `time` classes that collapses to the label; the blank is 1.
local function over_all_paths(logits, label)
  local time, classes = logits:shape(1), logits:shape(2)
  local logs, total = logits:log_softmax():totable(), 0
  local path = {}
  local function walk(t, sum)
    if t > time then
      local collapsed = {}
      for i, c in ipairs(path) do
        if c ~= 1 and c ~= path[i - 1] then collapsed[#collapsed + 1] = c end
      end
      if table.concat(collapsed, ",") == table.concat(label, ",") then total = total + math.exp(sum) end
      return
    end
    for c = 1, classes do
      path[t] = c
      walk(t + 1, sum + logs[t][c])
    end
  end
  walk(1, 0)
  return -math.log(total)
end

describe("ctc", function()
  bp.seed(6)
  it("is the sum over all paths", function()
    for _, label in ipairs{ {}, { 2 }, { 2, 3 }, { 2, 2 }, { 3, 2, 3 }, { 3, 3, 2 } } do
      local x = bp.randn{ 1, 5, 3, dtype = "f64" }
      local padded = bp.tensor({ { label[1] or 1, label[2] or 1, label[3] or 0 } }, { dtype = "i64" })
      assert.near(over_all_paths(x[1], label), loss.ctc(x, padded):item(), 1e-10)
    end
  end)

  it("keeps its digits in f32 over long sequences", function()
    local x, y = bp.randn{ 2, 700, 30, dtype = "f64" } * 3, bp.randint(2, 30, { 2, 150 })
    local a, b = x:clone():requires_grad_(), x:to("f32"):requires_grad_()
    loss.ctc(a, y):backward()
    loss.ctc(b, y):backward()
    near(loss.ctc(b, y), loss.ctc(a, y), 1e-5)
    near(b.grad, a.grad, 1e-4)
    assert.is_true((b.grad:sum{ axes = 3 }):abs():max():item() < 1e-4)
  end)

  it("has the same bits for any number of threads, eager and captured", function()
    local before, y = bp.threads(), bp.randint(2, 6, { 9, 4 })
    local x = bp.randn(9, 30, 6)
    local function gradient(v)
      local value = loss.ctc(v, y)
      return value, bp.grad(function(u) return loss.ctc(u, y) end)(v)
    end
    local seen
    for _, threads in ipairs{ 1, 2, 5 } do
      bp.threads(threads)
      for _, fn in ipairs{ gradient, bp.capture(gradient) } do
        fn(x)
        local value, dx = fn(x)
        seen = seen or { value:item(), dx }
        assert.equal(seen[1], value:item())
        assert.is_true(check.equal(seen[2], dx))
      end
    end
    bp.threads(before)
  end)

  it("hands on NaN and passes over impossible sequences when told", function()
    local x = bp.randn(2, 3, 4)
    local y = bp.tensor({ { 2, 2, 2 }, { 2, 3, 1 } }, { dtype = "i64" })
    local leaf = x:clone():requires_grad_()
    local value = loss.ctc(leaf, y, { zero_infinity = true, reduction = "none" })
    assert.equal(0, value[1]:item())
    assert.is_true(value[2]:item() > 0)
    value:sum():backward()
    assert.equal(0, leaf.grad[1]:abs():sum():item())
    local nan = x:clone()
    nan[{ 2, 2, 2 }] = 0 / 0
    nan:requires_grad_()
    value = loss.ctc(nan, y, { zero_infinity = true, reduction = "none" })
    assert.is_true(value[2]:item() ~= value[2]:item())
    value:sum():backward()
    assert.is_true(nan.grad[{ 2, 1, 1 }]:item() ~= nan.grad[{ 2, 1, 1 }]:item())
  end)

  it("trains: a recurrence-free net learns to write two labels", function()
    local x, y = bp.randn(2, 8, 5), bp.tensor({ { 2, 3, 2 }, { 3, 1, 1 } }, { dtype = "i64" })
    local net = nn.sequential{ nn.dense{ 16, activation = "tanh" }, nn.dense(3) }
    net:compile{ optimizer = bp.optim.adam{ lr = 0.05 }, loss = "ctc" }
    local history = net:fit{ x, y, epochs = 60, batch_size = 2, verbose = 0 }
    assert.is_true(history.loss[60] < 0.1, history.loss[60])
  end)

  local x, y = bp.randn(2, 3, 4), bp.tensor({ { 2, 2, 2 }, { 2, 3, 4 } }, { dtype = "i64" })
  bad.cases{
    { "a label longer than its frames", function() loss.ctc(x, y) end, "sequence 1 has 3 frames for 3 labels, which need at least 5",
      "zero_infinity = true" },
    { "labels of numbers", function() loss.ctc(x, bp.ones(2, 3)) end, "the labels are f32 [2][3]", "expected rows of whole numbers" },
    { "labels of other sequences", function() loss.ctc(x, y[{ { 1, 1 } }]) end, "logits are [2x3x4] and labels [1x3]",
      "labels [2][longest] are expected" },
    { "a class that there is not", function() loss.ctc(x, y + 2, { zero_infinity = true }) end, "label 2 of sequence 2 is 5",
      "a class 1..4 other than the blank (1) is expected" },
    { "a blank inside a label of known length", function() loss.ctc(x, y, { blank = 3, label_lengths = { 1, 3 } }) end,
      "label 2 of sequence 2 is 3", "other than the blank (3)" },
    { "more frames than there are", function() loss.ctc(x, y, { input_lengths = { 3, 4 } }) end,
      "'input_lengths' of sequence 2 is 4; 0..3 is expected", "the frames there are" },
    { "lengths of other sequences", function() loss.ctc(x, y, { label_lengths = { 1 } }) end, "'label_lengths' is i64 [1]", "[2]" },
    { "a blank outside the classes", function() loss.ctc(x, y, { blank = 5 }) end, "blank is 5", "1..4" },
    { "rows for sequences", function() loss.ctc(bp.randn(3, 4), y) end, "'logits' has shape [3x4]", "[batch][time][classes]" },
  }
end)

describe("a loss written in Lua", function()
  -- A tilted absolute value: quantile q of the target.
  local quantile = loss.define("spec_quantile", function(prediction, target, o)
    local e = target - prediction
    return bp.ops.maximum(e * o.q, e * (o.q - 1))
  end, { { "q", "number", min = 0, max = 1, default = 0.5, named = true, help = "the quantile" } })
  local x, t = bp.randn(6, 2), bp.randn(6, 2)

  it("has reductions, weights and options as the built-in ones", function()
    local each = (t - x):abs() * 0.5
    near(quantile(x, t), each:mean(), 1e-6)
    near(loss.spec_quantile(x, t, { reduction = "none" }), each:mean{ axes = 2 }, 1e-6)
    local w = bp.tensor{ 1, 2, 3, 4, 5, 6 }
    near(quantile{ weights = w, reduction = "weighted_mean" }(x, t), (each:mean{ axes = 2 } * w):sum() / 21, 1e-6)
    fails("loss.spec_quantile: option 'q' is a number (2)", quantile, { q = 2 })
    fails("loss.spec_quantile: unknown option 'qq'", quantile, { qq = 2 })
  end)

  it("trains like a built-in one, by name, by value and as a bare function, captured or not", function()
    loss.define("spec_mse", function(p, y) return (p - y):square() end)
    local seen
    for _, what in ipairs{ "mse", "spec_mse", loss.spec_mse, function(p, y) return (p - y):square() end } do
      for _, captured in ipairs{ true, false } do
        bp.seed(8)
        local net = nn.sequential{ nn.dense(2) }
        net:compile{ optimizer = bp.optim.sgd(0.1), loss = what }
        local w = bp.tensor{ 1, 2, 3, 4, 5, 6 }
        local h = net:fit{ x, t, sample_weight = w, epochs = 3, batch_size = 4, verbose = 0, capture = captured }
        seen = seen or h.loss[3]
        assert.equal(seen, h.loss[3])
      end
    end
  end)

  it("is saved by its name", function()
    local path = os.tmpname()
    local net = nn.sequential{ nn.dense(2) }
    net:compile{ loss = quantile{ q = 0.25 } }
    net(x)
    assert(net:save(path))
    local again = assert(bp.load(path))
    assert.equal(net:evaluate{ x, t }.loss, again:evaluate{ x, t }.loss)
    os.remove(path)
  end)

  bad.cases{
    { "a name that is taken", function() loss.define("mse", function() end) end, "'mse' is a loss of bp", "choose another name" },
    { "the name of a function", function() loss.define("get", function() end) end, "'get' is a loss of bp", "choose another name" },
    { "no function", function() loss.define("x", 3) end, "the second value is a number (3)", "expected a function" },
    { "no name", function() loss.define(3, print) end, "the name is a number (3)", "expected a word" },
    { "a function that returns a number of Lua", function() loss.get("t", function() return 3 end)(x, t) end,
      "the function returned a number (3)", "expected a tensor" },
    { "weights on one number", function() loss.get("t", function(p) return p:sum() end)(x, t, bp.ones(6)) end,
      "returned one number, which cannot be weighted", "return one per sample" },
  }
end)

describe("losses refuse", function()
  local x = bp.randn(4, 3)
  bad.cases{
    { "other shapes for a triplet", function() loss.triplet(x, x, bp.randn(4, 2)) end, "the anchor is [4][3], the negative [4][2]",
      "expected the same shape" },
    { "two tensors for a triplet", function() loss.triplet(x, x) end, "the negative is nil", "expected a tensor" },
    { "a margin below 0", function() loss.triplet{ margin = -1 } end, "option 'margin' is a number (-1)", "at least 0" },
    { "labels for a one-hot hinge", function() loss.categorical_hinge(x, labels(1, 2, 3, 1)) end,
      "the prediction is [4][3], the target [4]", "expected the same shape" },
    { "probabilities as focal labels", function() loss.sparse_categorical_focal_crossentropy(x, bp.rand(4)) end, "the labels are f32",
      "rows of probabilities want categorical_focal_crossentropy" },
    { "gamma below 0", function() loss.focal{ gamma = -1 } end, "option 'gamma' is a number (-1)", "at least 0" },
    { "class weights in fit for a loss without", function()
      nn.sequential{ nn.dense(1) }:compile{ loss = "dice" }:fit{ bp.ones(4, 2), bp.ones(4, 1), class_weight = { 1, 2 }, verbose = 0 }
    end, "class_weight needs a loss over classes; this one is dice", "use sample_weight" },
  }
end)

describe("compile", function()
  it("tells losses over probabilities from logits by the model's end", function()
    for _, name in ipairs{ "dice", "focal" } do
      local net = nn.sequential{ nn.dense{ 1, activation = "sigmoid" } }:compile{ loss = name, metrics = { "accuracy" } }
      assert.is_false(net.compiled.loss.options.from_logits)
      assert.equal(0.5, net.compiled.metrics[1].options.threshold)
    end
  end)

  it("knows long and short names", function()
    for alias, name in pairs{ bce = "binary_crossentropy", cce = "categorical_crossentropy", kld = "kl_divergence", logcosh = "log_cosh",
      sparse_cce = "sparse_categorical_crossentropy", sq_hinge = "squared_hinge", cosine = "cosine_similarity",
      mean_absolute_percentage_error = "mape" } do
      assert.equal(name, loss.get("t", alias).name)
      assert.equal(loss[name], loss[alias])
    end
  end)
end)
