--- callbacks.nan_guard: NaN and infinities are traced to the layer, op and step where they were born; what follows is as asked.
local bp = require "bp"
local check = require "support.check"
local shell = require "support.shell"
local nn, optim, callbacks, fails = bp.nn, bp.optim, bp.callbacks, check.fails

-- Ways to go wrong for the one sample whose trigger is not 1: what each layer adds is 0 as long as the trigger is 1. The gradient ones are
-- finite forward.
local injections = {
  { op = "log", what = "nan", bad = -1, fn = function(t) return t:log() end },
  { op = "log", what = "inf", bad = 0, fn = function(t) return t:log() end },
  { op = "sqrt", what = "nan", bad = -4, fn = function(t) return t:sqrt() - 1 end },
  { op = "div", what = "inf", bad = 0, fn = function(t) return 1 / t - 1 end },
  { op = "exp", what = "inf", bad = 1e4, fn = function(t) return (t - 1):exp() - 1 end },
  { op = "square", what = "inf", bad = 1e30, fn = function(t) return t:square() - 1 end },
  { op = "mul", what = "inf", bad = 3e38, fn = function(t) return t * 8 - 8 end },
  { gradient_of = "sqrt", what = "nan", bad = 0, fn = function(t, w) return (t * (w * w + 1)):sqrt() * 0 end },
}

local Faulty = nn.module("Faulty", function(self, injection)
  self.injection = injection
  self.scale = nn.parameter(bp.ones(1))
end)
function Faulty:forward(x, trigger)
  local one = self.injection
  return x + one.fn(trigger, self.scale)
end

local Net = nn.module("FaultyNet", function(self, depth, at, injection)
  self.blocks = {}
  for i = 1, depth do self.blocks[i] = nn.dense{ 6, activation = "tanh" } end
  self.at = at
  self.fault = Faulty(injection)
  self.out = nn.dense(1)
end)
function Net:forward(x)
  local trigger, h = x[{ {}, { 5, 5 } }], x[{ {}, { 1, 4 } }]
  for i, block in ipairs(self.blocks) do
    h = block(h)
    if i == self.at then h = self.fault(h, trigger) end
  end
  return self.out(h)
end

local N, BATCH = 64, 8

