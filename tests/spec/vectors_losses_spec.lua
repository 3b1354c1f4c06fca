--- Losses against PyTorch and Keras: values and gradients under every reduction, and all kinds of weights.
--
-- Ours reduce as Keras' do: to a number per sample, then over samples. PyTorch's elementwise losses are the same thing with every
-- element a sample of its own, which is how they are compared here.
local bp = require "bp"
local vectors = require "support.vectors"
local near, leaf = vectors.near, vectors.leaf
local loss = bp.nn.loss

-- PyTorch's "mean" under class weights divides by their sum.
local function reductions(case)
  local map = { mean = "mean", sum = "sum", none = "none", weighted_mean = case["loss.weighted_mean"] and "weighted_mean" or nil }
  if case.source == "pytorch" and case.class_weight and case.target.dtype == "i64" then map.mean = "weighted_mean" end
  return map
end

-- value(x, target, options) under every reduction that the case has. flatten(t) makes rows of what the case has as elements.
local function check(case, target, options, weights, flatten)
  flatten = flatten or function(t) return t end
  for stored, ours in pairs(reductions(case)) do
    local x = leaf(case.x)
    local o = { reduction = ours }
    for key, value in pairs(options) do o[key] = value end
    local y = loss[case.op](o)(flatten(x), flatten(target), weights and flatten(weights))
    if ours == "none" then
      near(flatten(case["loss.none"]), y, "none")
      y:backward{ grad = flatten(case.dy) }
    else
      near(case["loss." .. stored], y, stored)
      y:backward()
    end
    near(case["dx." .. stored], x.grad, "gradient of " .. stored)
  end
end

local function elements(t) return t:reshape(-1) end

local function regression(case)
  local flatten = case.source == "pytorch" and elements or nil
  check(case, case.target, { delta = case.options.delta }, case.sample_weight, flatten)
end

-- Ours has one pos_weight; PyTorch's has one per column: column by column, then.
local function binary_by_column(case)
  local columns = {}
  local x = leaf(case.x)
  for j = 1, x:shape(2) do
    columns[j] = loss.binary_crossentropy{ reduction = "none", pos_weight = case.pos_weight[j]:item() }(
      x[{ {}, j }], case.target[{ {}, j }], case.weight and case.weight[{ {}, j }])
  end
  local y = bp.stack(columns, { axis = 2 })
  near(case["loss.none"], y, "none")
  near(case["loss.sum"], y:sum(), "sum")
  near(case["loss.mean"], y:mean(), "mean")
  for reduction, fn in pairs{ mean = function() return y:mean() end, sum = function() return y:sum() end,
    none = function() return (y * case.dy):sum() end } do
    x:zero_grad()
    fn():backward{ retain_graph = true }
    near(case["dx." .. reduction], x.grad, "gradient of " .. reduction)
  end
end

local function binary(case)
  if case.pos_weight then return binary_by_column(case) end
  local flatten = case.source == "pytorch" and elements or nil
  check(case, case.target, { label_smoothing = case.options.label_smoothing }, case.sample_weight or case.weight, flatten)
end

local function categorical(case)
  check(case, case.target, { label_smoothing = case.options.label_smoothing, class_weights = case.class_weight }, case.sample_weight)
end

-- Files count labels from 0. More dimensions (a label per pixel) become rows.
local function sparse(case)
  local target = case.target + 1
  local classes, pixels = case.x:shape(-1), case.target.ndim > 1
  local function rows(t) return t.ndim == case.x.ndim and t:reshape(-1, classes) or t:reshape(-1) end
  check(case, target, { label_smoothing = case.options.label_smoothing, class_weights = case.class_weight }, case.sample_weight,
    pixels and rows or nil)
  if pixels then near(case["loss.mean"], loss.sparse_categorical_crossentropy(case.x, target), "images, not rows") end
end

local tests = {
  mse = regression, mae = regression, huber = regression,
  binary_crossentropy = binary, categorical_crossentropy = categorical, sparse_categorical_crossentropy = sparse,
}

describe("losses agree with PyTorch and Keras:", function()
  vectors.compare("losses", tests, {
    categorical_crossentropy_soft_class_weight_pytorch =
      "class weights of ours weigh whole samples, as Keras' do; PyTorch's weigh each class's term of a soft target",
    sparse_categorical_crossentropy_class_weight_label_smoothing_pytorch =
      "class weights of ours weigh whole samples, as Keras' do; PyTorch's weigh each class's share of the smoothing",
  })
end)

describe("sparse, one-hot and probability forms of cross-entropy", function()
  it("are the same loss", function()
    bp.seed(3)
    local x, labels = bp.randn{ 6, 4, dtype = "f64" }, bp.randint(1, 4, 6)
    local one_hot = bp.one_hot(labels, { classes = 4, dtype = "f64" })
    local expected = loss.sparse_categorical_crossentropy(x, labels)
    near(expected, loss.categorical_crossentropy(x, one_hot), "one-hot")
    near(expected, loss.sparse_categorical_crossentropy(x:softmax(), labels, { from_logits = false }), "probabilities")
    near(expected, loss.cross_entropy(x, labels), "PyTorch's name")
    near(loss.binary_crossentropy(x, one_hot), loss.binary_crossentropy(x:sigmoid(), one_hot, { from_logits = false }), "binary")
  end)
end)
