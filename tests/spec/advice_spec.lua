--- What is said before, between and after trainings: model:check, model:lr_find, history:diagnose.
local bp = require "bp"
local core = require "bp.core"
local check = require "support.check"
local shell = require "support.shell"
local nn, optim, data, fails = bp.nn, bp.optim, bp.data, check.fails

local function model(last, loss, units)
  local m = nn.sequential{ nn.dense{ 8, activation = "relu" }, nn.dense{ units or 3, activation = last } }
  check.quietly(function() m:compile{ optimizer = optim.adam{ lr = 0.01 }, loss = loss } end)
  return m
end

local function found(m, given)
  local report = m:check(given)
  local kinds = {}
  for i, finding in ipairs(report) do kinds[i] = finding.kind end
  return table.concat(kinds, " "), tostring(report)
end

describe("model:check", function()
  local SPARSE = "sparse_categorical_crossentropy"
  local x, y
  before_each(function()
    bp.seed(1)
    x, y = bp.randn(90, 4), bp.arange(0, 89):to "i64" % 3 + 1
  end)

  it("finds nothing where nothing is wrong, and changes nothing", function()
    local m = model(nil, SPARSE)
    m:build_for(4)
    local weights, stream = m:get_weights(), core.stream "shuffle":clone()
    assert.equal("", (found(m, { x, y })))
    assert.equal("check: nothing conspicuous", tostring(m:check{ x, y }))
    for name, tensor in pairs(m:get_weights()) do assert.is_true(check.equal(weights[name], tensor)) end
    assert.is_true(check.equal(stream, core.stream "shuffle"))
    assert.is_true(m.training)
    local r = model(nil, "mse", 1)
    assert.equal("", (found(r, { x, x:sum{ axes = 2, keepdims = true } })))
  end)

  local cases = {
    { "labels from 0", "labels", "labels go from 0 to 2; they count from 1; y + 1", function() return model(nil, SPARSE), x, y - 1 end },
    { "labels beyond the outputs", "labels", "labels go up to 3, the model has 2 outputs",
      function() return model(nil, SPARSE, 2), x, y end },
    { "labels in floating point", "labels", 'y:to "i64"', function() return model(nil, SPARSE), x, y:to "f32" end },
    { "one-hot rows for sparse", "labels", "categorical_crossentropy", function() return model(nil, SPARSE), x, bp.one_hot(y, 3) end },
    { "labels for one-hot", "labels", "takes one-hot rows", function() return model(nil, "categorical_crossentropy"), x, y end },
    { "softmax under logits", "loss", "take the softmax away",
      function() return model("softmax", nn.loss.sparse_categorical_crossentropy{ from_logits = true }), x, y end },
    { "logits under probabilities", "loss", "leave from_logits at true",
      function() return model(nil, nn.loss.sparse_categorical_crossentropy{ from_logits = false }), x, y end },
    { "relu under classes", "activation", "need both signs", function() return model("relu", SPARSE), x, y end },
    { "classes under mse", "loss", "look like classes", function() return model(nil, "mse"), x, y end },
    { "sigmoid under far targets", "activation", "which gives 0 to 1", function()
      return model("sigmoid", "mse", 1), x, x:sum{ axes = 2, keepdims = true }
    end },
    { "another number of outputs", "shapes", "give the last layer 4 units", function() return model(nil, "mse", 2), x, x end },
    { "large targets", "scale", "divide them", function() return model(nil, "mse", 4), x, x * 1e4 end },
    { "binary targets 1 and 2", "labels", "y - 1", function()
      return model(nil, "binary_crossentropy", 1), x, (y:clamp{ max = 2 }):to "f32":reshape(90, 1)
    end },
    { "bytes", "scale", "nn.rescaling(1/255)", function() return model(nil, SPARSE), (x:abs() * 80):clamp{ max = 255 }, y end },
    { "constant columns", "constant", "column 2 of x never changes", function()
      x[{ {}, 2 }] = 5
      return model(nil, SPARSE), x, y
    end },
    { "columns of far scales", "scales", "column 4 of x varies by", function()
      x[{ {}, 4 }] = x[{ {}, 4 }] * 1e-5
      return model(nil, SPARSE), x, y
    end },
    { "NaN", "nan", "x holds nan in row 17, place 3", function()
      x[{ 17, 3 }] = 0 / 0
      return model(nil, SPARSE), x, y
    end },
    { "infinite targets", "inf", "y holds infinities in row 4", function()
      local t = x:sum{ axes = 2, keepdims = true }
      t[{ 4, 1 }] = 1 / 0
      return model(nil, "mse", 1), x, t
    end },
    { "rare classes", "imbalance", "class 3 ('c') has 2", function()
      local rare = (bp.arange(0, 89):to "i64" % 2 + 1)
      rare[5], rare[6] = 3, 3
      return model(nil, SPARSE), data.tensors{ x = x, y = rare, classes = { "a", "b", "c" } }
    end },
    { "classes that never occur", "classes", "2 of the model's 5 classes", function() return model(nil, SPARSE, 5), x, y end },
    { "samples in both parts", "leakage", "7 of 9 samples", function()
      return model(nil, SPARSE), { x, y, validation = { bp.concat({ x[{ { 3, 9 } }], bp.randn(2, 4) }, { axis = 1 }), y[{ { 1, 9 } }] } }
    end },
  }
  for _, case in ipairs(cases) do
    local name, kind, text, make = table.unpack(case)
    it("names " .. name, function()
      local m, a, b = make()
      local kinds, said = found(m, b ~= nil and { a, b } or a)
      assert.match(kind, kinds, said)
      assert.is_truthy(said:find(text, 1, true), said)
    end)
  end
end)

