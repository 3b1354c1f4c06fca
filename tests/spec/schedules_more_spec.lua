--- Schedules: misuse, warmups before any other, what is saved, and that a captured step sees them. Rates are compared with PyTorch and
--- Keras in vectors_schedules.
local bp = require "bp"
local bad = require "support.bad"
local check = require "support.check"
local nn, optim, s = bp.nn, bp.optim, bp.optim.schedule

local made = {
  cosine_restarts = s.cosine_restarts{ 0.1, steps = 3 }, linear = s.linear{ 0.1, steps = 4 }, noam = s.noam{ 16, warmup = 3 },
  inverse_sqrt = s.inverse_sqrt{ 0.1, warmup = 2 }, inverse_time = s.inverse_time{ 0.1, every = 2, rate = 1 },
  piecewise = s.piecewise{ { 2, 4 }, { 0.1, 0.2, 0.05 } }, warmup = s.warmup{ s.exp{ 0.1, gamma = 0.5 }, steps = 3 },
  onecycle = s.onecycle{ 0.1, steps = 8 },
}

describe("a schedule", function()
  for name, one in pairs(made) do
    it(name .. " is followed by a captured step as by an eager one, and survives saving", function()
      local seen
      for _, captured in ipairs{ false, true } do
        local w, rates = nn.parameter{ 1 }, {}
        local opt = optim.sgd({ w }, { lr = one })
        local function step(x)
          opt:zero_grad();
          (w * x):sum():backward()
          opt:step()
        end
        if captured then step = bp.capture(step) end
        for i = 1, 8 do
          step(bp.ones(1))
          rates[i] = opt:get_lr()
          assert.equal(one(i), rates[i])
        end
        seen = seen or w
        assert.is_true(check.equal(seen, w))
      end
      local model, path = nn.sequential{ nn.dense(1) }, os.tmpname()
      model:compile{ loss = "mse", optimizer = optim.sgd{ lr = one } }
      model(bp.ones(1, 2))
      assert(model:save(path))
      local lr = assert(bp.load(path)).compiled.optimizer.options.lr
      for i = 1, 12 do assert.equal(one(i), lr(i)) end
      os.remove(path)
    end)
  end

  it("may warm up before another", function()
    local warm = made.warmup
    assert.same({ 0, 0.1 / 3, 0.1 / 3 * 2, 0.1, 0.05, 0.025 }, { warm(1), warm(2), warm(3), warm(4), warm(5), warm(6) })
    assert.near(0.1, s.inverse_sqrt{ 0.1, warmup = 2 }(2), 1e-12)
    assert.near(0.05, s.inverse_sqrt{ 0.1, warmup = 2 }(8), 1e-12)
    assert.equal(s.exponential, s.exp)
  end)

  it("that falls on a plateau is part of the optimizer's state", function()
    local w = nn.parameter{ 1 }
    local lr = s.plateau{ 1, patience = 0, factor = 0.5 }
    local opt = optim.sgd({ w }, { lr = lr })
    local function step()
      opt:zero_grad()
      w:sum():backward()
      opt:step()
    end
    step()
    lr:report(1)
    lr:report(bp.tensor(2))
    step()
    assert.equal(0.5, opt:get_lr())
    local other = s.plateau{ 1, patience = 0, factor = 0.5 }
    local second = optim.sgd({ nn.parameter{ 1 } }, { lr = other })
    second:load_state(opt:state())
    assert.equal(0.5, other(1))
    other:report(0.99)
    assert.equal(0.5, other(1))
    other:report(0.99)
    assert.equal(0.25, other(1))
  end)

  bad.cases{
    { "without its length", function() s.cosine_restarts{ 0.1 } end, "option 'steps' is missing", "a whole number at least 1" },
    { "with too few values", function() s.piecewise{ { 1, 2 }, { 0.1, 0.2 } } end, "2 values for 2 boundaries",
      "one more than boundaries" },
    { "with text as a value", function() s.piecewise{ { 1 }, { 0.1, "x" } } end, 'value 2 is a string ("x")', "a number at least 0" },
    { "with boundaries that fall", function() s.piecewise{ { 5, 2 }, { 1, 1, 1 } } end, "boundary 2 is 2 after 5",
      "expected them to grow" },
    { "with a number to follow", function() s.warmup{ 0.1, steps = 3 } end, "option 'after' is a number (0.1)", "a function" },
    { "with a report of text", function() s.plateau(0.1):report("x") end, 'report was given a string ("x")', "expected a number" },
    { "that shrinks its falls", function() s.cosine_restarts{ 0.1, steps = 3, t_mul = 0.5 } end, "option 't_mul' is a number (0.5)",
      "at least 1" },
  }
end)
