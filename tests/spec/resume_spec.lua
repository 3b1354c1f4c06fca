--- Checkpoints: a training that is interrupted and gone on with ends with the same bits; damage is found; other models are refused.
local bp = require "bp"
local core = require "bp.core"
local check = require "support.check"
local kills = require "support.kills"
local shell = require "support.shell"
local nn, optim, callbacks, data, fails = bp.nn, bp.optim, bp.callbacks, bp.data, check.fails

-- A fresh program as far as draws and weights go: the same model, data and callbacks each time.
local function program(given)
  bp.seed(given.seed or 3)
  local model = nn.sequential{ nn.dense{ given.units or 5, activation = "tanh" }, nn.batch_norm(), nn.dropout(0.2), nn.dense(1) }
  model:compile{ optimizer = given.optimizer or optim.adam{ lr = 0.01, amsgrad = true }, loss = "mse",
    metrics = given.metrics or { "mae", "r2" } }
  local x = bp.randn(40, 3)
  local fit = { x, x:sum{ axes = 2, keepdims = true }, epochs = 4, batch_size = 8, verbose = 0, validation_split = 0.2 }
  for key, value in pairs(given.fit or {}) do fit[key] = value end
  return model, function() return model:fit(fit) end
end

local function state_of(model)
  local all = model:get_weights()
  for name, tensor in pairs(model.compiled.optimizer:state()) do all["optimizer " .. name] = tensor:clone() end
  for _, name in ipairs{ "init", "shuffle", "dropout" } do all["stream " .. name] = core.stream(name):clone() end
  return all
end

local function assert_same_state(expected, model)
  for name, tensor in pairs(state_of(model)) do assert.is_true(check.equal(expected[name], tensor), name) end
end

local function noisy(x, y) return x + bp.ops.random_normal(core.stream "noise", { shape = x:shape(), std = 0.1 }), y end

