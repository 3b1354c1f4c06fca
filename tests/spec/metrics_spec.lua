--- Metrics: exact over batches of any size, and what each means.
local bp = require "bp"
local check = require "support.check"
local metrics, fails = bp.metrics, check.fails

-- The value over all rows, fed in pieces of these sizes.
local function over(metric, prediction, target, sizes)
  local first = 1
  for _, size in ipairs(sizes) do
    metric:update(prediction[{ { first, first + size - 1 } }], target[{ { first, first + size - 1 } }])
    first = first + size
  end
  return metric:result()
end

describe("metrics", function()
  before_each(function() bp.seed(6) end)
  local splits = { { 10 }, { 1, 9 }, { 4, 4, 2 }, { 3, 3, 3, 1 } }

  it("are what their definitions say, however the rows are split", function()
    local p, t = bp.randn(10, 2), bp.randn(10, 2)
    local e = p:to "f64" - t:to "f64"
    local centred = t:to "f64" - t:to "f64":mean{ axes = 1, keepdims = true }
    local explained = (1 - e:square():sum{ axes = 1 } / centred:square():sum{ axes = 1 }):mean():item()
    local logits, labels = bp.randn(10, 6), bp.randint(1, 6, { 10 })
    local hot = bp.one_hot(labels, { classes = 6 })
    local yes = bp.randint(0, 1, { 10, 2 }):to "f32"
    local hits = logits:argmax(-1):eq(labels):to "f64":mean():item()
    local rank = 0
    for i = 1, 10 do
      local better = logits[i]:gt(logits[{ i, labels[i]:item() }]):sum():item()
      rank = rank + (better < 3 and 0.1 or 0)
    end
    local cases = {
      { metrics.mse(), p, t, e:square():mean():item() },
      { metrics.mae(), p, t, e:abs():mean():item() },
      { metrics.rmse(), p, t, math.sqrt(e:square():mean():item()) },
      { metrics.r2(), p, t, explained },
      { metrics.sparse_categorical_accuracy(), logits, labels, hits },
      { metrics.sparse_categorical_accuracy(), logits, labels:reshape(10, 1), hits },
      { metrics.categorical_accuracy(), logits, hot, hits },
      { metrics.binary_accuracy(0), p, yes, p:gt(0):eq(yes:gt(0.5)):to "f64":mean():item() },
      { metrics.top_k_accuracy{ k = 3 }, logits, labels, rank },
      { metrics.top_k_accuracy{ k = 3 }, logits, hot, rank },
      { metrics.top_k_accuracy{ k = 1 }, logits, labels, hits },
      { metrics.top_k_accuracy{ k = 6 }, logits, labels, 1 },
    }
    for i, case in ipairs(cases) do
      for _, sizes in ipairs(splits) do
        case[1]:reset()
        assert.near(case[4], over(case[1], case[2], case[3], sizes), 1e-9, ("case %d, %s"):format(i, case[1].name))
      end
    end
  end)

  it("stay exact where f32 would not", function()
    local metric = metrics.mse()
    for _ = 1, 3 do metric:update(bp.full({ 4000, 1 }, 1000.5), bp.full({ 4000, 1 }, 0.25)) end
    assert.equal(1000.25 ^ 2, metric:result())
  end)

  it("are nan before any batch, and r2 of a constant target is no division by zero", function()
    local value = metrics.mae():result()
    assert.is_true(value ~= value)
    local r2 = metrics.r2()
    r2:update(bp.ones(4), bp.ones(4))
    assert.equal(1, r2:result())
    r2:update(bp.zeros(4), bp.ones(4))
    assert.equal(0, r2:result())
  end)

  it("can be of one's own", function()
    local within = metrics.define("spec_within", function(p, t) return (p - t):abs():lt(0.5), p:numel() end)
    local metric = within()
    metric:update(bp.tensor{ 1, 2 }, bp.tensor{ 1.2, 4 })
    metric:update(bp.tensor{ 1 }, bp.tensor{ 1 })
    assert.near(2 / 3, metric:result(), 1e-12)
    assert.equal("spec_within", metrics.get("t", "spec_within").name)
  end)

  it("are found by name", function()
    assert.equal("mean_squared_error", metrics.get("t", "mean_squared_error").name)
    assert.equal("mae", metrics.get("t", metrics.mae).name)
    fails("t: unknown metric 'maee' (did you mean 'mae'?)", metrics.get, "t", "maee")
    fails("t: a metric is a number (1)", metrics.get, "t", 1)
    fails("metrics.top_k_accuracy: option 'k' is a number (0)", metrics.top_k_accuracy, { k = 0 })
    fails("metric mae: the prediction is [3], the target [2]", function() metrics.mae():update(bp.ones(3), bp.ones(2)) end)
  end)
end)
