--- Losses: forms of calling, shapes that must agree, errors that name rows, weights. Values are compared with PyTorch and Keras in
--- vectors_losses.
local bp = require "bp"
local check = require "support.check"
local loss, near, fails = bp.nn.loss, check.near, check.fails

describe("nn.loss", function()
  before_each(function() bp.seed(2) end)

  it("can be called at once or made first", function()
    local p, t = bp.randn(4, 3), bp.randn(4, 3)
    near(loss.mse(p, t), (p - t):square():mean(), 1e-6)
    near(loss.mse(p, t, { reduction = "sum" }), (p - t):square():mean{ axes = 2 }:sum(), 1e-6)
    near(loss.mse{ reduction = "none" }(p, t), (p - t):square():mean{ axes = 2 }, 1e-6)
    near(loss.huber{ delta = 0.5 }(p, t):mean(), loss.huber(p, t, { delta = 0.5 }), 1e-7)
    assert.equal("loss mse", tostring(loss.mse()))
  end)

  it("takes [n] for [n][1], and nothing else that would broadcast", function()
    local p, t = bp.randn(4, 1), bp.randn(4)
    near(loss.mae(p, t), (p:reshape(4) - t):abs():mean(), 1e-6)
    near(loss.mae(t, p), (p:reshape(4) - t):abs():mean(), 1e-6)
    fails("loss mse: the prediction is [4][3], the target [4]; expected the same shape", loss.mse, bp.zeros(4, 3), bp.zeros(4))
    fails("the prediction is [4][1], the target [1][4]", loss.mse, bp.zeros(4, 1), bp.zeros(1, 4))
    fails("the prediction is [4][3], the labels [5]; expected labels [4]", loss.cross_entropy, bp.zeros(4, 3),
      bp.ones(5, { dtype = "i64" }))
    local labels = bp.tensor({ { 1 }, { 3 } }, { dtype = "i64" })
    near(loss.cross_entropy(bp.zeros(2, 3), labels), bp.tensor(math.log(3)), 1e-6)
  end)

  it("names a label outside 1..C and its row", function()
    local labels = bp.tensor({ 1, 3, 0, 2 }, { dtype = "i64" })
    local text = check.message(loss.cross_entropy, bp.zeros(4, 3), labels)
    assert.truthy(text:find("label", 1, true) and text:find("0", 1, true) and text:find("3", 1, true), text)
    fails("the labels are f32; expected whole numbers 1..3", loss.cross_entropy, bp.zeros(4, 3), bp.ones(4))
  end)

  it("refuses what is no tensor", function()
    fails("loss.mse: the prediction is a number (3); expected a tensor", loss.mse, 3, bp.zeros(1))
    fails("loss.mse: the target is nil; expected a tensor", loss.mse, bp.zeros(1))
    fails("loss.mse: unknown option 'reduce' (did you mean 'reduction'?)", loss.mse, { reduce = "sum" })
  end)

  it("probabilities give what logits give", function()
    local logits = bp.randn(6, 4)
    local labels = bp.randint(1, 4, { 6 })
    local hot = bp.one_hot(labels, { classes = 4 })
    near(loss.cross_entropy{ from_logits = false }(logits:softmax(), labels), loss.cross_entropy(logits, labels), 1e-5)
    near(loss.categorical_crossentropy{ from_logits = false }(logits:softmax(), hot), loss.categorical_crossentropy(logits, hot), 1e-5)
    local yes = bp.randint(0, 1, { 6, 4 }):to "f32"
    near(loss.binary_crossentropy{ from_logits = false }(logits:sigmoid(), yes), loss.binary_crossentropy(logits, yes), 1e-5)
    near(loss.cross_entropy{ from_logits = false, label_smoothing = 0.2 }(logits:softmax(), labels),
      loss.cross_entropy{ label_smoothing = 0.2 }(logits, labels), 1e-5)
  end)

  it("multiplies weights of samples and of classes", function()
    local logits, labels = bp.randn(3, 2), bp.tensor({ 1, 2, 2 }, { dtype = "i64" })
    local rows = loss.cross_entropy{ reduction = "none" }(logits, labels)
    local weighted = rows * bp.tensor{ 0.5 * 3, 2 * 5, 1 * 5 }
    local made = loss.cross_entropy{ class_weights = { 3, 5 }, weights = { 0.5, 2, 1 } }
    near(made(logits, labels), weighted:sum() / 3, 1e-6)
    near(loss.cross_entropy{ class_weights = { 3, 5 }, reduction = "weighted_mean" }(logits, labels, bp.tensor{ 0.5, 2, 1 }),
      weighted:sum() / 16.5, 1e-6)
    local hot = bp.one_hot(labels, { classes = 2 })
    near(loss.categorical_crossentropy{ class_weights = { 3, 5 }, weights = { 0.5, 2, 1 } }(logits, hot), weighted:sum() / 3, 1e-6)
    local yes = bp.tensor{ { 0 }, { 1 }, { 1 } }
    local plain = loss.binary_crossentropy{ reduction = "none" }(logits[{ {}, { 1, 1 } }], yes)
    near(loss.binary_crossentropy{ class_weights = { 3, 5 } }(logits[{ {}, { 1, 1 } }], yes), (plain * bp.tensor{ 3, 5, 5 }):mean(), 1e-6)
    fails("the sample weights are [2] for a batch of 3", made, logits, labels, bp.ones(2))
    fails("the class weights are [3] for 2 classes; expected one number per class",
      loss.binary_crossentropy{ class_weights = { 1, 2, 3 } }, logits[{ {}, { 1, 1 } }], yes)
  end)

  it("has right gradients, weights and smoothing included", function()
    local labels, hot = bp.tensor({ 1, 3, 2 }, { dtype = "i64" }), bp.rand(3, 3)
    local yes = bp.rand(3, 3)
    local x, t = bp.randn(3, 3), bp.randn(3, 3)
    local cases = {
      function(p) return loss.mse(p, t:to "f64") end,
      function(p) return loss.huber(p, t:to "f64", { delta = 0.7 }) end,
      function(p) return loss.cross_entropy(p, labels, { label_smoothing = 0.1 }) end,
      function(p) return loss.cross_entropy(p:softmax(), labels, { from_logits = false }) end,
      function(p) return loss.categorical_crossentropy(p, hot, { label_smoothing = 0.1 }) end,
      function(p) return loss.binary_crossentropy(p, yes, { pos_weight = 2, label_smoothing = 0.1 }) end,
      function(p) return loss.binary_crossentropy(p:sigmoid(), yes, { from_logits = false }) end,
    }
    for i, fn in ipairs(cases) do
      local worst, where = bp.checkgrad(fn, x)
      assert.is_true(worst < 1e-6, ("%d: %s"):format(i, where))
    end
  end)

  it("is found by name, and near names are offered", function()
    assert.equal("mse", loss.get("t", "mean_squared_error").name)
    assert.equal("mae", loss.get("t", loss.mae).name)
    fails("t: unknown loss 'mes' (did you mean 'mse'?)", loss.get, "t", "mes")
    fails("t: the loss is a number (3)", loss.get, "t", 3)
  end)
end)
