--- What goes with every optimizer: states that survive freezing, averages of the weights, gradients gathered over batches, optimizers
--- written in Lua, the same bits captured and for any number of threads. Steps are compared with PyTorch and Keras in
--- vectors_optimizers_more.
local bp = require "bp"
local bad = require "support.bad"
local check = require "support.check"
local nn, optim, near, fails = bp.nn, bp.optim, check.near, check.fails

-- A net of three layers, the same for the same seed, and data.
local function net()
  bp.seed(4)
  local made = nn.sequential{ nn.dense{ 8, activation = "tanh" }, nn.dense{ 6, activation = "tanh" }, nn.dense(2) }
  made:build_for{ 5 }
  return made
end
bp.seed(3)
local x, y = bp.randn(64, 5), bp.randn(64, 2)

local function stepper(model, opt, captured)
  local function step(a, b)
    local loss = nn.loss.mse(model(a), b)
    opt:zero_grad()
    loss:backward()
    opt:step()
    return loss
  end
  return captured and bp.capture(step) or step
end

local function train(model, opt, from, to, captured)
  local step = stepper(model, opt, captured)
  for i = from, to do
    local rows = { { (i - 1) % 8 * 8 + 1, (i - 1) % 8 * 8 + 8 } }
    step(x[rows], y[rows])
  end
end

local function same(a, b)
  for i, p in ipairs(a:parameters()) do
    if not check.equal(p, b:parameters()[i]) then return false end
  end
  return true
end

local kinds = {
  sgd = { lr = 0.05, momentum = 0.9, nesterov = true }, adam = { amsgrad = true, weight_decay = 0.01 }, adamw = {},
    rmsprop = { centered = true },
  adagrad = { initial_accumulator = 0.1 }, adadelta = {}, nadam = {}, adamax = {}, radam = {}, rprop = {}, lion = { weight_decay = 0.1 },
}

describe("every optimizer", function()
  for name, o in pairs(kinds) do
    it(name .. " goes on from its state to the bit, in groups, captured and with any number of threads", function()
      local function make(model)
        local p, given = model:parameters(), { clip_norm = 1, ema = 0.9, accumulate = 2 }
        for key, value in pairs(o) do given[key] = value end
        return optim[name]({ { params = { p[1], p[2] } }, { params = { p[3], p[4], p[5], p[6] }, lr = 0.02 } }, given)
      end
      local whole = net()
      train(whole, make(whole), 1, 11, true)
      local before = bp.threads()
      bp.threads(3)
      local halves = net()
      local first = make(halves)
      train(halves, first, 1, 5)
      local kept = {}
      for key, tensor in pairs(first:state()) do kept[key] = tensor:clone() end
      local again = net()
      again:set_weights(halves:get_weights())
      local second = make(again)
      second:load_state(kept)
      train(again, second, 6, 11, true)
      bp.threads(before)
      assert.is_true(same(whole, again))
      assert.equal(5, second:steps())
    end)

    it(name .. " has the same bits over many parameters for any number of threads, and f32 follows f64", function()
      local before, seen = bp.threads(), nil
      local start, target = bp.randn{ 40000, dtype = "f64" }, bp.randn{ 40000, dtype = "f64" }
      for i, threads in ipairs{ 1, 2, 3 } do
        bp.threads(threads)
        local dtype = i == 3 and "f64" or "f32"
        local w, t, given = nn.parameter(start:to(dtype)), target:to(dtype), { lr = 0.01, ema = 0.9, accumulate = 2 }
        for key, value in pairs(o) do given[key] = value end
        local opt = optim[name]({ w }, given)
        for _ = 1, 6 do
          opt:zero_grad();
          (w - t):square():sum():backward()
          opt:step()
        end
        seen = seen or w
        if i == 2 then assert.is_true(check.equal(seen, w)) else near(seen:to(dtype), w, 2e-4) end
      end
      bp.threads(before)
    end)
  end
end)

