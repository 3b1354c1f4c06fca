--- Names that people who know Keras write first.
local bp = require "bp"
local nn, optim = bp.nn, bp.optim

describe("a name from Keras", function()
  it("is taken by fit, evaluate and the optimizers", function()
    local model = nn.sequential{ nn.dense(1) }
    model:compile{ optimizer = optim.adam{ learning_rate = 0.5 }, loss = "mse" }
    local x, y = bp.ones(8, 2), bp.ones(8, 1)
    local history = model:fit{ x = x, y = y, epochs = 2, verbose = 0 }
    assert.equal(2, #history.loss)
    assert.equal("number", type(model:evaluate{ x = x, y = y }.loss))
    assert.equal(1, model:predict{ x = x }:size(2))
  end)

  it("cannot be given beside its other name", function()
    assert.error_matches(function() optim.adam{ lr = 1, learning_rate = 1 } end, "given twice")
  end)
end)
