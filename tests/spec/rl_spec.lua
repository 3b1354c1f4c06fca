--- Learning to decide: policies, returns and advantages, the replay buffer, environments, cart-pole.
local bp = require "bp"
local bad = require "support.bad"
local check = require "support.check"
local files = require "support.files"
local nn, optim, rl, ops = bp.nn, bp.optim, bp.rl, bp.ops
local near, equal = check.near, check.equal

describe("a policy", function()
  local logits = bp.tensor{ { 0, 1, 2 }, { 3, 0, -2 } }

  it("draws actions by their chances, the same for the same seed", function()
    local d = rl.categorical{ logits = bp.ones(20000, 1) * bp.tensor{ 0, 1, 2, -1e9 } }
    bp.seed(3)
    local a = d:sample()
    bp.seed(3)
    assert.is_true(equal(a, d:sample()))
    assert.is_false(equal(a, d:sample()))
    local expected = bp.tensor{ 0, 1, 2 }:softmax(1):totable()
    for k, p in ipairs(expected) do
      local share = a:eq(k):sum():item() / 20000
      assert.is_true(math.abs(share - p) < 4 * math.sqrt(p * (1 - p) / 20000), ("action %d: %g, expected %g"):format(k, share, p))
    end
    assert.equal(0, a:eq(4):sum():item())
  end)

  it("draws numbers with its mean and standard deviation", function()
    bp.seed(4)
    local x = rl.normal{ mean = bp.ones(20000, 1) * bp.tensor{ 1, -2 }, std = bp.tensor{ 0.5, 3 } }:sample()
    near(x:mean(1), bp.tensor{ 1, -2 }, 0.03)
    near((x - x:mean(1)):square():mean(1):sqrt(), bp.tensor{ 0.5, 3 }, 0.02)
  end)

  it("takes random numbers from a state of one's own", function()
    local state = bp.tensor({ 9, 0 }, { dtype = "i64" })
    local d = rl.categorical{ logits = bp.zeros(64, 5), stream = state }
    local first = d:sample()
    assert.equal(1, state[2]:item())
    bp.rand(3)
    state:fill_(0)
    state[1] = 9
    assert.is_true(equal(first, d:sample()))
  end)

  it("gives no chance to what is ruled out, and no NaN", function()
    local masked = bp.tensor({ { 0, -math.huge, 1 } }, { requires_grad = true })
    local d = rl.categorical{ logits = masked }
    local free = rl.categorical{ logits = bp.tensor{ { 0, 1 } } }
    near(d:entropy(), free:entropy())
    assert.equal(0, d:kl(d):item())
    bp.seed(1)
    for _ = 1, 200 do assert.is_true(d:sample():item() ~= 2) end
    d:entropy():sum():backward()
    assert.is_true(masked.grad:isfinite():all():item())
  end)

  it("knows its likeliest action, its chances, and divergence", function()
    local d = rl.categorical{ logits = logits }
    assert.same({ 3, 1 }, d:mode():totable())
    near(rl.categorical{ probs = d:probs() }:entropy(), d:entropy(), 1e-6)
    near(d:kl(d), bp.zeros(2))
    local n = rl.normal{ mean = bp.tensor{ 1, 2 }, std = 0.5 }
    assert.is_true(equal(n:mode(), n.mean))
    assert.equal(0, n:kl(n):item())
    near(n:entropy(), rl.normal{ mean = bp.zeros(2), log_std = math.log(0.5) }:entropy())
  end)

  it("has gradients that agree with differences", function()
    local action, other = bp.tensor({ 2, 1 }, { dtype = "i64" }), rl.categorical{ logits = logits:to "f64":flip(1) }
    assert.is_true(bp.checkgrad(function(p)
      local d = rl.categorical{ logits = p }
      return (d:log_prob(action) + d:entropy():square() + d:kl(other)):sum()
    end, logits) < 1e-7)
    local at = bp.tensor({ { 0.3, -1 }, { 2, 1 } }, { dtype = "f64" })
    assert.is_true(bp.checkgrad(function(p)
      local d = rl.normal{ mean = p.mean, log_std = p.log_std }
      return (d:log_prob(at) + d:entropy() + d:kl(rl.normal{ mean = at, std = 2 })):sum()
    end, { mean = bp.randn(2, 2), log_std = bp.randn(2) * 0.3 }) < 1e-7)
    assert.is_true(bp.checkgrad(function(p)
      local state = bp.tensor({ 1, 0 }, { dtype = "i64" })
      return rl.normal{ mean = p.mean, std = p.std, stream = state }:rsample():square():sum()
    end, { mean = bp.randn(2, 2), std = bp.rand(2, 2) + 0.5 }) < 1e-7)
  end)

  it("does the same inside a captured function", function()
    local function step(x, mean)
      local c, n = rl.categorical{ logits = x }, rl.normal{ mean = mean, std = 0.3 }
      local a, b = c:sample(), n:sample()
      return a, b, c:log_prob(a), n:log_prob(b), c:entropy()
    end
    local inputs, results = {}, {}
    for i = 1, 4 do inputs[i] = { bp.randn(7, 3), bp.randn(7, 2) } end
    for round, fn in ipairs{ step, bp.capture(step) } do
      bp.seed(8)
      results[round] = {}
      for _, x in ipairs(inputs) do
        for _, t in ipairs{ fn(x[1], x[2]) } do table.insert(results[round], t) end
      end
    end
    for i, t in ipairs(results[1]) do assert.is_true(equal(t, results[2][i])) end
  end)
end)