describe("a state", function()
  it("does not depend on what was frozen when", function()
    -- all awake; bound while a layer sleeps, which wakes before or after the state is loaded
    local function with(prepare, load)
      local model = net()
      if prepare then model:freeze(prepare) end
      local opt = optim.adam(model:parameters(), { lr = 0.1 })
      load(model, opt)
      return model, opt
    end
    local donor = net()
    local opt = optim.adam(donor:parameters(), { lr = 0.1 })
    train(donor, opt, 1, 3)
    local state, weights = {}, donor:get_weights()
    for key, tensor in pairs(opt:state()) do state[key] = tensor:clone() end
    train(donor, opt, 4, 6)
    for _, order in ipairs{ "plain", "wake first", "wake last" } do
      local model, fresh = with(order ~= "plain" and "dense_2*" or nil, function(model, fresh)
        model:set_weights(weights)
        if order == "wake first" then model:unfreeze() end
        fresh:load_state(state)
        if order == "wake last" then model:unfreeze() end
      end)
      train(model, fresh, 4, 6)
      assert.is_true(same(donor, model), order)
      local mine, theirs = fresh:state(), opt:state()
      for key, tensor in pairs(theirs) do assert.is_true(check.equal(tensor, mine[key]), key) end
    end
  end)

  it("of a partly frozen optimizer loads into a fresh one, and the other way round, asleep parameters kept", function()
    local a = net()
    a:freeze "dense_1*"
    local opt = optim.adam(a:parameters(), { lr = 0.1 })
    train(a, opt, 1, 2)
    local b = net()
    local fresh = optim.adam(b:parameters(), { lr = 0.1 })
    fresh:load_state(opt:state())
    assert.equal(2, fresh:steps())
    train(b, fresh, 1, 2)
    opt:load_state(fresh:state())
    assert.is_true(check.equal(fresh:state()["1.1.m"], opt:state()["1.1.m"]))
  end)

  local p = nn.parameter{ 1, 2 }
  optim.sgd{ p } -- it lies in a block from here on
  bad.cases{
    { "of another optimizer", function() optim.adam{ p }:load_state(optim.rmsprop{ p }:state()) end,
      "the state has no 'm' of any parameter",
      "it comes from another optimizer" },
    { "of an optimizer that keeps less", function() optim.sgd{ p }:load_state(optim.adam{ p }:state()) end,
      "of each parameter, which is not kept",
      "it comes from another optimizer, or one with other options" },
    { "of other parameters", function() optim.adam{ p }:load_state(optim.adam{ nn.parameter{ 1 } }:state()) end, "has 1 elements",
      "it comes from another model" },
    { "of more parameters", function()
      optim.adam{ p }:load_state(optim.adam{ nn.parameter{ 1, 2 }, nn.parameter{ 3 } }:state())
    end, "there are fewer parameters here", "it comes from another model" },
    { "that is none", function() optim.adam{ p }:load_state(3) end, "the state is a number (3)", "expected the table that state() gave" },
  }
end)

describe("accumulate", function()
  it("makes one step of several batches as of one large one", function()
    for _, captured in ipairs{ false, true } do
      local small, large = net(), net()
      local a = optim.sgd(small:parameters(), { lr = 0.1, momentum = 0.9, accumulate = 4, clip_norm = 0.5 })
      train(small, a, 1, 16, captured)
      local step = stepper(large, optim.sgd(large:parameters(), { lr = 0.1, momentum = 0.9, clip_norm = 0.5 }), captured)
      for i = 0, 3 do
        local rows = { { i % 2 * 32 + 1, i % 2 * 32 + 32 } }
        step(x[rows], y[rows])
      end
      for i, p in ipairs(small:parameters()) do near(p, large:parameters()[i], 1e-5) end
      assert.equal(4, a:steps())
    end
  end)

  it("works in fit, where schedules count updates", function()
    local seen
    for _, captured in ipairs{ false, true } do
      local model = net()
      model:compile{ loss = "mse", optimizer = optim.adam{ lr = function(n) return 0.1 / n end, accumulate = 2 } }
      model:fit{ x, y, batch_size = 8, epochs = 2, verbose = 0, capture = captured, shuffle = false }
      assert.equal(8, model.compiled.optimizer:steps())
      assert.near(0.1 / 8, model.compiled.optimizer:get_lr(), 1e-12)
      seen = seen or model
      assert.is_true(same(seen, model))
    end
  end)
end)