describe("resume", function()
  local folder
  before_each(function() folder = shell.folder() end)
  after_each(function() shell.remove(folder) end)

  -- Trains to the end, then again with an error after so many batches, then goes on.
  local function broken_at(batch, given)
    local model, run = program(given(nil))
    local history = run()
    local expected = state_of(model)
    local seen = 0
    local bomb = { on_batch_end = function()
      seen = seen + 1
      if seen == batch then error "bang" end
    end }
    local _, run_broken = program(given(folder .. "/ckpt", bomb))
    assert.has_error(run_broken, "bang")
    local again, run_again = program(given(folder .. "/ckpt", {}))
    local resumed = run_again()
    assert.equal(history:to_csv(), resumed:to_csv())
    assert_same_state(expected, again)
  end

  for _, batch in ipairs{ 1, 3, 4, 5, 11, 16 } do
    it("gives the same bits after an end in batch " .. batch, function()
      broken_at(batch, function(path, bomb)
        local list = { callbacks.early_stopping{ patience = 3, monitor = "loss" }, bomb }
        if path then table.insert(list, 1, callbacks.checkpoint{ path, every = "3 batches" }) end
        return { fit = { callbacks = list, resume = path and true } }
      end)
    end)
  end

  it("keeps schedules, clipping and eager steps", function()
    broken_at(9, function(path, bomb)
      return { optimizer = optim.sgd{ lr = optim.schedule.cosine{ 0.1, steps = 16 }, momentum = 0.9, clip_norm = 0.5 },
        fit = { callbacks = { path and callbacks.checkpoint{ path, every = 1 } or {}, bomb }, resume = path and true, capture = false } }
    end)
  end)

  it("keeps averages of weights and gathered gradients", function()
    for _, batch in ipairs{ 3, 8, 11 } do
      broken_at(batch, function(path, bomb)
        return { optimizer = optim.adam{ lr = 0.01, ema = 0.9, accumulate = 2 },
          fit = { callbacks = { path and callbacks.checkpoint{ path, every = "1 batches" } or {}, callbacks.nan_guard{ every = 3 }, bomb },
            resume = path and true } }
      end)
      shell.remove(folder)
    end
  end)

  it("keeps its place with steps_per_epoch, validation_freq, weights, guards and callbacks of one's own", function()
    for _, batch in ipairs{ 2, 4, 6, 7 } do
      local totals = {}
      broken_at(batch, function(path, bomb)
        local own = { sum = 0, note = "", seen = {} }
        function own:on_batch_end(n, logs)
          self.sum = self.sum + logs.loss
          self.seen[n] = (self.seen[n] or 0) + 1
        end
        function own:on_train_end() totals[#totals + 1] = { self.sum, table.unpack(self.seen) } end
        return { fit = { steps_per_epoch = 3, validation_freq = 2, sample_weight = bp.arange(1, 40) / 40, resume = path and true,
          transform = noisy,
          callbacks = { path and callbacks.checkpoint{ path, every = "2 batches" } or {}, own, callbacks.nan_guard{ "skip", every = 5 },
            callbacks.reduce_lr_on_plateau{ monitor = "loss", patience = 0 }, bomb } } }
      end)
      assert.equal(2, #totals)
      assert.same(totals[1], totals[2])
      shell.remove(folder)
    end
  end)

  it("works for models with several inputs and outputs", function()
    local function given(path, bomb)
      bp.seed(6)
      local a, b = nn.input{ 3 }, nn.input{ 2 }
      local h = nn.dense{ 6, activation = "tanh" }(nn.concat()(a, b))
      local m = nn.model{ inputs = { a, b }, outputs = { nn.dense(1)(h), nn.dense{ 2, name = "kind" }(h) } }
      m:compile{ optimizer = optim.adam{ lr = 0.01 }, loss = { "mse", "sparse_categorical_crossentropy" },
        metrics = { { "mae" }, { "accuracy" } } }
      local x = { bp.randn(30, 3), bp.randn(30, 2) }
      local y = { bp.randn(30, 1), bp.randint(1, 2, { 30 }) }
      return m, function()
        return m:fit{ x = x, y = y, epochs = 3, batch_size = 8, verbose = 0, resume = path and true,
          callbacks = { path and callbacks.checkpoint{ path, every = "1 batches" } or {}, bomb } }
      end
    end
    local m, run = given()
    local history = run()
    local expected, seen = state_of(m), 0
    local _, broken = given(folder .. "/m", { on_batch_end = function()
      seen = seen + 1
      if seen == 7 then error "bang" end
    end })
    assert.has_error(broken, "bang")
    local again, run_again = given(folder .. "/m", {})
    assert.equal(history:to_csv(), run_again():to_csv())
    assert_same_state(expected, again)
  end)

  it("reads the checkpoint of format 1 that is kept with the tests", function()
    local saved = assert(bp.checkpoint.read "tests/vectors/checkpoint_1.safetensors")
    assert.equal(1, saved.training.format)
    local path = folder .. "/epoch-00002-batch-000002.safetensors"
    assert(core.make_folder(folder))
    shell.write(path, shell.read "tests/vectors/checkpoint_1.safetensors")
    local model, run = program{ metrics = {}, fit = { epochs = 3, resume = folder,
      callbacks = { callbacks.early_stopping{ monitor = "loss", patience = 9 } } } }
    local history
    local _, warnings = check.quietly(function() history = run() end)
    assert.equal(3, #history)
    assert.equal(12, model.compiled.optimizer:steps(), table.concat(warnings, "\n"))
    assert.near(saved.state.history[1].loss, history.loss[1], 0)
  end)

  it("of a training that was over only brings back what it ended with", function()
    local function given() return { fit = { resume = true, epochs = 9, callbacks = { callbacks.checkpoint{ folder .. "/c" },
      callbacks.early_stopping{ monitor = "loss", min_delta = 10, patience = 2 } } } } end
    local model, run = program(given())
    local history = run()
    assert.equal(3, #history)
    local expected = state_of(model)
    local again, run_again = program(given())
    assert.equal(history:to_csv(), run_again():to_csv())
    assert_same_state(expected, again)
  end)

  it("goes on to more epochs, and says where from", function()
    local function given(epochs)
      return { fit = { verbose = 2, resume = true, epochs = epochs, callbacks = { callbacks.checkpoint(folder) } } }
    end
    local lines = check.quietly(function() select(2, program(given(2)))() end)
    assert.equal(folder .. " has no checkpoint yet: starting from the beginning", lines[1])
    lines = check.quietly(function() assert.equal(5, #select(2, program(given(5)))()) end)
    assert.equal(("resuming after epoch 2, from %s/epoch-00002.safetensors"):format(folder), lines[1])
    assert.match("^epoch 3/5", lines[2])
  end)

  it("passes over a damaged file and says so; none sound is an error", function()
    local function given() return { fit = { resume = true, epochs = 3, callbacks = { callbacks.checkpoint(folder) } } } end
    local _, run = program(given())
    run()
    local path = folder .. "/epoch-00003.safetensors"
    local text = shell.read(path)
    shell.write(path, text:sub(1, #text // 2))
    local _, warnings = check.quietly(function() select(2, program(given()))() end)
    assert.match("resume: .*epoch%-00003.safetensors: truncated.*; going back to the checkpoint before it, .*epoch%-00002", warnings[1])
    for _, name in ipairs{ "epoch-00002", "epoch-00003" } do shell.write(("%s/%s.safetensors"):format(folder, name), "x") end
    fails("is sound: ", select(2, program(given())))
  end)

  it("refuses another model with what differs, other data, a newer format, another optimizer", function()
    local function given(more)
      local all = { fit = { resume = true, epochs = 2, callbacks = { callbacks.checkpoint{ folder, every = "3 batches" } } } }
      for key, value in pairs(more or {}) do all[key] = value end
      return all
    end
    local _, run = program(given())
    run()
    fails("is of another model:\n  dense_1.kernel: f32 [3][6] here, f32 [3][5] there", select(2, program(given{ units = 6 })))
    fails("it comes from another optimizer", select(2, program(given{ optimizer = optim.rmsprop() })))
    os.remove(folder .. "/epoch-00002.safetensors")
    local other = given()
    other.fit.batch_size = 10
    fails("other batches", select(2, program(other)))
    other = given()
    other.fit.validation_split = 0.5
    fails("so the place within epoch 2 is lost", select(2, program(other)))

    local path = folder .. "/epoch-00002-batch-000002.safetensors"
    local tensors, metadata = assert(bp.load_tensors(path))
    local training = bp.json.decode(metadata["bplua.training"])
    training.format = 99
    metadata["bplua.training"] = bp.json.encode(training)
    bp.save_tensors(path, tensors, metadata)
    fails("the checkpoint has format 99; this bp", select(2, program(given())))
  end)

  it("reports another version, other kernels, threads and a changed script", function()
    local function given() return { fit = { resume = true, epochs = 2, callbacks = { callbacks.checkpoint(folder) } } } end
    select(2, program(given()))()
    local path = folder .. "/epoch-00002.safetensors"
    local tensors, metadata = assert(bp.load_tensors(path))
    local training = bp.json.decode(metadata["bplua.training"])
    local env = training.environment
    env.version, env.isa, env.threads, env.script.crc = "0.0.1", "quantum", 99, 1
    metadata["bplua.training"] = bp.json.encode(training)
    bp.save_tensors(path, tensors, metadata)
    local _, warnings = check.quietly(function() select(2, program(given()))() end)
    local text = table.concat(warnings, "\n")
    for _, part in ipairs{ "written by bp 0.0.1", "kernels quantum", "99 threads", "was changed since" } do assert.match(part, text) end
  end)

  it("without resume moves the checkpoints of an earlier training aside", function()
    local function given() return { fit = { epochs = 2, callbacks = { callbacks.checkpoint{ folder, keep = 1 } } } } end
    select(2, program(given()))()
    local _, warnings = check.quietly(function() select(2, program(given()))() end)
    assert.match("up to epoch 2, which are now in", warnings[1])
    assert.is_truthy(bp.load(folder .. "/previous/epoch-00002.safetensors"))
    assert.is_truthy(bp.load(folder .. "/epoch-00002.safetensors"))
  end)

  it("needs to know from where", function()
    fails("resume needs to know from where", select(2, program{ fit = { resume = true } }))
    fails("there is no checkpoint in", select(2, program{ fit = { resume = folder } }))
    fails("option 'every' is \"often\"", callbacks.checkpoint, { folder, every = "often" })
  end)

  it("does not save weights that went wrong", function()
    local model, run = program{ fit = { epochs = 4, callbacks = { callbacks.checkpoint(folder),
      { on_epoch_begin = function(_, epoch, r)
        if epoch == 3 then r.model:layer(1).kernel = bp.full({ 3, 5 }, 0 / 0) end
      end } } } }
    check.quietly(run)
    assert.is_truthy(model)
    local saved = assert(bp.checkpoint.newest(folder))
    assert.equal(2, saved.training.epoch)
  end)

  it("of a loop of one's own goes on within the epoch", function()
    local function own(stop_at)
      bp.seed(8)
      local x = bp.randn(50, 3)
      local train = data.tensors{ x = x, y = x:sum{ axes = 2, keepdims = true } }
      local net = nn.sequential{ nn.dense{ 4, activation = "relu" }, nn.dropout(0.1), nn.dense(1) }
      net:build_for{ 3 }
      local opt = optim.adam(net:parameters(), { lr = 0.01 })
      local step = bp.capture(function(a, b)
        local loss = nn.loss.mse(net(a), b)
        opt:zero_grad()
        loss:backward()
        opt:step()
        return loss
      end)
      local saved = bp.checkpoint.load{ folder, model = net, optimizer = opt }
      local first, from = saved and saved.epoch or 1, saved and saved.batches
      for epoch = first, 3 do
        local batches = train:batches{ 8, shuffle = true, resume = from }
        from = nil
        for batch in batches do
          step(batch.x, batch.y)
          if opt:steps() == stop_at then return end
          if opt:steps() % 4 == 0 then
            assert(bp.checkpoint.save{ folder, at = opt:steps(), model = net, optimizer = opt,
              state = { epoch = epoch, batches = batches, text = "\255\0", odd = { [0.5] = -1 / 0 } } })
          end
        end
      end
      return net:get_weights(), saved
    end
    local expected = own()
    shell.remove(folder)
    own(18)
    local got, saved = own()
    assert.equal(3, saved.epoch)
    assert.equal("\255\0", saved.text)
    assert.equal(-1 / 0, saved.odd[0.5])
    for name, tensor in pairs(expected) do assert.is_true(check.equal(tensor, got[name]), name) end
    assert.same({ nil, "eio" }, { (function()
      local ok, _, code = bp.checkpoint.save{ "/proc/nowhere", at = 1, state = {} }
      return ok, code
    end)() })
  end)
end)

-- RESUME_BITS=1 tries every bit of the header.
describe("a damaged checkpoint", function()
  it("is found: bits of the header, random bits of the data, truncation", function()
    local folder <close> = setmetatable({ path = shell.folder() }, { __close = function(f) shell.remove(f.path) end })
    bp.seed(2)
    local net = nn.sequential{ nn.dense(3) }
    net:build_for{ 4 }
    local path = assert(bp.checkpoint.save{ folder.path, at = 1, model = net, optimizer = optim.adam(net:parameters()) })
    local text = shell.read(path)
    local header = string.unpack("<I8", text)
    math.randomseed(5)
    local function turned(bit)
      local byte = bit // 8 + 1
      shell.write(path, text:sub(1, byte - 1) .. string.char(text:byte(byte) ~ (1 << bit % 8)) .. text:sub(byte + 1))
      return bp.checkpoint.read(path)
    end
    local unnoticed = {}
    for bit = 0, (8 + header) * 8 - 1, tonumber(os.getenv "RESUME_BITS") or 61 do
      if turned(bit) then unnoticed[#unnoticed + 1] = bit end
    end
    for _ = 1, 300 do
      local bit = math.random((8 + header) * 8, #text * 8 - 1)
      if turned(bit) then unnoticed[#unnoticed + 1] = bit end
    end
    for k = 0, 99 do
      shell.write(path, text:sub(1, #text * k // 100))
      if bp.checkpoint.read(path) then unnoticed[#unnoticed + 1] = "cut at " .. k end
    end
    assert.same({}, unnoticed)
  end)
end)

describe("bplua", function()
  for _, case in ipairs{ { "KILL", 4, "mlp" }, { "INT", 3, "cnn" }, { "TERM", 3, "mlp" } } do
    local signal, count, net = table.unpack(case)
    it(("ends with the same bits when SIG%s meets the %s at %d random instants"):format(signal, net, count), function()
      local path = ("tests/support/resume/%s.lua"):format(net)
      local _, rounds, failures = kills.run(path, count, 0.4, signal, (kills.undisturbed(path)))
      assert.same({}, failures)
      assert.is_true(rounds >= 1)
    end)
  end
end)