-- What the equations say, one number at a time.
local function slow_returns(r, gamma, done, last)
  local sum, out = last, {}
  for t = #r, 1, -1 do
    sum = r[t] + gamma * (1 - done[t]) * sum
    out[t] = sum
  end
  return out
end
local function slow_gae(r, v, gamma, lambda, done, last)
  local sum, out, following = 0, {}, last
  for t = #r, 1, -1 do
    sum = r[t] + gamma * (1 - done[t]) * following - v[t] + gamma * lambda * (1 - done[t]) * sum
    out[t], following = sum, v[t]
  end
  return out
end

describe("rl.returns and rl.gae", function()
  bp.seed(5)
  local time, envs = 13, 3
  local r, v = bp.randn{ time, envs, dtype = "f64" }, bp.randn{ time, envs, dtype = "f64" }
  local done, last = bp.rand(time, envs):lt(0.2):to "f64", bp.randn{ envs, dtype = "f64" }

  it("are what the equations say", function()
    local returns = rl.returns{ r, gamma = 0.9, done = done, last = last }
    local advantages, targets = rl.gae{ r, v, gamma = 0.9, lambda = 0.7, done = done, last = last }
    for e = 1, envs do
      local function column(t) return t[{ {}, e }]:totable() end
      near(returns[{ {}, e }], bp.tensor(slow_returns(column(r), 0.9, column(done), last[e]:item()), { dtype = "f64" }), 1e-12)
      near(advantages[{ {}, e }],
        bp.tensor(slow_gae(column(r), column(v), 0.9, 0.7, column(done), last[e]:item()), { dtype = "f64" }), 1e-12)
    end
    near(targets, advantages + v, 1e-12)
    local whole = rl.gae{ r, v, lambda = 1, gamma = 0.9, done = done, last = last }
    near(whole, rl.returns{ r, gamma = 0.9, done = done, last = last } - v, 1e-12)
  end)

  it("take lists, one column, and options after the list", function()
    local expected = { 2.375, 2.75, 3.5, 3 }
    near(rl.returns({ 1, 1, 2, 3 }, { gamma = 0.5 }), bp.tensor(expected), 1e-6)
    near(rl.returns{ { 1, 1, 2, 3 }, gamma = 0.5 }, bp.tensor(expected), 1e-6)
    near(rl.returns{ 1, 1 }, bp.tensor{ 1.99, 1 }, 1e-6)
    near(rl.returns{ { 1, 1, 1 }, gamma = 0.5, done = { false, true, false }, last = 4 }, bp.tensor{ 1.5, 1, 3 }, 1e-6)
    near(rl.returns{ { bp.tensor(1), bp.tensor(2) }, gamma = 1 }, bp.tensor{ 3, 2 }, 1e-6)
  end)

  it("normalize to mean 0 and standard deviation 1", function()
    local x = rl.returns{ r, normalize = true }
    assert.is_true(math.abs(x:mean():item()) < 1e-12 and math.abs(x:square():mean():item() - 1) < 1e-6)
    local a, targets = rl.gae{ r, v, normalize = true }
    assert.is_true(math.abs(a:mean():item()) < 1e-12)
    near(targets, (rl.gae{ r, v }) + v, 1e-12)
    near(rl.returns{ { 3 }, normalize = true }, bp.tensor{ 0 })
  end)

  it("go on from the value of where a time limit stopped", function()
    local a = rl.gae{ { 1, 1 }, { 0, 0 }, gamma = 0.5, lambda = 1, done = { 1, 0 }, cut = { 8, 0 } }
    near(a, bp.tensor{ 5, 1 }, 1e-6)
  end)

  it("do the same inside a captured function", function()
    local function fn(x, y, z) return rl.returns{ x, done = z, last = 2 }, (rl.gae{ x, y, done = z, normalize = true }) end
    local captured = bp.capture(fn)
    for i = 1, 3 do
      local x, y = r + i, v * i
      local a, b = fn(x, y, done)
      local c, d = captured(x, y, done)
      assert.is_true(equal(a, c) and equal(b, d))
    end
  end)

  it("need no loop over elements", function()
    local big = bp.ones(1000, 500)
    local before = os.clock()
    local x = rl.returns{ big, gamma = 0.5 }
    assert.is_true(os.clock() - before < 1)
    assert.is_true(math.abs(x[{ 1, 1 }]:item() - 2) < 1e-6)
  end)
end)

