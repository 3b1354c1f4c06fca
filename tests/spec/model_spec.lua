--- compile, fit, evaluate, predict: names and defaults, captured and eager the same bits, uneven batches, weights, what misuse says.
local bp = require "bp"
local check = require "support.check"
local nn, optim, data, near, fails = bp.nn, bp.optim, bp.data, check.near, check.fails

local function regression(n, seed)
  bp.seed(seed or 1)
  local x = bp.randn(n or 70, 4)
  return x, (x * bp.tensor{ 1, -2, 0.5, 3 }):sum{ axes = 2, keepdims = true } + 1
end

local function small()
  return nn.sequential{ nn.dense{ 8, activation = "tanh" }, nn.dense(1) }
end

local function same_weights(a, b)
  local theirs = b:get_weights()
  for name, tensor in pairs(a:get_weights()) do assert.is_true(check.equal(tensor, theirs[name]), name) end
end

describe("fit", function()
  it("learns", function()
    local x, y = regression(200)
    local model = small():compile{ optimizer = optim.adam{ lr = 0.02 }, loss = "mse", metrics = { "mae", "r2" } }
    local history = model:fit{ x, y, epochs = 40, verbose = 0 }
    assert.is_true(history.loss[40] < 0.05 * history.loss[1])
    assert.is_true(history.r2[40] > 0.95)
    assert.equal(40, #history)
    assert.same({ "loss", "mae", "r2" }, history:keys())
    assert.is_false(model.training)
  end)

  it("gives the same bits captured and eager, with dropout, batch norm, clipping, schedule, weights and uneven batches", function()
    local function run(capture, threads)
      local before = bp.threads()
      bp.threads(threads or before)
      bp.seed(7)
      local model = nn.sequential{
        nn.rescaling(1 / 255), nn.conv2d{ 6, 3, activation = "relu" }, nn.batch_norm(), nn.max_pool2d(2), nn.dropout(0.25), nn.flatten(),
        nn.dense{ 16, activation = "gelu", l2 = 1e-3, l1 = 1e-4 }, nn.dense(4),
      }
      local x, y = bp.randint(0, 255, { 70, 10, 9, 1 }, { dtype = "u8" }), bp.randint(1, 4, { 70 })
      model:compile{ optimizer = optim.adamw{ lr = optim.schedule.cosine{ 1e-2, steps = 20, warmup = 3 }, clip_norm = 1 },
        loss = "sparse_categorical_crossentropy", metrics = { "accuracy", bp.metrics.top_k_accuracy{ k = 2, name = "top_2" } } }
      local history = model:fit{ x, y, epochs = 4, batch_size = 16, validation_split = 0.2, verbose = 0, capture = capture,
        class_weight = { 1, 2, 1, 0.5 }, sample_weight = bp.rand(70) }
      local predicted = model:predict{ x, batch_size = 33, capture = capture }
      bp.threads(before)
      return model, history, predicted
    end
    local a, first, pa = run(true)
    local b, second, pb = run(false)
    assert.equal(first:to_csv(), second:to_csv())
    same_weights(a, b)
    assert.is_true(check.equal(pa, pb))
    for _, threads in ipairs{ 1, 3 } do
      local c, third = run(true, threads)
      assert.equal(first:to_csv(), third:to_csv())
      same_weights(a, c)
    end
  end)

  it("trains the same whether a step gathers its samples or is handed them", function()
    local source = bp.randn(90, 5)
    local whole = source:clone()
    local forms = {
      plain = { x = whole[{ {}, { 1, 3 } }]:clone(), y = whole[{ {}, { 4, 5 } }]:clone() },
      ["views with gaps"] = { x = whole[{ {}, { 1, 3 } }], y = whole[{ {}, { 4, 5 } }] },
    }
    local half = bp.concat({ forms.plain.x, bp.concat({ forms.plain.y, bp.zeros(90, 1) }, 2) }, 1)
    forms["one memory"] = { x = half[{ { 1, 90 } }], y = half[{ { 91, 180 } }] }
    local function train(dataset, outputs, capture)
      bp.seed(3)
      local model = nn.sequential{ nn.dense{ 4, activation = "tanh" }, nn.dense(outputs) }
      model:compile{ optimizer = "adam", loss = "mse" }
      local history = model:fit{ dataset, epochs = 3, batch_size = 16, verbose = 0, capture = capture }
      return history:to_csv(), model:predict(forms.plain.x)
    end
    for name, form in pairs(forms) do
      local dataset = data.tensors(form)
      local parts = { whole = dataset, part = dataset:subset{ 5, 80, 3, 3, 41, 17, 60, 2, 90, 33, 21, 8, 9, 10, 11, 12, 13, 14, 15 } }
      for part, set in pairs(parts) do
        local outputs = form.y:size(2)
        local expected, weights = train(set, outputs, false)
        local found, same = train(set, outputs, true)
        assert.equal(expected, found, name .. ", " .. part)
        assert.is_true(check.equal(weights, same), name .. ", " .. part)
      end
    end
  end)

  it("trains the same whether a batch is used again or kept by a callback", function()
    local x, y = regression(90)
    local kept = {}
    local keep = { before_step = function(_, run) kept[#kept + 1] = run.current end }
    local ways = { {}, { capture = false }, { callbacks = { keep } }, { transform = function(a) return a * 1 end },
      { transform = function(a, b) return a * 1, b * 1 end, callbacks = { keep } } }
    local expected, weights
    for i, o in ipairs(ways) do
      bp.seed(5)
      o.data, o.epochs, o.batch_size, o.verbose = { x, y }, 3, 16, 0
      local model = small():compile{ optimizer = "adam", loss = "mse" }
      local found = model:fit(o):to_csv()
      if i == 1 then expected, weights = found, model:predict(x) end
      assert.equal(expected, found, "way " .. i)
      assert.is_true(check.equal(weights, model:predict(x)), "way " .. i)
    end
    assert.equal(2 * 18, #kept)
    for _, batch in ipairs(kept) do assert.is_true(check.equal(batch.y, y[batch.index])) end
  end)

  it("reports the mean over samples, also when the last batch is short", function()
    local x, y = regression(37)
    local model = small():compile{ optimizer = optim.sgd{ lr = 0 }, loss = "mse", metrics = { "mae" } }
    local history = model:fit{ x, y, batch_size = 8, verbose = 0 }
    local e = model(x) - y
    assert.near(e:square():mean():item(), history.loss[1], 1e-5)
    assert.near(e:abs():mean():item(), history.mae[1], 1e-5)
    local result = model:evaluate{ x, y, batch_size = 10 }
    assert.near(history.loss[1], result.loss, 1e-5)
    assert.near(history.mae[1], result.mae, 1e-5)
    assert.equal(("{loss = %.4f, mae = %.4f}"):format(result.loss, result.mae), tostring(result))
  end)

  it("adds the layers' penalties to loss and val_loss, as Keras does", function()
    local x, y = regression(32)
    local model = nn.sequential{ nn.dense{ 1, l2 = 0.3 } }
    model:compile{ optimizer = optim.sgd{ lr = 0 }, loss = "mse" }
    local history = model:fit{ x, y, validation = { x, y }, verbose = 0 }
    local expected = ((model(x) - y):square():mean() + model:layer(1).kernel:square():sum() * 0.3):item()
    assert.near(expected, history.loss[1], 1e-4)
    assert.near(expected, history.val_loss[1], 1e-4)
  end)

  it("sets a share aside, shuffled and in every class alike, the same for the same seed", function()
    bp.seed(4)
    local y = bp.concat{ bp.full({ 80 }, 1, { dtype = "i64" }), bp.full({ 20 }, 2, { dtype = "i64" }) }
    local x = bp.arange(100):to "f32":reshape(100, 1)
    local seen
    for _ = 1, 2 do
      bp.seed(4)
      local rows, classes = {}, { 0, 0 }
      local model = nn.sequential{ nn.dense(2) }
      model:compile{ optimizer = "sgd", loss = "cross_entropy" }
      model:fit{ x, y, validation_split = 0.25, verbose = 0, shuffle = true, transform = function(bx, by)
        for i = 1, #bx do
          rows[#rows + 1] = bx[i]:item()
          classes[by[i]:item()] = classes[by[i]:item()] + 1
        end
        return bx, by
      end }
      assert.same({ 60, 15 }, classes)
      if seen then assert.same(seen, rows) end
      seen = rows
    end
    local sorted = true
    for i = 2, #seen do sorted = sorted and seen[i] > seen[i - 1] end
    assert.is_false(sorted)
  end)

  it("takes datasets, { x, y }, tensors, and counts epochs on from initial_epoch", function()
    local x, y = regression(20)
    local model = small():compile{ loss = "mse" }
    assert.equal("rmsprop", model.compiled and "rmsprop")
    for _, given in ipairs{ { data.tensors{ x = x, y = y } }, { { x, y } }, { x, y }, { { x = x, y = y } } } do
      given.verbose, given.epochs, given.initial_epoch = 0, 5, 3
      local history = model:fit(given)
      assert.same({ 4, 5 }, history.epochs)
    end
    assert.equal(0, #model:fit{ x, y, epochs = 0, verbose = 0 })
  end)

  it("stops an epoch after steps_per_epoch, validates every validation_freq", function()
    local x, y = regression(64)
    local count = 0
    local model = small():compile{ loss = "mse" }
    local history = model:fit{ x, y, batch_size = 8, steps_per_epoch = 3, epochs = 4, validation = { x, y }, validation_freq = 2,
      verbose = 0,
      callbacks = { on_batch_end = function() count = count + 1 end } }
    assert.equal(12, count)
    assert.is_true(history.val_loss[1] ~= history.val_loss[1])
    assert.is_true(history.val_loss[2] == history.val_loss[2])
  end)

  it("weighs samples and classes as the loss does", function()
    bp.seed(3)
    local x, y, w = bp.randn(12, 3), bp.randint(1, 2, { 12 }), bp.rand(12)
    local function trained(given)
      bp.seed(5)
      local model = nn.sequential{ nn.dense(2) }
      model:compile{ optimizer = optim.sgd{ lr = 0.1 }, loss = "cross_entropy" }
      given.verbose, given.shuffle, given.batch_size = 0, false, 12
      model:fit(given)
      return model:layer(1).kernel
    end
    bp.seed(5)
    local net = nn.sequential{ nn.dense(2) }
    net:build_for{ 3 }
    local opt = optim.sgd(net:parameters(), { lr = 0.1 })
    bp.nn.loss.cross_entropy{ class_weights = { 1, 3 } }(net(x), y, w):backward()
    opt:step()
    assert.is_true(check.equal(net:layer(1).kernel, trained{ x, y, class_weight = { 1, 3 }, sample_weight = w }))
    assert.is_false(check.equal(net:layer(1).kernel, trained{ x, y }))
    fails("class_weight needs a loss over classes; this one is mse", function()
      small():compile{ loss = "mse" }:fit{ x, bp.zeros(12, 1), class_weight = { 1, 2 }, verbose = 0 }
    end)
  end)

  it("trains a model whose parameters were frozen without them, and notices changes between fits", function()
    local x, y = regression(32)
    local model = small()
    model(x)
    model:freeze "dense_1"
    local kept = model:layer(1).kernel:clone():detach()
    model:compile{ optimizer = optim.adam{ lr = 0.1 }, loss = "mse" }
    model:fit{ x, y, epochs = 3, verbose = 0 }
    assert.is_true(check.equal(kept, model:layer(1).kernel))
    model:unfreeze()
    model:compile{ optimizer = optim.adam{ lr = 0.1 }, loss = "mse" }
    model:fit{ x, y, epochs = 3, verbose = 0 }
    assert.is_false(check.equal(kept, model:layer(1).kernel))
  end)

  it("works on a module of one's own and with a loss of one's own", function()
    local Net = nn.module("SpecFitNet", function(self) self.out = nn.dense(1) end)
    function Net:forward(x) return self.out(x) end
    local x, y = regression(64)
    local model = Net()
    model:compile{ optimizer = optim.adam{ lr = 0.1 }, loss = function(p, t) return (p - t):abs():mean() end,
      metrics = { function(p, t) return (p - t):abs(), p:numel() end } }
    local history = model:fit{ x, y, epochs = 30, verbose = 0 }
    assert.is_true(history.loss[30] < 0.3 * history.loss[1])
    assert.near(history.loss[30], history.metric[30], 1e-4)
  end)

  it("stops with a warning when the loss is no number any more", function()
    local x, y = regression(32)
    local history
    local _, warnings = check.quietly(function()
      local model = nn.sequential{ nn.dense(1) }
      model:compile{ optimizer = optim.sgd{ lr = 1e25 }, loss = "mse" }
      history = model:fit{ x, y, epochs = 10, verbose = 0 }
    end)
    assert.is_true(#history < 10)
    assert.truthy(warnings[1]:find("lower the learning rate", 1, true))
  end)

  it("prints a plain line per epoch with verbose = 2", function()
    local x, y = regression(32)
    local lines = check.quietly(function()
      small():compile{ loss = "mse" }:fit{ x, y, epochs = 2, verbose = 2 }
    end)
    assert.equal(2, #lines)
    assert.truthy(lines[1]:match("^epoch 1/2 %- .+/step %- loss: [%d.]+$"), lines[1])
  end)
end)

describe("compile", function()
  it("takes probabilities where the model ends in softmax or sigmoid", function()
    local function from_logits(activation, loss)
      local model = nn.sequential{ nn.dense{ 3, activation = activation } }
      local _, warnings = check.quietly(function() model:compile{ loss = loss } end)
      return rawget(model, "compiled").loss.options.from_logits, warnings[1]
    end
    assert.is_true(from_logits(nil, "sparse_categorical_crossentropy"))
    assert.is_false(from_logits("softmax", "sparse_categorical_crossentropy"))
    assert.is_false(from_logits("softmax", "categorical_crossentropy"))
    assert.is_false(from_logits("sigmoid", "binary_crossentropy"))
    local kept, warning = from_logits("softmax", nn.loss.categorical_crossentropy())
    assert.is_true(kept)
    assert.truthy(warning:find("take the softmax away or say from_logits = false", 1, true))
  end)

  it("chooses the accuracy that goes with the loss", function()
    local expected = { sparse_categorical_crossentropy = "sparse_categorical_accuracy", categorical_crossentropy = "categorical_accuracy",
      binary_crossentropy = "binary_accuracy" }
    for loss, metric in pairs(expected) do
      local model = nn.sequential{ nn.dense(2) }:compile{ loss = loss, metrics = { "accuracy" } }
      assert.equal(metric, rawget(model, "compiled").metrics[1].row.name)
    end
  end)

  it("warns of accuracy on a regression, saying why", function()
    local _, warnings = check.quietly(function() small():compile{ loss = "mse", metrics = { "accuracy" } } end)
    assert.equal(1, #warnings)
    assert.truthy(warnings[1]:find("accuracy counts predictions that equal the target exactly", 1, true))
    assert.truthy(warnings[1]:find('"mae" or "r2"', 1, true))
    _, warnings = check.quietly(function() small():compile{ loss = "mse", metrics = { "mae" } } end)
    assert.equal(0, #warnings)
  end)

  it("says what it does not know", function()
    fails("compile: option 'loss' is missing", function() small():compile{} end)
    fails("compile: unknown loss 'msee' (did you mean 'mse'?)", function() small():compile{ loss = "msee" } end)
    fails("compile: unknown optimizer 'adamm' (did you mean 'adam'?)", function() small():compile{ loss = "mse", optimizer = "adamm" } end)
    fails("compile: unknown metric 'acuracy' (did you mean 'accuracy'?)",
      function() small():compile{ loss = "mse", metrics = { "acuracy" } } end)
    fails("compile: the loss has reduction \"none\"", function() small():compile{ loss = nn.loss.mse{ reduction = "none" } } end)
  end)
end)

describe("misuse", function()
  local x, y = regression(8)
  it("is refused with what was found and how to mend it", function()
    local model = small():compile{ loss = "mse" }
    local cases = {
      { "fit: the model is not compiled; first model:compile{", function() small():fit{ x, y } end },
      { "evaluate: the model is not compiled", function() small():evaluate{ x, y } end },
      { "fit: unknown option 'epoch' (did you mean 'epochs'?)", function() model:fit{ x, y, epoch = 3 } end },
      { "fit: option 'batch_size' is a number (0); expected a whole number at least 1", function() model:fit{ x, y, batch_size = 0 } end },
      { "fit: option 'validation_split' is a number (1)", function() model:fit{ x, y, validation_split = 1 } end },
      { "fit: option 'data' is missing", function() model:fit{} end },
      { "fit: x has 8 samples, y has 7; expected as many", function() model:fit{ x, bp.zeros(7, 1) } end },
      { "fit: there are no targets", function() model:fit{ x } end },
      { "fit: there are no samples", function() model:fit{ bp.zeros(0, 4), bp.zeros(0, 1) } end },
      { "fit: the data is a string", function() model:fit{ "x", y } end },
      { "the prediction is [8][1], the target [8][2]; expected the same shape",
        function() model:fit{ x, bp.zeros(8, 2), verbose = 0 } end },
      { "fit: option 'verbose' is \"loud\"; expected one of \"auto\" or a whole number",
        function() model:fit{ x, y, verbose = "loud" } end },
      { "fit: callback 1 has 'on_epoch_finish', which is never called", function()
        model:fit{ x, y, verbose = 0, callbacks = { { on_epoch_finish = print } } }
      end },
      { "sequential/dense_1: linear: x is [8x3]", function() model:fit{ bp.zeros(8, 3), y, verbose = 0 } end },
    }
    model(x)
    for _, case in ipairs(cases) do fails(case[1], case[2]) end
    assert.is_true(model:fit{ x, y, verbose = 0 }.loss[1] > 0) -- all is well afterwards
  end)
end)

describe("predict", function()
  it("gives one tensor for all batches, without gradient, in inference", function()
    bp.seed(1)
    local model = nn.sequential{ nn.dense(3), nn.dropout(0.5) }
    local x = bp.randn(21, 4)
    local all = model:predict{ x, batch_size = 5 }
    assert.same({ 21, 3 }, all:shape())
    assert.is_false(all.requires_grad)
    assert.is_true(model.training)
    near(all, model:layer(1)(x), 1e-6)
    assert.is_true(check.equal(all, model:predict(x)))
    assert.is_true(check.equal(all, model:predict{ x, capture = false }))
    assert.same({ 1, 3 }, model:predict(x[{ { 1, 1 } }]):shape())
  end)
end)
