--- Optimizers: blocks, groups, clipping, schedules, capture, state. Steps are compared with PyTorch and Keras in vectors_optimizers.
local bp = require "bp"
local check = require "support.check"
local nn, optim, near, fails = bp.nn, bp.optim, check.near, check.fails

local function params()
  return nn.parameter{ 1, 2, 3 }, nn.parameter{ { 4, 5 } }
end

-- One step with the gradient 1 everywhere.
local function step(opt, ...)
  local total
  for _, p in ipairs{ ... } do total = total and total + p:sum() or p:sum() end
  opt:zero_grad()
  total:backward()
  opt:step()
end

describe("optim", function()
  it("steps all parameters in one block, where they stay the tensors they were", function()
    local a, b = params()
    local opt = optim.sgd({ a, b }, { lr = 0.5 })
    step(opt, a, b)
    near(a, bp.tensor{ 0.5, 1.5, 2.5 })
    near(b, bp.tensor{ { 3.5, 4.5 } })
    assert.equal(1, #opt.groups[1].blocks)
    assert.equal(2, #opt.groups[1].blocks[1].block.params)
    assert.equal(1, opt:steps())
  end)

  it("takes the learning rate first, or by name", function()
    assert.equal(0.5, optim.sgd(0.5):get_lr())
    assert.equal(0.5, optim.adam{ lr = 0.5 }:get_lr())
    assert.equal(0.01, optim.sgd():get_lr())
    assert.equal(1e-3, optim.rmsprop():get_lr())
    assert.equal(0.01, optim.adamw().options.weight_decay)
    assert.equal(0.25, optim.adam{ learning_rate = 0.25 }:get_lr())
    fails("adam: unknown option 'rate'", optim.adam, { rate = 1 })
    fails("sgd: option 'lr' is a number (-1)", optim.sgd, { lr = -1 })
    fails("sgd: option 'momentum' is a number (1)", optim.sgd, { momentum = 1 })
  end)

  it("keeps groups with options of their own", function()
    local a, b = params()
    local opt = optim.sgd({ { params = { a } }, { params = { b }, lr = 1 } }, { lr = 0.5 })
    step(opt, a, b)
    near(a, bp.tensor{ 0.5, 1.5, 2.5 })
    near(b, bp.tensor{ { 3, 4 } })
    opt:set_lr(0.25, 1)
    assert.equal(0.25, opt:get_lr(1))
    assert.equal(1, opt:get_lr(2))
  end)

  it("steps f32 and f64 parameters side by side", function()
    local a, b = nn.parameter{ 1 }, nn.parameter(bp.ones(2, { dtype = "f64" }))
    local opt = optim.adam({ a, b }, { lr = 0.1 })
    opt:zero_grad();
    (a:sum():to "f64" + b:sum()):backward()
    opt:step()
    near(a, bp.tensor{ 0.9 }, 1e-6)
    near(b, bp.tensor({ 0.9, 0.9 }, { dtype = "f64" }), 1e-6)
  end)

  it("leaves parameters alone that no backward reached or that are frozen", function()
    local a, b = params()
    local opt = optim.sgd({ a, b }, { lr = 0.5 })
    step(opt, a, b)
    step(opt, a)
    near(b, bp.tensor{ { 3.5, 4.5 } })
    near(a, bp.tensor{ 0, 1, 2 })
    local c = nn.parameter{ 1 }
    c.requires_grad = false
    assert.equal(1, #optim.sgd({ a, c }).groups[1].blocks[1].block.params)
  end)

  it("says what is missing", function()
    local a = params()
    fails("sgd: no parameter has a gradient; call loss:backward() before step()", function() optim.sgd({ a }):step() end)
    fails("sgd: it has no parameters yet", function() optim.sgd():step() end)
    fails("sgd: no parameters", optim.sgd, {}, {})
    fails("sgd: parameter 2 is the same tensor as an earlier one", optim.sgd, { a, a })
    fails("sgd: parameter 2 is a number (3); expected a tensor", optim.sgd, { a, 3 })
    fails("sgd: the parameters are a number (3); expected a list of tensors", optim.sgd, 3, { lr = 1 })
    fails("t: unknown optimizer 'adm' (did you mean 'adam'?)", optim.get, "t", "adm")
    fails("t: the optimizer is a number (3)", optim.get, "t", 3)
  end)

  it("refuses to go on after its parameters were taken over", function()
    local a, b = params()
    local first = optim.sgd({ a, b })
    local same = optim.sgd({ a, b })
    step(first, a, b)
    step(same, a, b)
    local second = optim.sgd({ a })
    fails("its parameters were taken over by an optimizer made later", step, first, a, b)
    step(second, a)
  end)

  it("clips by norm over everything, and by value", function()
    local a, b = params()
    local opt = optim.sgd({ a, b }, { lr = 1, clip_norm = 1 })
    step(opt, a, b)
    near(a, bp.tensor{ 1, 2, 3 } - 1 / math.sqrt(5), 1e-5)
    local c = nn.parameter{ 1, 1 }
    opt = optim.sgd({ c }, { lr = 1, clip_value = 0.5 })
    opt:zero_grad();
    (c * bp.tensor{ 3, -0.25 }):sum():backward()
    opt:step()
    near(c, bp.tensor{ 0.5, 1.25 })
    c:zero_grad();
    (c * bp.tensor{ 3, 4 }):sum():backward()
    near(bp.clip_grad_norm({ c }, 1), bp.tensor(5), 1e-6)
    near(c.grad, bp.tensor{ 0.6, 0.8 }, 1e-5)
    bp.clip_grad_value({ c }, 0.7)
    near(c.grad, bp.tensor{ 0.6, 0.7 }, 1e-5)
    fails("clip_grad_norm: max_norm is a number (0)", bp.clip_grad_norm, { c }, 0)
  end)

  it("follows a function and a schedule, also in a captured step", function()
    local seen
    for _, captured in ipairs{ false, true } do
      local a = nn.parameter{ 0 }
      local rates = {}
      local opt = optim.sgd({ a }, { lr = function(n) return n / 10 end })
      local run = function(x)
        opt:zero_grad();
        (a * x):sum():backward()
        opt:step()
        return a:sum()
      end
      if captured then run = bp.capture(run) end
      for i = 1, 5 do
        run(bp.ones(1))
        rates[i] = ("%.6f"):format(opt:get_lr())
      end
      near(a, bp.tensor{ -1.5 }, 1e-6)
      assert.same({ "0.100000", "0.200000", "0.300000", "0.400000", "0.500000" }, rates)
      assert.equal(5, opt:steps())
      seen = seen or a:item()
      assert.equal(seen, a:item())
    end
    local a = nn.parameter{ 0 }
    fails("the learning rate function returned a string", function()
      local opt = optim.sgd({ a }, { lr = function(n) return n == 1 and 1 or "x" end })
      step(opt, a)
      step(opt, a)
    end)
    fails("its learning rate follows a schedule", function() optim.sgd({ a }, { lr = optim.schedule.constant(1) }):set_lr(2) end)
  end)

  it("lets a captured step see a rate set outside", function()
    local a = nn.parameter{ 0 }
    local opt = optim.sgd({ a }, { lr = 1 })
    local run = bp.capture(function(x)
      opt:zero_grad();
      (a * x):sum():backward()
      opt:step()
    end)
    run(bp.ones(1))
    opt:set_lr(10)
    run(bp.ones(1))
    near(a, bp.tensor{ -11 })
  end)

  it("goes on from a saved state as if nothing had been", function()
    local function train(a, opt, from, to)
      for i = from, to do
        opt:zero_grad();
        (a * a * i):sum():backward()
        opt:step()
      end
    end
    for _, make in ipairs{ function(p) return optim.adam(p, { lr = 0.1, amsgrad = true }) end,
      function(p) return optim.sgd(p, { lr = 0.01, momentum = 0.9 }) end,
      function(p) return optim.rmsprop(p, { lr = 0.01, momentum = 0.5, centered = true }) end } do
      local a = nn.parameter{ 1, -2 }
      local first = make{ a }
      train(a, first, 1, 5)
      local b = nn.parameter(a)
      local second = make{ b }
      second:load_state(first:state())
      train(a, first, 6, 9)
      train(b, second, 6, 9)
      assert.is_true(check.equal(a, b))
      assert.equal(9, second:steps())
    end
    local a, b = params()
    fails("it comes from another model", function() optim.adam({ a }):load_state(optim.adam({ b, nn.parameter(bp.ones(9)) }):state()) end)
    fails("it comes from another optimizer", function() optim.adam({ a }):load_state(optim.sgd({ b }):state()) end)
  end)
end)

describe("optim.schedule", function()
  local s = optim.schedule
  it("starts at its rate and ends where it says", function()
    assert.equal(0.1, s.constant(0.1)(1000))
    assert.same({ 1, 1, 0.5, 0.5, 0.25 }, (function(f) return { f(1), f(2), f(3), f(4), f(5) } end)(s.step{ 1, every = 2, gamma = 0.5 }))
    assert.near(0.1, s.cosine{ 0.1, steps = 10 }(1), 1e-12)
    assert.near(0.01, s.cosine{ 0.1, steps = 10, min_lr = 0.01 }(11), 1e-12)
    assert.near(0.01, s.cosine{ 0.1, steps = 10, min_lr = 0.01 }(500), 1e-12)
    local warm = s.cosine{ 0.1, steps = 20, warmup = 5 }
    assert.near(0, warm(1), 1e-12)
    assert.near(0.02, warm(2), 1e-12)
    assert.near(0.1, warm(6), 1e-12)
    assert.near(0.2, s.poly{ 1, steps = 4, final = 0.2 }(5), 1e-12)
    assert.near(0.81, s.exp{ 1, gamma = 0.9 }(3), 1e-12)
    assert.near(0.01, s.multistep{ 1, milestones = { 2, 4 } }(5), 1e-12)
  end)

  it("onecycle goes up and far down (values of PyTorch's OneCycleLR(max_lr = 1, total_steps = 10))", function()
    local f = s.onecycle{ 1, steps = 10 }
    local expected = { 0.04, 0.52, 1.0, 0.9504846320134737, 0.8117456539497631, 0.6112620219362892, 0.38874197806371076,
      0.18825834605023697,
      0.04951936798652628, 4e-06 }
    for i, rate in ipairs(expected) do assert.near(rate, f(i), 1e-5, i) end
    assert.near(4e-6, f(500), 1e-12)
  end)

  it("checks its options", function()
    fails("schedule.cosine: option 'steps' is missing", s.cosine, 0.1)
    fails("schedule.exp: unknown option 'gama' (did you mean 'gamma'?)", s.exp, { 1, gama = 0.5 })
  end)
end)
