--- The smaller callbacks: rates by epoch, time limit, plain functions, lines, TensorBoard's files, appended logs, relative patience.
local bp = require "bp"
local check = require "support.check"
local shell = require "support.shell"
local nn, optim, callbacks, fails = bp.nn, bp.optim, bp.callbacks, check.fails

local function train(given)
  bp.seed(1)
  local model = nn.sequential{ nn.dense(1) }
  model:compile{ optimizer = given.optimizer or optim.sgd{ lr = 0.1 }, loss = "mse" }
  local x = bp.randn(32, 2)
  given.optimizer = nil
  given[1], given[2], given.verbose = x, x:sum{ axes = 2, keepdims = true }, given.verbose or 0
  given.batch_size = given.batch_size or 8
  return model, model:fit(given)
end

describe("callbacks", function()
  local folder
  setup(function() folder = shell.folder() end)
  teardown(function() shell.remove(folder) end)

  it("lr_schedule sets the rate of every epoch, by a function or a schedule", function()
    local _, history = train{ epochs = 3, callbacks = callbacks.lr_schedule(function(epoch, rate) return rate / epoch end) }
    assert.same({ 0.1, 0.05, 0.1 / 6 }, { history.lr[1], history.lr[2], tonumber(("%.17g"):format(history.lr[3])) })
    _, history = train{ epochs = 3, callbacks = callbacks.lr_schedule(optim.schedule.step{ 0.5, every = 2 }) }
    assert.same({ 0.5, 0.5, 0.05 }, history.lr)
    fails("lr_schedule: the schedule returned nil for epoch 1", train, { callbacks = callbacks.lr_schedule(function() end) })
    fails("its learning rate follows a schedule", train, { optimizer = optim.sgd{ lr = optim.schedule.constant(1) },
      callbacks = callbacks.lr_schedule(function() return 1 end) })
  end)

  it("time_limit ends after the batch at hand; a resumed training goes on", function()
    local function given(limit)
      return { epochs = 3, resume = true, callbacks = { callbacks.checkpoint(folder .. "/timed"), callbacks.time_limit(limit) } }
    end
    local _, history = train(given(1e-9))
    assert.equal(0, #history)
    _, history = train(given{ hours = 1 })
    assert.equal(3, #history)
    assert.equal(select(2, train{ epochs = 3 }):to_csv(), history:to_csv())
    assert.equal(1, #select(2, train{ epochs = 3, callbacks = callbacks.time_limit(1e-9) }))
    fails("time_limit: the time is 0", callbacks.time_limit)
  end)

  it("lambda takes functions without self", function()
    local seen = {}
    train{ epochs = 2, callbacks = callbacks.lambda{ on_epoch_end = function(epoch, logs) seen[epoch] = type(logs.loss) end,
      on_train_begin = function(run) seen.model = run.model ~= nil end } }
    assert.same({ "number", "number", model = true }, seen)
    fails("lambda: unknown option 'on_epoch_ends' (did you mean 'on_epoch_end'?)", callbacks.lambda, { on_epoch_ends = print })
  end)

  it("progress gives a line every so many batches", function()
    local lines = {}
    train{ epochs = 1, callbacks = callbacks.progress{ 2, print = function(line) lines[#lines + 1] = line end } }
    assert.equal(2, #lines)
    assert.match("^epoch 1 batch 4/4 %- [%d%.e%-+]+ ms/step %- loss: %d", lines[2])
  end)

  it("csv_logger appends to an earlier table", function()
    local path = folder .. "/log.csv"
    train{ epochs = 2, callbacks = callbacks.csv_logger{ path, append = true } }
    local first = shell.read(path)
    train{ epochs = 2, callbacks = callbacks.csv_logger{ path, append = true } }
    assert.equal(first .. first:gsub("^[^\n]*\n", ""), shell.read(path))
  end)

  it("early_stopping waits by the best epoch with relative_patience", function()
    local values = { 5, 4, 3, 2, 3, 3, 3, 3, 3, 3 }
    local script = { on_epoch_end = function(_, epoch, logs) rawset(logs, "val_loss", values[epoch]) end }
    local _, history = train{ epochs = 10, callbacks = { script, callbacks.early_stopping{ relative_patience = 1.5 } } }
    assert.equal(7, #history)
  end)
end)

describe("tfevents", function()
  -- CRC-32C by its definition, bit by bit.
  local function masked(text)
    local crc = 0xffffffff
    for i = 1, #text do
      crc = crc ~ text:byte(i)
      for _ = 1, 8 do crc = (crc & 1) * 0x82f63b78 ~ crc >> 1 end
    end
    crc = crc ~ 0xffffffff
    return ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff
  end

  local function records(text)
    local list, at = {}, 1
    while at <= #text do
      local length, crc = string.unpack("<I8I4", text, at)
      assert.equal(masked(text:sub(at, at + 7)), crc)
      local data = text:sub(at + 12, at + 11 + length)
      assert.equal(masked(data), (string.unpack("<I4", text, at + 12 + length)))
      list[#list + 1], at = data, at + 16 + length
    end
    return list
  end

  -- What TensorFlow 2.21 writes for wall_time 1700000000.5, step 300, epoch_loss 0.125, after its first record.
  local TENSORFLOW = "1800000000000000a37f4b220900002040fc54d9411a0d627261696e2e4576656e743a322b3531102100000000000000017becf609000020"
    .. "40fc54d94110ac022a130a110a0a65706f63685f6c6f7373150000003e9d162312"

  it("writes the records that TensorFlow writes", function()
    local theirs = records((TENSORFLOW:gsub("%x%x", function(d) return string.char(tonumber(d, 16)) end)))
    local folder <close> = setmetatable({ path = shell.folder() }, { __close = function(f) shell.remove(f.path) end })
    local list = { { on_epoch_end = function(_, _, logs) rawset(logs, "loss", 0.125) end }, callbacks.tfevents(folder.path) }
    train{ epochs = 300, initial_epoch = 299, callbacks = list }
    local names = shell.run("ls " .. folder.path .. "/train").out
    assert.match("^events%.out%.tfevents%.%d+%.000300%.bplua%.v2\n$", names)
    local ours = records(shell.read(folder.path .. "/train/" .. names:gsub("\n", "")))
    assert.equal(2, #ours)
    assert.equal(theirs[1]:sub(10), ours[1]:sub(12)) -- after the wall time; ours states step 0
    assert.equal(theirs[2]:sub(10), ours[2]:sub(10))
    assert.equal("\x09", ours[2]:sub(1, 1))
  end)
end)
