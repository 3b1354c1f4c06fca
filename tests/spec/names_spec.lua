--- Names that bp's tables do not have, and options under the names of other frameworks.
local bp = require "bp"
local bad = require "support.bad"
local nn, optim, data, callbacks, metrics = bp.nn, bp.optim, bp.data, bp.callbacks, bp.metrics

describe("a name that there is not", function()
  bad.cases{
    { "in bp", function() return bp.tensr end, "bp has no 'tensr'", "did you mean bp.tensor?" },
    { "in bp, far from any", function() return bp.zzzzzz end, "bp has no 'zzzzzz'", 'bp.help "bp" lists what there is' },
    { "in nn, with another case", function() return nn.Dense(3) end, "nn has no 'Dense'", "did you mean nn.dense?" },
    { "in nn, with underscores elsewhere", function() return nn.MaxPool2d(2) end, "nn has no 'MaxPool2d'", "did you mean nn.max_pool2d?" },
    { "in nn, of PyTorch", function() return nn.Linear(3, 4) end, "nn has no 'Linear'", "did you mean nn.dense?" },
    { "in nn, of Torch7", function() return nn.MSECriterion() end, "nn has no 'MSECriterion'", "did you mean nn.loss.mse?" },
    { "in optim", function() return optim.Adam{} end, "optim has no 'Adam'", "did you mean optim.adam?" },
    { "in schedules", function() return optim.schedule.CosineRestarts{} end, "optim.schedule has no 'CosineRestarts'",
      "did you mean optim.schedule.cosine_restarts?" },
    { "in data", function() return data.CSV "x" end, "data has no 'CSV'", "did you mean data.csv?" },
    { "in callbacks", function() return callbacks.EarlyStopping{} end, "callbacks has no 'EarlyStopping'",
      "did you mean callbacks.early_stopping?" },
    { "in callbacks, of Keras", function() return callbacks.ModelCheckpoint{} end, "callbacks has no 'ModelCheckpoint'",
      "did you mean callbacks.checkpoint?" },
    { "in metrics", function() return metrics.Precision() end, "metrics has no 'Precision'", "did you mean metrics.precision?" },
    { "in losses", function() return nn.loss.CrossEntropy() end, "nn.loss has no 'CrossEntropy'", "did you mean nn.loss.cross_entropy?" },
    { "in initialisers", function() return nn.init.kaiming_uniform_{ 3 } end, "nn.init has no 'kaiming_uniform_'",
      "did you mean nn.init.he_uniform?" },
    { "in augmentation", function() return bp.augment.rotat(3) end, "augment has no 'rotat'", "did you mean augment.rotate?" },
  }

  it("is told by rawget and pairs, and may be added", function()
    assert.is_nil(rawget(nn, "Dense"))
    nn.spec_name = 1
    assert.equal(1, nn.spec_name)
    nn.spec_name = nil
    local seen = {}
    for key in pairs(bp) do seen[key] = true end
    assert.is_true(seen.nn and seen.tensor and seen.metrics)
    assert.is_nil((bp.help "nn.Densely"))
  end)
end)

describe("an option of another framework", function()
  bad.cases{
    { "kernel_regularizer", function() nn.dense{ 3, kernel_regularizer = 1 } end, "unknown option 'kernel_regularizer'", "l1 = a, l2 = b" },
    { "betas", function() optim.adam{ betas = { 0.9, 0.99 } } end, "unknown option 'betas'", "beta1" },
    { "epsilon", function() optim.adam{ epsilon = 1e-7 } end, "unknown option 'epsilon'", "write eps = 1e-7" },
    { "use_ema", function() optim.adam{ use_ema = true } end, "unknown option 'use_ema'", "write ema = 0.99" },
    { "gradient_accumulation_steps", function() optim.sgd{ gradient_accumulation_steps = 2 } end, "unknown option",
      "write accumulate = 4" },
  }
  it("learning_rate is taken", function() assert.equal(0.5, optim.nadam{ learning_rate = 0.5 }:get_lr()) end)
end)
