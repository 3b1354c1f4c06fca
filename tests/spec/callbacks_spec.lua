--- Callbacks: when each is called, early stopping with the best weights, learning rate on a plateau, checkpoints, CSV.
local bp = require "bp"
local check = require "support.check"
local shell = require "support.shell"
local nn, optim, callbacks, fails = bp.nn, bp.optim, bp.callbacks, check.fails

-- A model whose logs are what a list says: the callback put first overwrites them.
local function scripted(values, key)
  local seen = {}
  return { on_epoch_end = function(_, epoch, logs, run)
    rawset(logs, key or "val_loss", values[epoch])
    seen[epoch] = run.model:get_weights()
  end }, seen
end

local function train(given)
  bp.seed(1)
  local model = nn.sequential{ nn.dense(1) }
  model:compile{ optimizer = given.optimizer or optim.sgd{ lr = 0.1 }, loss = "mse" }
  local x = bp.randn(16, 2)
  given.optimizer = nil
  given[1], given[2], given.verbose = x, x:sum{ axes = 2, keepdims = true }, given.verbose or 0
  return model, model:fit(given)
end

describe("callbacks", function()
  it("are called in order, with epoch, batch, logs and run", function()
    local calls = {}
    local cb = {}
    for _, when in ipairs{ "begin", "end" } do
      cb["on_train_" .. when] = function(_, run) calls[#calls + 1] = "train " .. when .. (run.model and "" or "!") end
      cb["on_epoch_" .. when] = function(_, epoch, logs, run)
        run = run or logs
        calls[#calls + 1] = ("epoch %s %d %s")
          :format(when, epoch, when == "end" and type(logs.loss) or "-") .. (run.epoch == epoch and "" or "!")
      end
      cb["on_batch_" .. when] = function(_, batch, logs)
        calls[#calls + 1] = ("batch %s %d %s"):format(when, batch, when == "end" and type(logs.loss) or "-")
      end
    end
    train{ epochs = 2, batch_size = 8, callbacks = { cb } }
    assert.same({ "train begin",
      "epoch begin 1 -", "batch begin 1 -", "batch end 1 number", "batch begin 2 -", "batch end 2 number", "epoch end 1 number",
      "epoch begin 2 -", "batch begin 1 -", "batch end 1 number", "batch begin 2 -", "batch end 2 number", "epoch end 2 number",
      "train end" }, calls)
  end)

  it("may stop the training", function()
    local _, history = train{ epochs = 9, callbacks = { on_epoch_end = function(_, epoch, _, run)
      if epoch == 3 then run:stop "enough" end
    end } }
    assert.equal(3, #history)
  end)
end)

describe("early_stopping", function()
  it("stops after patience epochs, restores the best weights and says so", function()
    local script, seen = scripted{ 5, 4, 3, 3.5, 3.2, 3.1, 2 }
    local stop = callbacks.early_stopping{ patience = 3 }
    local model, history
    local lines = check.quietly(function() model, history = train{ epochs = 7, verbose = 2, callbacks = { script, stop } } end)
    assert.equal(6, #history)
    assert.equal(3, stop.best_epoch)
    assert.equal(3, stop.best)
    assert.is_true(check.equal(seen[3]["dense_1.kernel"], model:layer(1).kernel))
    assert.equal("stopped after epoch 6: early stopping: val_loss did not become better than 3 of epoch 3 in 3 epochs", lines[7])
    assert.equal("the weights are those of epoch 3, the best: val_loss 3", lines[8])
  end)

  it("restores also when it was not the one to stop, unless told not to", function()
    local script, seen = scripted{ 5, 1, 2 }
    local model = train{ epochs = 3, callbacks = { script, callbacks.early_stopping{ patience = 9 } } }
    assert.is_true(check.equal(seen[2]["dense_1.kernel"], model:layer(1).kernel))
    script, seen = scripted{ 5, 1, 2 }
    model = train{ epochs = 3, callbacks = { script, callbacks.early_stopping{ patience = 9, restore_best_weights = false } } }
    assert.is_true(check.equal(seen[3]["dense_1.kernel"], model:layer(1).kernel))
  end)

  it("keeps Keras' meaning of patience, min_delta, mode, baseline and start_from_epoch", function()
    local function epochs(values, given, key)
      given.monitor = key
      local _, history = train{ epochs = #values, callbacks = { (scripted(values, key)), callbacks.early_stopping(given) } }
      return #history
    end
    assert.equal(2, epochs({ 1, 1, 1, 1 }, {}))
    assert.equal(2, epochs({ 1, 1, 1, 1 }, { patience = 1 }))
    assert.equal(3, epochs({ 1, 1, 1, 1 }, { patience = 2 }))
    assert.equal(4, epochs({ 1, 0.95, 0.9, 0.85 }, { patience = 1 }))
    assert.equal(2, epochs({ 1, 0.95, 0.9, 0.85 }, { patience = 1, min_delta = 0.1 }))
    assert.equal(4, epochs({ 0.1, 0.2, 0.3, 0.4 }, { patience = 1 }, "val_accuracy"))
    assert.equal(2, epochs({ 0.1, 0.2, 0.3, 0.4 }, { patience = 1 }, "val_thing"))
    assert.equal(4, epochs({ 0.1, 0.2, 0.3, 0.4 }, { patience = 1, mode = "max" }, "val_thing"))
    assert.equal(2, epochs({ 3, 2.5, 1 }, { patience = 2, baseline = 2 }))
    assert.equal(4, epochs({ 1, 2, 3, 4, 5 }, { patience = 1, start_from_epoch = 2 }))
    assert.equal(1, epochs({ 0 / 0, 1 }, {}))
  end)

  it("says when the number is not there", function()
    fails("early_stopping: the logs have no 'val_loss'; fit has no validation: give it validation or validation_split",
      train, { epochs = 2, callbacks = { callbacks.early_stopping() } })
    fails("early_stopping: the logs have no 'los' (did you mean 'loss'?)",
      train, { epochs = 2, callbacks = { callbacks.early_stopping{ monitor = "los" } } })
    fails("early_stopping: unknown option 'patient' (did you mean 'patience'?)", callbacks.early_stopping, { patient = 3 })
  end)
end)

describe("reduce_lr_on_plateau", function()
  local function rates(values, given)
    local list, opt = {}, optim.sgd{ lr = 1 }
    train{ optimizer = opt, epochs = #values, callbacks = { (scripted(values)), callbacks.reduce_lr_on_plateau(given),
      { on_epoch_end = function() list[#list + 1] = opt:get_lr() end } } }
    return list
  end

  it("lowers the rate as Keras does", function()
    assert.same({ 1, 1, 0.5, 0.5, 0.25 }, rates({ 1, 1, 1, 1, 1 }, { factor = 0.5, patience = 2 }))
    assert.same({ 1, 0.5, 0.5, 0.5, 0.5 }, rates({ 1, 1, 0.5, 0.4, 0.3 }, { factor = 0.5, patience = 1 }))
    assert.same({ 1, 0.5, 0.5, 0.25, 0.25 }, rates({ 1, 1, 1, 1, 1 }, { factor = 0.5, patience = 1, cooldown = 2 }))
    assert.same({ 1, 0.5, 0.3, 0.3 }, rates({ 1, 1, 1, 1 }, { factor = 0.5, patience = 1, min_lr = 0.3 }))
  end)

  it("does not work on a schedule, and says so", function()
    fails("reduce_lr_on_plateau: the optimizer's learning rate follows a schedule", train,
      { optimizer = optim.sgd{ lr = optim.schedule.constant(0.1) }, epochs = 3,
      callbacks = { (scripted{ 1, 1, 1 }), callbacks.reduce_lr_on_plateau{ patience = 1 } } })
  end)

  it("logs the rate", function()
    local _, history = train{ epochs = 3, callbacks = { (scripted{ 1, 1, 1 }), callbacks.reduce_lr_on_plateau{ patience = 1 } } }
    assert.near(0.1, history.lr[1], 1e-9)
    assert.near(0.01, history.lr[2], 1e-9)
  end)
end)

describe("files", function()
  local folder
  setup(function() folder = shell.folder() end)
  teardown(function() shell.remove(folder) end)

  it("checkpoint keeps the newest, each a model that loads and an optimizer's state", function()
    local opt = optim.adam{ lr = 0.1 }
    local model = train{ optimizer = opt, epochs = 5,
      callbacks = { callbacks.checkpoint{ folder .. "/run/ckpt", keep = 2, best = "loss" } } }
    local names = assert(require("bp.core").list_folder(folder .. "/run/ckpt"))
    table.sort(names)
    assert.same({ "best.safetensors", "epoch-00004.safetensors", "epoch-00005.safetensors" }, names)
    local loaded = assert(bp.load(folder .. "/run/ckpt/epoch-00005.safetensors"))
    local x = bp.randn(3, 2)
    assert.is_true(check.equal(model:predict(x), loaded:predict(x)))
    local tensors, metadata = assert(bp.load_tensors(folder .. "/run/ckpt/epoch-00005.safetensors"))
    for name, tensor in pairs(opt:state()) do assert.is_true(check.equal(tensor, tensors["@optimizer." .. name]), name) end
    local training = bp.json.decode(metadata["bplua.training"])
    assert.equal(5, training.epoch)
    assert.equal(5, #training.state.history)
  end)

  it("checkpoint fails loudly where it cannot write", function()
    shell.write(folder .. "/file", "x")
    fails("checkpoint: ", train, { epochs = 1, callbacks = { callbacks.checkpoint(folder .. "/file/ckpt") } })
  end)

  it("csv_logger writes a line per epoch", function()
    local _, history = train{ epochs = 3, callbacks = { callbacks.csv_logger(folder .. "/log.csv") } }
    local file <close> = io.open(folder .. "/log.csv")
    local text = file:read "a"
    assert.equal(history:to_csv(), text)
    assert.equal(4, select(2, text:gsub("\n", "")))
    fails("csv_logger: ", train, { epochs = 1, callbacks = { callbacks.csv_logger(folder .. "/nowhere/log.csv") } })
  end)
end)