describe("rl.replay", function()
  local function buffer(more)
    local o = { 5, fields = { observation = { 2 }, action = { dtype = "i64" }, picture = { 2, 2, dtype = "u8" } } }
    for key, value in pairs(more or {}) do o[key] = value end
    return rl.replay(o)
  end
  local function step(i) return { observation = { i, -i }, action = i, picture = bp.full({ 2, 2 }, i, { dtype = "u8" }) } end

  it("keeps the newest steps, whole", function()
    local b = buffer()
    for i = 1, 7 do b:add(step(i)) end
    assert.equal(5, #b)
    assert.same({ 6, 7, 3, 4, 5 }, b:state().action:totable())
    b:add_batch{ observation = bp.zeros(4, 2), action = bp.arange(4) * 10, picture = bp.zeros{ 4, 2, 2, dtype = "u8" } }
    assert.same({ 40, 7, 10, 20, 30 }, { table.unpack(b:state().action:totable(), 1, 1), table.unpack(b:state().action:totable(), 2) })
    b:add_batch{ observation = bp.zeros(12, 2), action = bp.arange(12), picture = bp.zeros{ 12, 2, 2, dtype = "u8" } }
    local actions = b:state().action:totable()
    table.sort(actions)
    assert.same({ 8, 9, 10, 11, 12 }, actions)
    bp.seed(2)
    b = buffer()
    for i = 1, 3 do b:add(step(i)) end
    local batch = b:sample(400)
    assert.is_true(equal(batch.observation[{ {}, 1 }], batch.action:to "f32"))
    assert.is_true(equal(batch.picture[{ {}, 2, 1 }]:to "i64", batch.action))
    for i = 1, 3 do assert.is_true(batch.action:eq(i):sum():item() > 90) end
  end)

  it("draws from what was added after the recording", function()
    local a, b = buffer(), buffer()
    a:add(step(1))
    b:add(step(1))
    local function draw(from) return function() return from:sample(16).action end end
    local eager, captured, seen = draw(a), bp.capture(draw(b)), {}
    for i = 2, 5 do
      bp.seed(i)
      local x = eager()
      bp.seed(i)
      assert.is_true(equal(x, captured()))
      for _, v in ipairs(x:totable()) do seen[v] = true end
      a:add(step(i))
      b:add(step(i))
    end
    assert.is_true(seen[1] and seen[3] and not seen[5])
  end)

  it("draws by priority, and weighs against it", function()
    local b = buffer{ priority = 1 }
    for i = 1, 4 do b:add(step(i)) end
    b:set_priorities(bp.arange(4), bp.tensor{ 1, 2, 0, 5 })
    bp.seed(6)
    local batch = b:sample{ 4000, beta = 1 }
    for i, share in pairs{ 1 / 8, 2 / 8, 0, 5 / 8 } do
      assert.is_true(math.abs(batch.index:eq(i):sum():item() / 4000 - share) < 0.01, i)
    end
    near(batch.weight * bp.tensor{ 1, 2, 0, 5 }[batch.index], bp.ones(4000), 1e-4) -- weight = least priority drawn / priority
    b:add(step(5)) -- the highest priority met
    assert.equal(b:state()["replay.priority"]:max():item(), b:state()["replay.priority"][5]:item())
    b:set_priorities(bp.tensor({ 5, 5 }, { dtype = "i64" }), bp.tensor{ 1, 3 })
    assert.is_true(math.abs(b:state()["replay.priority"][5]:item() - 2) < 1e-4)
    local function turn(from)
      return function(beta)
        local drawn = from:sample{ 8, beta = beta }
        from:set_priorities(drawn.index, drawn.observation[{ {}, 1 }])
        return drawn.index, drawn.weight
      end
    end
    local twin = buffer{ priority = 1 }
    twin:load_state(b:state())
    local eager, captured = turn(b), bp.capture(turn(twin))
    for i = 1, 4 do
      bp.seed(i)
      local index, weight = eager(bp.tensor(i / 4))
      bp.seed(i)
      local other_index, other_weight = captured(bp.tensor(i / 4))
      assert.is_true(equal(index, other_index) and equal(weight, other_weight))
    end
  end)

  it("goes on after saving and loading as if nothing had been", function()
    local folder <close> = files.folder()
    local path = folder:at "buffer.safetensors"
    for _, priority in ipairs{ 0, 0.5 } do
      local a, b = buffer{ priority = priority }, buffer{ priority = priority }
      for i = 1, 7 do a:add(step(i)) end
      if priority > 0 then a:set_priorities(bp.arange(5), bp.rand(5)) end
      assert(a:save(path))
      assert(b:load(path))
      a:add(step(9))
      b:add(step(9))
      bp.seed(1)
      local x = a:sample(50)
      bp.seed(1)
      local y = b:sample(50)
      for name in pairs(x) do assert.is_true(equal(x[name], y[name]), name) end
    end
    local _, message, code = rl.replay{ 6, fields = { observation = { 2 } } }:load(path)
    assert.equal("eformat", code)
    assert.truthy(message:find("replay.place", 1, true) or message:find("observation", 1, true))
    bp.save_tensors(path, { a = bp.zeros(1) })
    _, _, code = buffer():load(path)
    assert.equal("eformat", code)
  end)
end)

describe("environments:", function()
  it("cart-pole follows the equations", function()
    -- One step from {0, 0, 0.1, 0} with force 10, by hand: q = 10 / 1.1; w'' = (9.8 sin - cos q) / (0.5 (4/3 - 0.1 cos^2 / 1.1))
    local env = rl.cartpole{ seed = 1 }
    env:reset()
    env.state = { 0, 0, 0.1, 0 }
    local o, reward, done = env:step(2)
    local q, s, c = 10 / 1.1, math.sin(0.1), math.cos(0.1)
    local turn = (9.8 * s - c * q) / (0.5 * (4 / 3 - 0.1 * c * c / 1.1))
    near(bp.tensor(o), bp.tensor{ 0, 0.02 * (q - 0.05 * turn * c / 1.1), 0.1, 0.02 * turn }, 1e-6)
    assert.equal(1, reward)
    assert.is_false(done)
  end)

  it("cart-pole ends where the pole falls or time is up, and begins by its seed", function()
    local env, twin = rl.cartpole{ seed = 3, max_steps = 20 }, rl.cartpole{ seed = 3 }
    assert.same(env:reset(), twin:reset())
    local function episode(choose)
      local n, o = 0, env:reset()
      while true do
        local following, _, done, info = env:step(choose(o))
        n, o = n + 1, following
        if done then return n, info.truncated end
      end
    end
    local n, truncated = episode(function() return 1 end)
    assert.is_true(n < 20 and not truncated)
    n, truncated = episode(function(o) return o[3] + o[4] > 0 and 2 or 1 end)
    assert.is_true(n == 20 and truncated)
    local again = rl.cartpole{ seed = 3 }
    again:reset()
    assert.is_true(again:reset()[1] ~= twin.state[1])
  end)

  it("many are stepped together and start anew by themselves", function()
    local envs = rl.vector_env{ make = function(i) return rl.cartpole{ seed = i, max_steps = 5 + i } end, count = 3 }
    local o = envs:reset()
    assert.same({ 3, 4 }, o:shape())
    local ended = {}
    for t = 1, 8 do
      local observations, rewards, dones, infos = envs:step(bp.tensor({ t % 2 + 1, t % 2 + 1, t % 2 + 1 }, { dtype = "i64" }))
      assert.same({ 3, 4 }, observations:shape())
      assert.same({ 1, 1, 1 }, rewards:totable())
      for i, info in ipairs(infos) do
        assert.equal(info.episode_return and 1 or 0, dones[i]:item())
        if info.episode_return then
          ended[i] = t
          assert.same({ info.episode_length, true, { 4 } }, { info.episode_return, info.truncated, info.final_observation:shape() })
        end
      end
    end
    assert.same({ 6, 7, 8 }, ended)
  end)

  it("rl.check_env tries one out", function()
    local report = rl.check_env{ rl.cartpole{ seed = 2 }, steps = 300 }
    assert.equal(300, report.steps)
    assert.same({ 4 }, report.observation_shape)
    assert.is_true(report.episodes > 5 and report.mean_return > 9)
    local host = { action_size = 2 } -- a game with tensors and two-number actions
    function host.reset() return bp.zeros(2, 3) end
    function host.step(_, action) return bp.zeros(2, 3), action[1] + action[2], false end
    assert.is_nil(rl.check_env(host).mean_return)
  end)
end)

describe("a policy gradient learns", function()
  it("which of three arms pays", function()
    bp.seed(12)
    local scores = nn.parameter(bp.zeros(1, 3))
    local optimizer = optim.adam({ scores }, { lr = 0.1 })
    local pays = bp.tensor{ 0.2, 0.5, 0.9 }
    local step = bp.capture(function()
      local policy = rl.categorical{ logits = scores + bp.zeros(64, 1) }
      local arm = policy:sample()
      local reward = bp.rand(64):lt(ops.take(pays, arm, { axis = 1 })):to "f32"
      local loss = -(policy:log_prob(arm) * (reward - reward:mean())):mean()
      optimizer:zero_grad()
      loss:backward()
      optimizer:step()
      return reward:mean()
    end)
    for _ = 1, 100 do step() end
    assert.is_true(scores:softmax(2)[{ 1, 3 }]:item() > 0.95)
  end)
end)

describe("bp.rl refuses", function()
  local d, n = rl.categorical{ logits = bp.zeros(2, 3) }, rl.normal{ mean = bp.zeros(2, 3), std = 1 }
  local b = rl.replay{ 4, fields = { o = { 2 }, a = { dtype = "i64" } } }
  local full = rl.replay{ 4, fields = { o = { 2 } } }
  full:add{ o = { 1, 2 } }
  local function env(more)
    local e = { actions = 2, reset = function() return { 0, 0 } end, step = function() return { 0, 0 }, 1, false end }
    for key, value in pairs(more) do e[key] = value end
    return e
  end
  local vector = rl.vector_env{ { rl.cartpole{}, rl.cartpole{} } }
  vector:reset()
  bad.cases{
    { "a name that is not there", function() return rl.reinforce end, "bp.rl has no 'reinforce'", "returns" },
    { "no scores", function() rl.categorical{} end, "rl.categorical", "either logits or probs" },
    { "scores that are one number", function() rl.categorical{ logits = bp.tensor(1) } end, "one number", "[..][n]" },
    { "scores that are whole numbers", function() rl.categorical{ logits = bp.arange(3) } end, "i64", "expected f32 or f64" },
    { "an unknown stream", function() rl.categorical{ logits = bp.zeros(2), stream = "nose" } end, "'nose'", "did you mean 'noise'?" },
    { "a stream that is no state", function() rl.categorical{ logits = bp.zeros(2), stream = bp.zeros(2) } end, "f32 [2]", "i64 [2]" },
    { "actions of another shape", function() d:log_prob{ 1, 2, 3 } end, "categorical:log_prob", "[3]; expected [2]" },
    { "an action that is not there", function() d:log_prob{ 1, 4 } end, "4", "3" },
    { "a method without :", function() d.log_prob { 1, 2 } end, "categorical:log_prob", "with ':'" },
    { "a divergence from a tensor", function() d:kl(bp.zeros(2)) end, "tensor f32 [2]", "expected an rl.categorical" },
    { "a divergence from another kind", function() n:kl(d) end, "rl.categorical", "expected an rl.normal" },
    { "neither std nor log_std", function() rl.normal{ mean = bp.zeros(2) } end, "rl.normal", "either std or log_std" },
    { "a std of 0", function() rl.normal{ mean = bp.zeros(2), std = 0 } end, "is 0", "above 0" },
    { "a std of another shape", function() rl.normal{ mean = bp.zeros(2), std = bp.ones(3) } end, "[3]", "broadcasts to the mean's, [2]" },
    { "no rewards", function() rl.returns{} end, "option 'rewards' is missing", "expected a table or a tensor" },
    { "an empty list of rewards", function() rl.returns{ {} } end, "there are no rewards", "at least one" },
    { "a gamma of 2", function() rl.returns{ { 1 }, gamma = 2 } end, "gamma", "at most 1" },
    { "done of another length", function() rl.returns{ { 1, 2 }, done = { 1 } } end, "'done' is [1]", "the shape of rewards, [2]" },
    { "values of another length", function() rl.gae{ { 1, 2 }, { 1 } } end, "'values' is [1]", "[2]" },
    { "last for other environments", function() rl.returns{ bp.ones(3, 2), last = bp.ones(3) } end, "'last' is [3]", "[2]" },
    { "a buffer without fields", function() rl.replay{ 4 } end, "option 'fields' is missing", "what a step consists of" },
    { "a field that is no shape", function() rl.replay{ 4, fields = { o = 2 } } end, "field 'o' is a number (2)", "list of sizes" },
    { "a field called index", function() rl.replay{ 4, fields = { index = {} } } end, "'index'", "sample gives that" },
    { "a step without a field", function() b:add{ o = { 1, 2 } } end, "field 'a' is missing", "replay:add" },
    { "a step with one too many", function() b:add{ o = { 1, 2 }, a = 1, c = 2 } end, "unknown field 'c'", "replay:add" },
    { "a step of another shape", function() b:add{ o = { 1, 2, 3 }, a = 1 } end, "field 'o' is [3]", "expected [2]" },
    { "steps of different lengths", function() b:add_batch{ o = bp.zeros(3, 2), a = { 1, 2 } } end, "'o' is [3][2]", "expected [2][2]" },
    { "to draw from nothing", function() b:sample(2) end, "there is nothing in it", "add steps" },
    { "to add inside a capture", function() bp.capture(function() full:add{ o = { 1, 2 } } end)() end,
      "inside a captured function", "outside" },
    { "priorities where there are none", function() full:set_priorities(bp.arange(1), bp.ones(1)) end, "no priorities", "priority = 0.6" },
    { "another buffer's state", function() b:load_state(full:state()) end, "no tensor 'a'", "another buffer" },
    { "an environment without step", function() rl.check_env{ { reset = print } } end, "env.step is nil", "function env:step(action)" },
    { "one that does not say its actions", function() rl.check_env(env{ actions = false, action_size = nil }) end,
      "env.actions", "number of actions" },
    { "one without observations", function() rl.check_env(env{ reset = function() end }) end,
      "observation of reset is nil", "list of numbers" },
    { "one whose observations change", function() rl.check_env(env{ reset = function() return 1 end }) end, "[2]", "one number" },
    { "one whose observations are NaN", function() rl.check_env(env{ reset = function() return { 0 / 0 } end }) end, "reset", "NaN" },
    { "one without rewards", function() rl.check_env(env{ step = function() return { 0, 0 } end }) end,
      "step 1: the reward is nil", "finite number" },
    { "one that never says done", function() rl.check_env(env{ step = function() return { 0, 0 }, 1 end }) end,
      "done is nil", "true or false" },
    { "a third push", function()
      local e = rl.cartpole{}
      e:reset()
      e:step(3)
    end, "the action is a number (3)", "1 (left) or 2 (right)" },
    { "a step after the end", function() rl.cartpole{}:step(1) end, "over", "reset" },
    { "no environments", function() rl.vector_env{ {} } end, "empty", "rl.vector_env" },
    { "an environment that is none", function() rl.vector_env{ { 5 } } end, "environment 1 is a number (5)", "reset and step" },
    { "actions for other environments", function() vector:step{ 1 } end, "vector:step", "each of 2" },
  }
end)
