--- The losses of losses_more.safetensors against PyTorch and Keras: values and gradients, weights included. The tiny case of ctc was also
--- summed over every path when the file was made.
local bp = require "bp"
local vectors = require "support.vectors"
local near, leaf = vectors.near, vectors.leaf
local loss = bp.nn.loss

local function options_of(case)
  local o = {}
  for key, value in pairs(case.options) do o[key] = value end
  return o
end

-- Keras rounds log(2) to f32.
local LOOSER = { log_cosh = 1e-7 }

-- value(x, o) under every reduction of the case; Keras' rule of reducing is ours.
local function reductions(case, value)
  for _, reduction in ipairs{ "mean", "sum", "none" } do
    local stored = case["loss." .. reduction]
    if stored then
      local x, o = leaf(case.x), options_of(case)
      o.reduction = reduction
      local y = value(x, o)
      near(stored, y, reduction, LOOSER[case.op])
      y:backward{ grad = reduction == "none" and case.dy or nil }
      near(case["dx." .. reduction], x.grad, "gradient of " .. reduction)
    end
  end
end

local function plain(case)
  reductions(case, function(x, o) return loss[case.op](o)(x, case.target, case.sample_weight) end)
end

local function ignoring(case)
  reductions(case, function(x, o)
    o.ignore_index, o.class_weights = 0, case.class_weight
    if case.class_weight then o.reduction = "weighted_mean" end
    return loss.sparse_categorical_crossentropy(o)(x, case.target + 1)
  end)
end

local function triplet(case)
  reductions(case, function(x, o) return loss.triplet(x, case.positive, case.negative, o) end)
end

local function ctc(case)
  reductions(case, function(x, o)
    o.input_lengths, o.label_lengths = case.times, case.lengths
    return loss.ctc(x, case.target + 1, o)
  end)
end

local tests = { sparse_categorical_crossentropy = ignoring, triplet = triplet, ctc = ctc }
for _, op in ipairs{ "mape", "msle", "log_cosh", "poisson", "cosine_similarity", "hinge",
  "squared_hinge", "categorical_hinge", "kl_divergence",
  "binary_focal_crossentropy", "categorical_focal_crossentropy", "dice" } do tests[op] = plain end

describe("more losses agree with PyTorch and Keras:", function()
  vectors.compare("losses_more", tests, {})
end)