describe("ema", function()
  it("evaluates with the averages, leaves them in the model, and goes on from the weights", function()
    local model, plain = net(), net()
    model:compile{ loss = "mse", optimizer = optim.sgd{ lr = 0.1, ema = 0.9 } }
    plain:compile{ loss = "mse", optimizer = optim.sgd{ lr = 0.1 } }
    local averages
    for epoch = 1, 3 do
      local h = model:fit{ x, y, validation = { x, y }, epochs = 1, batch_size = 8, shuffle = false, verbose = 0 }
      assert.equal(h.val_loss[1], model:evaluate{ x, y, batch_size = 8 }.loss)
      for i = 1, 8 do
        plain:fit{ x[{ { i * 8 - 7, i * 8 } }], y[{ { i * 8 - 7, i * 8 } }], epochs = 1, batch_size = 8, shuffle = false, verbose = 0 }
        local weights = plain:get_weights()
        if not averages then averages = weights end
        for name, w in pairs(weights) do averages[name] = averages[name] * 0.9 + w * 0.1 end
      end
      for name, w in pairs(model:get_weights()) do near(w, averages[name], 1e-5, name .. epoch) end
    end
    model.compiled.optimizer:swap_average(false)
    assert.is_true(same(model, plain))
    model.compiled.optimizer:with_average(function() assert.is_false(same(model, plain)) end)
    assert.is_true(same(model, plain))
  end)

  it("wants the weights back before a step, captured too", function()
    local model = net()
    local opt = optim.adam(model:parameters(), { ema = 0.99 })
    local step = stepper(model, opt, true)
    step(x, y)
    opt:swap_average(true)
    fails("the model holds the averages of its weights; take them out before step(): optimizer:swap_average(false)", step, x, y)
    opt:swap_average(false)
    step(x, y)
    assert.equal(2, opt:steps())
  end)
end)