-- Trains with one bad sample; gives the guard, the history, the step in which the sample came, the model, and warnings.
local function train(given)
  bp.seed(given.seed or 1)
  local x = bp.randn(N, 5)
  x[{ {}, 5 }] = 1
  if given.sample then x[{ given.sample, 5 }] = given.injection.bad end
  local y = x[{ {}, { 1, 4 } }]:sum{ axes = 2, keepdims = true }
  local model = Net(given.depth or 2, given.at or 1, given.injection or injections[1])
  model:compile{ optimizer = given.optimizer or optim.adam{ lr = 0.01 }, loss = "mse", metrics = { "mae" } }
  local guard = callbacks.nan_guard{ on_nan = given.on_nan, every = given.every }
  local seen, step = nil, 0
  local spy = { before_step = function(_, run)
    step = step + 1
    if not seen and run.current.index:eq(given.sample or -1):any():item() then seen = step end
  end }
  local history
  local list = { spy, guard }
  if given.no_guard then list = { spy } end
  for _, more in ipairs(given.callbacks or {}) do list[#list + 1] = more end
  local _, warnings = check.quietly(function()
    history = model:fit{ x, y, epochs = given.epochs or 2, batch_size = BATCH, verbose = 0, callbacks = list, capture = given.capture,
      transform = given.transform }
  end)
  return guard, history, seen, model, warnings
end

describe("nan_guard", function()
  it("locates 50 injections: layer, op, step and what the op read", function()
    math.randomseed(2)
    for trial = 1, 50 do
      local injection = injections[trial % #injections + 1]
      local depth = math.random(1, 4)
      local at, sample = math.random(depth), math.random(N)
      local guard, _, step, _, warnings = train{ seed = trial, depth = depth, at = at, sample = sample, injection = injection,
        every = math.random(1, 12), capture = trial % 5 ~= 0 }
      local label = ("trial %d: %s"):format(trial, guard.reports[1] and guard.reports[1].text or "no report")
      assert.equal(1, guard.events, label)
      local found = guard.reports[1]
      assert.equal(step, found.step, label)
      assert.match("^" .. injection.what .. " is born in op", found.text)
      assert.equal("FaultyNet/fault", found.where, label)
      assert.equal(injection.op or "div", found.op, label)
      assert.equal(injection.gradient_of, found.gradient_of, label)
      assert.match("inputs: .* from %-?[%d%.e+]+ to ", found.text)
      assert.match("nan_guard: step " .. step .. " %(epoch 1, batch " .. step .. "%)", warnings[1])
    end
  end)

  it("stops with the weights before that step", function()
    local _, _, step = train{ sample = 40, injection = injections[1] }
    local _, history, _, model = train{ sample = 40, injection = injections[1] }
    local steps = 0
    local _, _, _, good = train{ callbacks = { { on_batch_end = function(_, _, _, run)
      steps = steps + 1
      if steps == step - 1 then run:stop "here" end
    end } } }
    for name, tensor in pairs(good:get_weights()) do assert.is_true(check.equal(tensor, model:get_weights()[name]), name) end
    assert.equal(1, #history)
    assert.is_true(history.loss[1] == history.loss[1])
  end)

  it("skip leaves the batch out as if it had not been there", function()
    for _, every in ipairs{ 1, 3, 100 } do
      local guard, history, step, model = train{ sample = 21, injection = injections[2], on_nan = "skip", every = every, epochs = 3 }
      assert.equal(3, guard.events)
      assert.equal(3 * N // BATCH - 3, model.compiled.optimizer:steps())
      assert.is_true(history.loss[3] < 1e3 and step ~= nil)
      local again = select(4, train{ sample = 21, injection = injections[2], on_nan = "skip", every = 2, epochs = 3 })
      for name, tensor in pairs(again:get_weights()) do assert.is_true(check.equal(tensor, model:get_weights()[name]), name) end
    end
  end)

  it("rollback goes back and lowers the rate", function()
    local guard, _, _, model = train{ sample = 9, injection = injections[3], on_nan = "rollback", epochs = 2, every = 4 }
    assert.equal(2, guard.events)
    assert.near(0.0025, model.compiled.optimizer:get_lr(), 1e-12)
    for name, tensor in pairs(model:get_weights()) do assert.is_true(tensor:isfinite():all():item(), name) end
    fails("rollback lowers the learning rate, but", train,
      { on_nan = "rollback", optimizer = optim.sgd{ lr = optim.schedule.constant(0.1) } })
  end)

  it("changes nothing where nothing is wrong", function()
    local _, with = train{ epochs = 3 }
    local _, without = train{ epochs = 3, no_guard = true }
    assert.equal(without:to_csv(), with:to_csv())
  end)

  it("names the row of data that is not finite", function()
    bp.seed(4)
    local x = bp.randn(40, 3)
    x[{ 17, 2 }] = 0 / 0
    local model = nn.sequential{ nn.dense(1) }
    model:compile{ optimizer = "sgd", loss = "mse" }
    local guard = callbacks.nan_guard()
    check.quietly(function() model:fit{ x, bp.randn(40, 1), batch_size = 8, verbose = 0, callbacks = { guard } } end)
    assert.match("^nan in the data: x of the batch holds it in sample %d, row 17 of the training data", guard.reports[1].text)
  end)

  it("does not mistake what a mask covers for the cause", function()
    local masked = { bad = -200, fn = function(t) return bp.where(t:gt(-100), bp.where(t:lt(-50), (t - 1):log(), t * 0), t:sqrt()) end }
    local guard = train{ sample = 30, injection = masked }
    assert.equal("sqrt", guard.reports[1] and guard.reports[1].op)
  end)

  it("keeps the last good checkpoint", function()
    local folder <close> = setmetatable({ path = shell.folder() }, { __close = function(f) shell.remove(f.path) end })
    local _, _, step = train{ sample = 50, injection = injections[1],
      callbacks = { callbacks.checkpoint{ folder.path, every = "1 batches" } } }
    local saved = assert(bp.checkpoint.newest(folder.path))
    assert.equal(step - 1, saved.training.batch)
    for name, tensor in pairs(saved.tensors) do
      if tensor.dtype == "f32" then assert.is_true(tensor:isfinite():all():item(), name) end
    end
  end)
end)
