--- Metrics against Keras and the definitions of sklearn, over batches of uneven sizes, with and without weights.
local bp = require "bp"
local vectors = require "support.vectors"
local metrics = bp.metrics

-- Keras keeps its sums in f32.
local LOOSER = { keras = 2e-6 }

local function target_of(case)
  local target = case.target
  return target.dtype == "i64" and target + 1 or target
end

local function streaming(case)
  local given = {}
  for key, value in pairs(case.options) do given[key] = value end
  local x, target = case.x, target_of(case)
  for _, sizes in ipairs{ { 100 }, { 1, 15, 100 }, { 5, 5, 5, 5, 5 } } do
    local metric = metrics.get("t", { name = case.op, options = given })
    local first = 1
    for _, size in ipairs(sizes) do
      local last = math.min(first + size - 1, x:shape(1))
      if last >= first then
        local rows = { { first, last } }
        metric:update(x[rows], target[rows], case.weight and case.weight[rows])
      end
      first = last + 1
    end
    local value = metric:result()
    vectors.near(case.value, type(value) == "number" and { value } or value, case.name, LOOSER[case.source], 1e-3)
  end
end

local function exact(case)
  vectors.near(case.value, { metrics[case.op](case.x, case.target, case.weight) }, case.op)
end

local tests = { roc_auc = exact, average_precision = exact }
for _, op in ipairs{ "precision", "recall", "f1", "fbeta", "auc", "iou", "binary_accuracy", "sparse_categorical_accuracy",
  "categorical_accuracy", "top_k_accuracy", "r2", "cosine_similarity", "mse", "mae", "rmse", "mape", "msle", "hinge", "log_cosh",
  "kl_divergence", "poisson", "confusion_matrix", "perplexity" } do tests[op] = streaming end

describe("metrics agree with Keras and sklearn:", function()
  vectors.compare("metrics", tests, {})
end)