describe("model:lr_find", function()
  it("suggests a rate that trains well, and leaves everything as it was", function()
    bp.seed(3)
    local x = bp.randn(256, 6)
    local y = x:sum{ axes = 2, keepdims = true }:tanh()
    local m = nn.sequential{ nn.dense{ 16, activation = "tanh" }, nn.batch_norm(), nn.dropout(0.1), nn.dense(1) }
    m:compile{ optimizer = optim.adam(), loss = "mse" }
    m:fit{ x, y, verbose = 0 }
    local weights, steps, stream = m:get_weights(), m.compiled.optimizer:steps(), core.stream "dropout":clone()
    local slot = m.compiled.optimizer:state()["1.1.m"]:clone()
    local result = m:lr_find{ x, y, steps = 80 }
    for name, tensor in pairs(m:get_weights()) do assert.is_true(check.equal(weights[name], tensor), name) end
    assert.equal(steps, m.compiled.optimizer:steps())
    assert.is_true(check.equal(slot, m.compiled.optimizer:state()["1.1.m"]))
    assert.is_true(check.equal(stream, core.stream "dropout"))
    assert.near(0.001, m.compiled.optimizer:get_lr(), 1e-12)
    assert.is_true(result.suggestion > 1e-4 and result.suggestion < 1, tostring(result))
    assert.is_true(result.suggestion <= result.lowest)
    m.compiled.optimizer:set_lr(result.suggestion)
    local history = m:fit{ x, y, epochs = 5, verbose = 0 }
    assert.is_true(history.loss[5] < history.loss[1])
    local lines = check.quietly(function() result:plot() end)
    assert.match("log10 of the rate", lines[1])
    local path = os.tmpname()
    assert(result:svg(path))
    assert.match("^<svg", shell.read(path))
    os.remove(path)
  end)

  it("says what is wrong", function()
    local m = nn.sequential{ nn.dense(1) }
    fails("the model is not compiled", m.lr_find, m, { bp.randn(8, 2), bp.randn(8, 1) })
    m:compile{ optimizer = "sgd", loss = "mse" }
    fails("expected to above from", m.lr_find, m, { bp.randn(8, 2), bp.randn(8, 1), from = 1, to = 0.1 })
    fails("there are no targets", m.lr_find, m, bp.randn(8, 2))
    fails("the loss is no number", m.lr_find, m, { bp.randn(8, 2) / 0, bp.randn(8, 1) })
  end)
end)

describe("history:diagnose", function()
  local history, logs = require "bp.history", require "bp.logs"
  local function kinds(loss, val)
    local h = history.new()
    for i, value in ipairs(loss) do
      local row = logs.new()
      logs.set(row, "loss", value)
      if val then logs.set(row, "val_loss", val[i]) end
      h:add(i, row)
    end
    local list = {}
    for i, finding in ipairs(h:diagnose()) do list[i] = finding.kind end
    return table.concat(list, " "), tostring(h:diagnose())
  end
  for _, case in ipairs{
    { "overfitting", { 1, 0.8, 0.6, 0.4, 0.3, 0.2 }, { 1, 0.9, 0.85, 0.9, 1, 1.1 }, "best in epoch 3" },
    { "underfitting", { 2.30, 2.30, 2.29, 2.30, 2.29, 2.30 }, nil, "model:lr_find" },
    { "diverged", { 1, 2, 0 / 0 }, nil, "loss is %-?nan in epoch 3" },
    { "diverging", { 1, 0.9, 1.5, 4 }, nil, "rose from 0.9 in epoch 2 to 4" },
    { "plateau", { 1, 0.5, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2 }, nil, "stood still" },
    { "unfinished", { 1, 0.8, 0.6, 0.5, 0.4, 0.3 }, { 1, 0.8, 0.6, 0.5, 0.4, 0.3 }, "more epochs" },
    { "unsteady", { 1, 0.5, 0.9, 0.4, 0.9, 0.5, 0.9, 0.4 }, nil, "larger batches" },
    { "validation_easier", { 2, 1.5, 1.2, 1 }, { 1, 0.8, 0.6, 0.5 }, "both parts" },
    { "short", { 1 }, nil, "too few" },
  } do
    it("names " .. case[1], function()
      local got, text = kinds(case[2], case[3])
      assert.match(case[1], got, text)
      assert.match(case[4], text)
    end)
  end
  it("says so when there is nothing to say", function()
    assert.equal("diagnosis: nothing conspicuous", select(2, kinds({ 1, 0.6, 0.4, 0.33, 0.31, 0.305, 0.304, 0.3035 })))
  end)
end)