describe("an optimizer written in Lua", function()
  local own = optim.define("spec_adam", { lr = 1e-3, slots = { "m", "v" },
    options = {
      { "beta1", "number", min = 0, below = 1, default = 0.9, help = "decay of the mean" },
      { "beta2", "number", min = 0, below = 1, default = 0.999, help = "decay of the square" },
      { "eps", "number", above = 0, default = 1e-8, named = true, help = "keeps the division finite" },
    },
    update = function(w, g, s, rate, step, o)
      s.m:add_((g - s.m) * (1 - o.beta1))
      s.v:mul_(o.beta2):add_(g * g * (1 - o.beta2))
      local size = rate / (1 - bp.ops.pow(o.beta1, step))
      local correction = (1 - bp.ops.pow(o.beta2, step)):rsqrt()
      w:sub_(s.m * size:to(w.dtype) / (s.v:sqrt() * correction:to(w.dtype) + o.eps))
    end })

  it("does what the built-in one does, captured, clipped, decayed, gathered, averaged and scheduled", function()
    for _, dtype in ipairs{ "f32", "f64" } do
      for _, captured in ipairs{ false, true } do
        local made = {}
        for _, class in ipairs{ optim.adam, own } do
          bp.seed(9)
          local w = nn.parameter(bp.randn{ 40, dtype = dtype })
          local opt = class({ w }, { lr = optim.schedule.cosine{ 0.1, steps = 20 }, weight_decay = 0.1, clip_norm = 3, accumulate = 2,
            ema = 0.9 })
          local function step(target)
            opt:zero_grad();
            (w - target):square():sum():backward()
            opt:step()
          end
          if captured then step = bp.capture(step) end
          for i = 1, 40 do step(bp.full(40, i / 40, { dtype = dtype })) end
          made[#made + 1] = { w = w, average = opt:state()["1.1.average"], steps = opt:steps() }
        end
        assert.equal(made[1].steps, made[2].steps)
        near(made[2].w, made[1].w, dtype == "f32" and 2e-6 or 1e-14)
        near(made[2].average, made[1].average, dtype == "f32" and 2e-6 or 1e-14)
      end
    end
  end)

  it("is known by its name, to compile and to a saved model", function()
    local model = net()
    model:compile{ loss = "mse", optimizer = optim.spec_adam{ lr = 0.02, eps = 1e-6 } }
    model:fit{ x, y, epochs = 1, verbose = 0 }
    local path = os.tmpname()
    assert(model:save(path))
    local again = assert(bp.load(path))
    assert.equal("spec_adam", again.compiled.optimizer.name)
    assert.equal(1e-6, again.compiled.optimizer.options.eps)
    os.remove(path)
    net():compile{ loss = "mse", optimizer = "spec_adam" }
    fails("unknown optimizer 'spec_adm' (did you mean 'spec_adam'?)", optim.get, "t", "spec_adm")
  end)

  bad.cases{
    { "a name that is taken", function() optim.define("adam", { update = print }) end, "'adam' is a name of bp.optim", "choose another" },
    { "no update", function() optim.define("a_name", {}) end, "option 'update' is missing", "expected a function" },
    { "no name", function() optim.define(3, {}) end, "the name is a number (3)", "expected a word" },
    { "an unknown part", function() optim.define("a_name", { update = print, slot = {} }) end, "unknown option 'slot'",
      "did you mean 'slots'" },
  }
end)

describe("lbfgs", function()
  local function rosenbrock(w)
    local a, b = w[{ { 1, 3 } }], w[{ { 2, 4 } }]
    return ((b - a:square()):square() * 100 + (a * -1 + 1):square()):sum()
  end
  local function closure(opt, w)
    return function()
      opt:zero_grad()
      local value = rosenbrock(w)
      value:backward()
      return value
    end
  end

  it("finds a minimum in f32, its function captured or not, and goes on from a state", function()
    local seen
    for _, captured in ipairs{ false, true } do
      local w = nn.parameter{ 0.2, 0.3, 0.5, 2 }
      local opt = optim.lbfgs({ w }, { line_search = "strong_wolfe", max_iter = 10 })
      local fn = closure(opt, w)
      if captured then fn = bp.capture(fn) end
      for _ = 1, 4 do opt:step(fn) end
      local kept = {}
      for key, tensor in pairs(opt:state()) do kept[key] = tensor:clone() end
      local v = nn.parameter(w:detach():clone())
      local second = optim.lbfgs({ v }, { line_search = "strong_wolfe", max_iter = 10 })
      second:load_state(kept)
      for _ = 1, 4 do
        opt:step(fn)
        second:step(closure(second, v))
      end
      assert.is_true(check.equal(w, v))
      near(w, bp.ones(4), 1e-3)
      seen = seen or w
      assert.is_true(check.equal(seen, w))
    end
  end)

  local w = nn.parameter{ 1, 2, 3, 4 }
  optim.sgd{ w } -- it lies in a block from here on
  bad.cases{
    { "a step without a function", function() optim.lbfgs{ w }:step() end, "step() was given nil",
      "expected a function that clears the gradient" },
    { "a function without result", function()
      local opt = optim.lbfgs{ w }
      opt:step(function() rosenbrock(w):backward() end)
    end, "the function returned nil", "expected the loss" },
    { "decay", function() optim.lbfgs{ weight_decay = 1 } end, "it has no weight_decay", "add such a term to the loss" },
    { "gathering", function() optim.lbfgs{ accumulate = 2 } end, "it has no accumulate", "add such a term to the loss" },
    { "an unknown search", function() optim.lbfgs{ line_search = "armijo" } end, "option 'line_search' is \"armijo\"", '"strong_wolfe"' },
    { "fit", function()
      local model = net()
      model:compile{ loss = "mse", optimizer = "lbfgs" }
      model:fit{ x, y, verbose = 0 }
    end, "fit cannot do this", "a loop of one's own can" },
  }
end)

describe("options of optimizers refuse", function()
  bad.cases{
    { "half a batch", function() optim.sgd{ accumulate = 1.5 } end, "option 'accumulate' is a number (1.5)", "a whole number" },
    { "an average of everything", function() optim.sgd{ ema = 1 } end, "option 'ema' is a number (1)", "below 1" },
    { "a growing shrink", function() optim.rprop{ shrink = 2 } end, "option 'shrink' is a number (2)", "below 1" },
    { "a momentum function that gives 1", function()
      local w = nn.parameter{ 1 }
      local opt = optim.sgd({ w }, { momentum = function() return 1 end })
      w:sum():backward()
      opt:step()
    end, "the function for momentum returned a number (1)", "at least 0 and below 1" },
  }
end)
