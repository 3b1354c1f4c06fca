--- Search: dimensions, grid and random, reproducible trials, failures, tables.
local bp = require "bp"
local check = require "support.check"
local search, fails = bp.search, check.fails

local space = { lr = search.float{ 1e-4, 1e-1, log = true }, units = search.int{ 16, 64, step = 16 },
  act = search.choice{ "relu", "tanh" } }

local function study(given)
  given = given or {}
  given.verbose = false
  return search.study(given)
end

describe("search", function()
  it("does not gather what large trials leave", function()
    local before, most = bp.memory().used, 0
    study():optimize{ trials = 8, space = { a = search.float{ 0, 1 } }, objective = function(params)
      local left = bp.zeros(5 << 20)
      most = math.max(most, bp.memory().used - before)
      return params.a + left:size(1) * 0
    end }
    assert.is_true(most < 2 * (20 << 20), most)
  end)

  it("draws within the dimensions, all values of them", function()
    local seen, low, high = {}, math.huge, 0
    study():optimize{ trials = 200, space = space, objective = function(p)
      assert.is_true(p.lr >= 1e-4 and p.lr <= 1e-1)
      assert.equal("integer", math.type(p.units))
      seen[p.units], seen[p.act] = true, true
      low, high = math.min(low, p.lr), math.max(high, p.lr)
      return 0
    end }
    for _, value in ipairs{ 16, 32, 48, 64, "relu", "tanh" } do assert.is_true(seen[value], value) end
    assert.is_true(low < 2e-4 and high > 5e-2)
    local counts, ints = {}, search.int{ 1, 100, log = true }
    for i = 0, 999 do
      local k = ints.at(i / 1000)
      counts[k] = (counts[k] or 0) + 1
    end
    assert.is_true(counts[1] > 5 * counts[10] and counts[100] ~= nil)
  end)

  it("tries every combination of a grid once", function()
    local seen, count = {}, 0
    local one = study{ sampler = search.grid() }
    local grid = { a = search.int{ 1, 3 }, b = search.choice{ true, false }, c = search.float{ 0.1, 10, log = true, points = 3 } }
    one:optimize{ space = grid, objective = function(p)
      local key = ("%d %s %.3f"):format(p.a, p.b, p.c)
      assert.is_nil(seen[key])
      seen[key], count = true, count + 1
      return p.a
    end }
    assert.equal(18, count)
    assert.is_true(seen["2 true 1.000"] and seen["3 false 10.000"] and seen["1 true 0.100"])
    assert.equal(1, one.best.value)
    one:optimize{ space = grid, objective = error }
    assert.equal(18, #one.trials)
    fails("search.float: a grid needs the number of values", function()
      study{ sampler = search.grid() }:optimize{ space = { x = search.float{ 0, 1 } }, objective = math.abs }
    end)
  end)

  it("repeats with the same seed, trial by trial, whatever ran before", function()
    local function values(seed, trials)
      local one = study{ sampler = search.random{ seed = seed } }
      one:optimize{ trials = trials, space = space, objective = function(p) return p.lr + bp.rand(1):item() end }
      local list = {}
      for i, trial in ipairs(one.trials) do list[i] = trial.value end
      return list, one
    end
    local long = values(3, 6)
    assert.same(long, (values(3, 6)))
    assert.are_not.same(long, (values(4, 6)))
    local short, one = values(3, 4)
    one:optimize{ trials = 2, space = space, objective = function(p) return p.lr + bp.rand(1):item() end }
    for i, trial in ipairs(one.trials) do assert.equal(long[i], trial.value) end
    assert.equal(4, #short)
  end)

  it("finds the best in either direction, ignoring nan", function()
    local values = { 3, 0 / 0, 1, 2 }
    for direction, expected in pairs{ minimize = 3, maximize = 1 } do
      local one = study{ direction = direction }
      one:optimize{ trials = 4, space = space, objective = function(_, trial) return values[trial.number] end }
      assert.equal(expected, one.best.number)
    end
  end)

  it("takes a table of numbers and picks one", function()
    local one = study{ metric = "accuracy", direction = "maximize" }
    one:optimize{ trials = 3, space = space, objective = function(_, trial) return { accuracy = trial.number, loss = 1 } end }
    assert.equal(3, one.best.value)
    assert.equal(1, one.best.results.loss)
    fails("the objective's table has no number 'acuracy' (did you mean 'accuracy'?)", function()
      study{ metric = "acuracy" }:optimize{ trials = 2, space = space, objective = function() return { accuracy = 1 } end }
    end)
  end)

  it("goes on after a trial that fails, and says so", function()
    local one = study()
    local _, warnings = check.quietly(function()
      one:optimize{ trials = 4, space = space, objective = function(_, trial)
        if trial.number == 2 then error "no luck" end
        return trial.number
      end }
    end)
    assert.equal("failed", one.trials[2].state)
    assert.truthy(one.trials[2].message:find("no luck", 1, true))
    assert.equal(4, #one.trials)
    assert.equal("study: 1 of 4 trials failed; study.trials has their messages", warnings[1])
    fails("none of 2 trials gave a value; the first: ", function()
      study():optimize{ trials = 2, space = space, objective = function() return "x" end }
    end)
  end)

  it("trains models", function()
    local x = bp.randn(64, 2)
    local y = x:sum{ axes = 2, keepdims = true }
    local one = study():optimize{ trials = 4, space = { lr = search.float{ 1e-4, 0.1, log = true } }, objective = function(p)
      local model = bp.nn.sequential{ bp.nn.dense(1) }
      model:compile{ optimizer = bp.optim.sgd(p.lr), loss = "mse" }
      return model:fit{ x, y, epochs = 3, verbose = 0 }.loss[3]
    end }
    local largest = one.trials[1]
    for _, trial in ipairs(one.trials) do
      if trial.params.lr > largest.params.lr then largest = trial end
    end
    assert.equal(largest, one.best)
  end)

  it("is a table, best first, and CSV in order", function()
    local one = study{ "demo" }
    one:optimize{ trials = 3, space = { act = search.choice{ 'a"b,c' } }, objective = function(_, trial) return -trial.number end }
    local lines = {}
    for line in tostring(one):gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.equal("demo: 3 trials, minimize value", lines[1])
    assert.truthy(lines[2]:find("^ +3 +%-3 "), lines[2])
    local csv = one:to_csv()
    assert.equal("number,state,value,act,seconds,message", csv:match "^[^\n]+")
    assert.truthy(csv:find('1,complete,-1,"a""b,c",', 1, true))
  end)

  it("refuses what makes no sense", function()
    fails("search.float: low is 2, above high 1", search.float, { 2, 1 })
    fails("search.float: low is 0; with log = true expected a number above 0", search.float, { 0, 1, log = true })
    fails("search.int: option 'step' is a number (0)", search.int, { 1, 2, step = 0 })
    fails("search.choice: the choices are a table; expected a list", search.choice, {})
    fails("study:optimize: space: 'x' is a number (3); expected search.float", function()
      study():optimize{ space = { x = 3 }, objective = print }
    end)
    fails("study:optimize: the space is empty", function() study():optimize{ space = {}, objective = print } end)
    fails("study:optimize: option 'objective' is missing", function() study():optimize{ space = space } end)
  end)
end)
