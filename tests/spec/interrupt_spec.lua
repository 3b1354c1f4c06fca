--- Ctrl-C, SIGTERM, --resume and disks that fail, as a user of the command meets them.
local bp = require "bp"
local check = require "support.check"
local shell = require "support.shell"
local nn, callbacks = bp.nn, bp.callbacks

-- A training whose batches take a while; arg[1]: folder of checkpoints or "", arg[2]: seconds a batch.
local PROGRAM = [[
local bp = require "bp"
bp.seed(1)
local model = bp.nn.sequential{ bp.nn.dense(1) }
model:compile{ optimizer = "sgd", loss = "mse" }
local x = bp.randn(40, 2)
local list = arg[1] ~= "" and { bp.callbacks.checkpoint(arg[1]) } or {}
print "begins"
io.stdout:flush()
local function slowly(a, b)
  local till = os.clock() + tonumber(arg[2])
  while os.clock() < till do end
  return a, b
end
local ok, err = pcall(function()
  model:fit{ x, x:sum{ axes = 2, keepdims = true }, epochs = 3, batch_size = 8, verbose = 2, transform = slowly, callbacks = list }
end)
print("after fit", ok, err)
]]

describe("bplua", function()
  local folder, script
  before_each(function()
    folder = shell.folder()
    script = folder .. "/train.lua"
    shell.write(script, PROGRAM)
  end)
  after_each(function() shell.remove(folder) end)

  -- Sends signals to the training, pauses between, and gives output, status and seconds it took.
  local function interrupted(signals, path, seconds)
    local lines = { ("%s %s %s %s > %s/out 2>&1 & pid=$!"):format(shell.bplua, script, shell.quote(path), seconds, folder),
      ("while ! grep -q begins %s/out; do sleep 0.02; done; sleep 0.15"):format(folder) }
    for _, signal in ipairs(signals) do lines[#lines + 1] = ("kill -%s $pid; sleep 0.1"):format(signal) end
    lines[#lines + 1] = "wait $pid; exit $?"
    local r = shell.run(table.concat(lines, "\n"))
    return shell.read(folder .. "/out"), r.code
  end

  for signal, expected in pairs{ INT = { 130, "Ctrl%-C" }, TERM = { 143, "SIGTERM" } } do
    it(("finishes the batch, saves and exits %d on SIG%s"):format(expected[1], signal), function()
      local out, code = interrupted({ signal }, folder .. "/ckpt", 0.1)
      assert.equal(expected[1], code, out)
      assert.match(expected[2] .. " in epoch %d after batch %d: saved .*/ckpt/epoch%-.*; bplua %-%-resume", out)
      assert.is_falsy(out:find "after fit")
      local saved = assert(bp.checkpoint.newest(folder .. "/ckpt"))
      assert.is_true(saved.training.batch == nil or saved.training.batch >= 1)

      local r = shell.run(("%s --resume %s %s/ckpt 0.001"):format(shell.bplua, script, folder))
      assert.equal(0, r.code, r.err)
      assert.match("resuming in epoch %d after batch %d, from .*ckpt", r.out)
      assert.match("the script's arguments were", r.err)
      assert.match("after fit\ttrue", r.out)
    end)
  end

  it("says that nothing is saved where there is no checkpoint", function()
    local out, code = interrupted({ "INT" }, "", 0.05)
    assert.equal(130, code)
    assert.match("nothing is saved, as fit has no callbacks.checkpoint", out)
  end)

  it("exits at once on the second one", function()
    local start = os.time()
    local out, code = interrupted({ "INT", "INT" }, folder .. "/ckpt", 30)
    assert.equal(130, code, out)
    assert.is_true(os.time() - start < 15)
    assert.is_falsy(out:find "saved")
  end)

  it("lets a loop of one's own save before it ends", function()
    shell.write(script, [[
local bp = require "bp"
local watch <close> = bp.checkpoint.watch()
print "begins"
io.stdout:flush()
for i = 1, 1e9 do
  if watch:interrupted() then
    print(bp.checkpoint.save{ arg[1], at = i, state = { i = i } })
    watch:leave()
  end
end]])
    local out, code = interrupted({ "TERM" }, folder .. "/own", 0)
    assert.equal(143, code, out)
    assert.match("own/step%-%d+%.safetensors", out)
    local state, path
    check.quietly(function() state, path = bp.checkpoint.load(folder .. "/own") end)
    assert.equal(tonumber(path:match "step%-(%d+)"), state.i)
    local watch <close> = bp.checkpoint.watch()
    assert.is_false(watch:interrupted())
    watch:leave()
  end)

  it("--resume begins anew where there is no checkpoint, and does nothing to fits without", function()
    local r = shell.run(("%s --resume %s %s/ckpt 0"):format(shell.bplua, script, folder))
    assert.match("has no checkpoint yet: starting from the beginning", r.out)
    r = shell.run(("%s --resume %s '' 0"):format(shell.bplua, script))
    assert.match("after fit\ttrue", r.out)
    assert.equal(1, shell.run(shell.bplua .. " --resum " .. script).code)
  end)
end)

describe("a checkpoint that cannot be written", function()
  local function train(folder, on_error)
    bp.seed(1)
    local model = nn.sequential{ nn.dense(1) }
    model:compile{ optimizer = "sgd", loss = "mse" }
    local x = bp.randn(16, 2)
    -- from the third epoch on the folder is a file, as when a disk went away
    local saboteur = { on_epoch_begin = function(_, epoch)
      if epoch == 3 then
        assert(os.rename(folder .. "/ckpt", folder .. "/away"))
        shell.write(folder .. "/ckpt", "")
      end
    end }
    return model:fit{ x, x:sum{ axes = 2, keepdims = true }, epochs = 5, verbose = 0,
      callbacks = { saboteur, callbacks.checkpoint{ folder .. "/ckpt", on_error = on_error } } }
  end

  it("ends the training with the reason, or goes on if told so; the old ones are whole", function()
    local folder <close> = setmetatable({ path = shell.folder() }, { __close = function(f) shell.remove(f.path) end })
    check.fails("checkpoint: " .. folder.path .. "/ckpt/epoch-00003.safetensors: cannot be written", train, folder.path)
    assert.equal(2, assert(bp.checkpoint.newest(folder.path .. "/away")).training.epoch)
    shell.remove(folder.path .. "/away")
    shell.remove(folder.path .. "/ckpt")
    local history
    local _, warnings = check.quietly(function() history = train(folder.path, "warn") end)
    assert.equal(5, #history)
    assert.equal(3, #warnings)
    assert.match("cannot be written: .*; the training goes on without", warnings[1])
    assert.equal(2, assert(bp.checkpoint.newest(folder.path .. "/away")).training.epoch)
  end)

  it("is found out before the training begins", function()
    local folder <close> = setmetatable({ path = shell.folder() }, { __close = function(f) shell.remove(f.path) end })
    shell.write(folder.path .. "/file", "")
    local model = nn.sequential{ nn.dense(1) }
    model:compile{ optimizer = "sgd", loss = "mse" }
    local began = false
    check.fails("checkpoint: " .. folder.path .. "/file/ckpt", model.fit, model, { bp.randn(8, 2), bp.randn(8, 1), verbose = 0,
      callbacks = { callbacks.checkpoint(folder.path .. "/file/ckpt"), { on_batch_begin = function() began = true end } } })
    assert.is_false(began)
  end)
end)
