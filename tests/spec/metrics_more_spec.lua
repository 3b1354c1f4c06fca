--- Metrics in compile and in loops of one's own: weights, logits, names, saving, metrics written in Lua, misuse. Values are compared in
--- vectors_metrics.
local bp = require "bp"
local bad = require "support.bad"
local check = require "support.check"
local nn, metrics, optim = bp.nn, bp.metrics, bp.optim

local function labels(...) return bp.tensor({ ... }, { dtype = "i64" }) end

describe("metrics in fit and evaluate", function()
  bp.seed(2)
  local x, y = bp.randn(23, 4), bp.randint(1, 3, 23)
  local w = bp.rand(23) + 0.1
  local function model(list, weighted)
    bp.seed(5)
    local net = nn.sequential{ nn.dense(3) }
    net:compile{ loss = "sparse_cce", optimizer = optim.sgd(0.1), metrics = list, weighted_metrics = weighted }
    return net
  end

  it("are those of all samples at once, captured or not, weighted where asked", function()
    for _, captured in ipairs{ true, false } do
      local net = model({ "accuracy", "f1", metrics.recall{ average = "micro", name = "hits" }, "perplexity", metrics.top_k_accuracy(2),
        "sparse_categorical_crossentropy" }, { "accuracy", "precision", "iou" })
      local found = net:evaluate{ x, y, sample_weight = w, batch_size = 7, capture = captured }
      local p = net:predict(x)
      local function whole(metric, weight)
        metric:update(p, y, weight)
        return metric:result()
      end
      assert.near(whole(metrics.get("t", "accuracy")), found.accuracy, 1e-12)
      assert.near(found.accuracy, found.hits, 1e-12)
      assert.near(whole(metrics.f1()), found.f1, 1e-12)
      assert.near(whole(metrics.perplexity()), found.perplexity, 1e-6)
      assert.near(math.log(found.perplexity), found.sparse_categorical_crossentropy, 1e-6)
      assert.near(whole(metrics.sparse_categorical_accuracy(), w), found.weighted_accuracy, 1e-12)
      assert.near(whole(metrics.precision(), w), found.precision, 1e-12)
      assert.near(whole(metrics.iou(), w), found.iou, 1e-12)
      local h = net:fit{ x, y, epochs = 2, batch_size = 7, verbose = 0, capture = captured, sample_weight = w }
      assert.equal(2, #h.precision)
    end
  end)

  it("know logits from probabilities by the loss", function()
    local yes = bp.randint(0, 1, { 23, 1 }):to "f32"
    local function compiled(last)
      bp.seed(5)
      local net = nn.sequential{ nn.dense{ 1, activation = last } }
      return net:compile{ loss = "bce", metrics = { "accuracy", "precision", "recall", "f1", "auc", "iou" } }
    end
    local a, b = compiled(nil):evaluate{ x, yes }, compiled("sigmoid"):evaluate{ x, yes }
    for _, name in ipairs{ "accuracy", "precision", "recall", "f1", "auc", "iou" } do assert.near(a[name], b[name], 1e-9, name) end
    local hinge = nn.sequential{ nn.dense(1) }:compile{ loss = "hinge", metrics = { "accuracy" } }
    assert.equal(0, hinge.compiled.metrics[1].options.threshold)
  end)

  it("are saved with their options", function()
    local net = model({ "accuracy", metrics.top_k_accuracy{ k = 2, name = "top2" }, metrics.fbeta{ beta = 2 } }, { "recall" })
    local path = os.tmpname()
    net(x)
    assert(net:save(path))
    local again = assert(bp.load(path))
    assert.equal(tostring(net:evaluate{ x, y }), tostring(again:evaluate{ x, y }))
    assert.equal(2, again.compiled.metrics[2].options.k)
    assert.is_true(again.compiled.metrics[4].weighted)
    os.remove(path)
  end)

  it("written in Lua are as good as built-in ones", function()
    metrics.define("spec_absolute", function(p, t) return (p - t):abs() end)
    local t = bp.randn(23, 3)
    local net = nn.sequential{ nn.dense(3) }
    net:compile{ loss = "mse", metrics = { "mae", "spec_absolute", function(p, y_) return (p - y_):abs() end },
      weighted_metrics = { "mae", "spec_absolute" } }
    local found = net:evaluate{ x, t, sample_weight = w, batch_size = 6 }
    assert.near(found.mae, found.spec_absolute, 1e-6)
    assert.near(found.mae, found.metric, 1e-6)
    assert.near(found.weighted_mae, found.weighted_spec_absolute, 1e-6)
    local of_loss = metrics.get("t", nn.loss.huber{ delta = 0.3 })
    of_loss:update(x, x * 2)
    assert.near(nn.loss.huber(x, x * 2, { delta = 0.3 }):item(), of_loss:result(), 1e-6)
  end)
end)

describe("counts", function()
  it("of labels and of labels predicted as such agree", function()
    local logits, y = bp.randn(12, 4), bp.randint(1, 4, 12)
    local a, b = metrics.confusion_matrix(), metrics.confusion_matrix{ classes = 4 }
    for rows = 1, 12, 5 do
      local range = { { rows, math.min(12, rows + 4) } }
      a:update(logits[range], y[range])
      b:update(logits[range]:argmax(-1), y[range])
    end
    assert.is_true(check.equal(a:result(), b:result()))
    assert.equal(12, a:result():sum():item())
    a:reset()
    assert.equal(0, a:result():sum():item())
    local nan = metrics.f1():result()
    assert.is_true(nan ~= nan)
  end)

  it("of sequences weigh every step with its sample", function()
    local p, t = bp.randn(3, 4, 5), bp.randint(1, 5, { 3, 4 })
    local weighted, picked = metrics.recall{ average = "micro" }, metrics.recall{ average = "micro" }
    weighted:update(p, t, bp.tensor{ 1, 0, 2 })
    picked:update(p[{ { 1, 1 } }], t[{ { 1, 1 } }])
    for _ = 1, 2 do picked:update(p[{ { 3, 3 } }], t[{ { 3, 3 } }]) end
    assert.near(picked:result(), weighted:result(), 1e-12)
  end)

  it("make exact areas of one class nan, and perfect ones 1", function()
    local s = bp.tensor{ 0.1, 0.9, 0.4 }
    local area = metrics.roc_auc(s, bp.ones(3))
    assert.is_true(area ~= area)
    assert.equal(1, metrics.roc_auc(s, bp.tensor{ 0, 1, 0 }))
    assert.equal(1, metrics.average_precision(s, bp.tensor{ 0, 1, 1 }))
    assert.equal(0.5, metrics.roc_auc(bp.ones(4), bp.tensor{ 0, 1, 0, 1 }))
  end)
end)

describe("metrics refuse", function()
  local p, y = bp.randn(4, 3), labels(1, 2, 3, 1)
  bad.cases{
    { "more than a number in compile", function()
      nn.sequential{ nn.dense(3) }:compile{ loss = "cce", metrics = { metrics.f1{ average = "none" } } }
    end, "the metric f1 gives more than one number", "take another average" },
    { "a matrix in compile", function() nn.sequential{ nn.dense(3) }:compile{ loss = "cce", metrics = { "confusion" } } end,
      "the metric confusion gives more than one number", "a loop of one's own" },
    { "labels without their classes", function() metrics.confusion_matrix():update(y, y) end, "the predictions are labels",
      "metrics.confusion_matrix{ classes = n }" },
    { "one-hot rows for a confusion matrix", function() metrics.confusion_matrix():update(p, p) end, "the target is f32 [4][3]",
      "expected labels" },
    { "other shapes", function() metrics.precision():update(p, bp.ones(4, 2)) end, "the prediction is [4][3], the target [4][2]",
      "expected the same shape" },
    { "weights of other samples", function() metrics.mse():update(p, p, bp.ones(3)) end, "the weights are a tensor f32 [3] for 4 samples",
      "one number per sample" },
    { "a number for a tensor", function() metrics.mse():update(p, 3) end, "update was given", "expected tensors: prediction, target" },
    { "an average of its own", function() metrics.f1{ average = "mean" } end, "option 'average' is \"mean\"", '"macro"' },
    { "a class there is not", function()
      local metric = metrics.recall{ class = 4 }
      metric:update(p, y)
      metric:result()
    end, "metric recall: class 4 of 3", "recall" },
    { "classes that change", function()
      local metric = metrics.f1()
      metric:update(p, y)
      metric:update(bp.randn(4, 5), y)
    end, "this batch has counts [5], those before [3]", "the number of classes has changed" },
    { "a function that returns text", function() metrics.get("t", function() return "x" end):update(p, y) end,
      'the function returned a string ("x")', "expected a tensor, or total and count" },
    { "weights on totals", function() metrics.get("t", function() return 1, 2 end):update(p, y, bp.ones(4)) end,
      "cannot be weighted", "return one value per sample" },
    { "a name that is taken", function() metrics.define("mse", print) end, "'mse' is a name of bp.metrics", "choose another" },
    { "exact areas of text", function() metrics.roc_auc("x", y) end, "the scores is no tensor", "expected scores, target" },
  }
end)
