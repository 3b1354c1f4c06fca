--- Balances a pole on a cart: bplua scripts/cartpole.lua [--method reinforce|ppo|dqn] [--seed n] [--quick]
-- Three ways to learn to decide, each with its update as one captured step. Prints the mean return of 100 new episodes that the trained net
-- plays; 475 counts as solved. --quick stops early, at whatever it reached.
local bp = require "bp"
local nn, optim, rl, ops = bp.nn, bp.optim, bp.rl, bp.ops

local method, seed, quick = "ppo", 1, false
for i, word in ipairs(arg) do
  if word == "--quick" then quick = true end
  if word == "--method" then method = arg[i + 1] end
  if word == "--seed" then seed = math.tointeger(tonumber(arg[i + 1])) or error "--seed takes a whole number" end
end
bp.seed(seed)

local SOLVED, GOAL_EPISODES = 475, 100

-- The mean return of 100 new environments played side by side, each for one episode. choose(observations) gives the actions.
local function play(choose, first_seed)
  local envs = rl.vector_env{ make = function(i) return rl.cartpole{ seed = first_seed + i } end, count = GOAL_EPISODES }
  local act = bp.capture(function(o) return bp.no_grad(choose, o) end)
  local observation, total, waiting, returns = envs:reset(), 0, GOAL_EPISODES, {}
  while waiting > 0 do
    local next_observation, _, _, infos = envs:step(act(observation))
    observation = next_observation
    for i, info in ipairs(infos) do
      if info.episode_return and not returns[i] then
        returns[i], total, waiting = info.episode_return, total + info.episode_return, waiting - 1
      end
    end
  end
  return total / GOAL_EPISODES
end

local function hidden_net(units, activation, outputs)
  local net = nn.sequential{ nn.dense{ units, activation = activation }, nn.dense{ units, activation = activation }, nn.dense(outputs) }
  return net:build_for{ 4 }
end

-- Keeps the mean of the last 100 returns; says when to stop: at the limit, or when that mean and 100 episodes of a trial are good.
local function new_progress(what, limit, choose)
  local returns, sum, steps, tried = {}, 0, 0, 0
  local progress = {}
  function progress.episode(value)
    returns[#returns + 1], sum, steps = value, sum + value, steps + value
    if #returns > 100 then sum = sum - returns[#returns - 100] end
    if #returns % 50 == 0 then
      print(("%s: %d episodes, %d steps, mean of the last 100: %.1f"):format(what, #returns, steps, progress.mean()))
    end
  end
  function progress.mean() return sum / math.max(1, math.min(100, #returns)) end
  function progress.over()
    if steps >= limit then return true end
    if #returns < tried + 25 or #returns < 100 or progress.mean() < SOLVED then return false end
    tried = #returns
    return play(choose, 1000003 * seed + 500000) >= SOLVED + 10
  end
  return progress
end

-- ---- REINFORCE -----------------------------------------------------------------------------------------------------------------------
-- Whole episodes; the log-probability of every action is weighed by the return that followed it. Williams, "Simple Statistical
-- Gradient-Following Algorithms for Connectionist Reinforcement Learning", 1992.

local function reinforce()
  local net, env = hidden_net(32, "tanh", 2), rl.cartpole{ seed = seed }
  local optimizer = optim.adam(net:parameters(), { lr = 3e-3 })
  local act = bp.capture(function(o)
    return bp.no_grad(function() return rl.categorical{ logits = net(o) }:sample() end)
  end)
  local update = bp.capture(function(o, action, weight)
    local loss = -(rl.categorical{ logits = net(o) }:log_prob(action) * weight):sum()
    optimizer:zero_grad()
    loss:backward()
    optimizer:step()
    return loss
  end)
  local function choose(o) return rl.categorical{ logits = net(o) }:sample() end
  local progress = new_progress("reinforce", quick and 20000 or 1000000, choose)
  while not progress.over() do
    local observations, actions, weights = {}, {}, {}
    for _ = 1, 8 do
      local rewards, done, o = {}, false, env:reset()
      while not done do
        local action = act(bp.tensor(o)):item()
        observations[#observations + 1], actions[#actions + 1] = o, action
        o, rewards[#rewards + 1], done = env:step(action)
      end
      weights[#weights + 1] = rl.returns(rewards, { gamma = 0.99 })
      progress.episode(#rewards)
    end
    local weight = ops.concat(weights, { axis = 1 })
    weight = (weight - weight:mean()) / ((weight - weight:mean()):square():mean():sqrt() + 1e-8) / #actions
    -- A step is recorded for each shape: lengths are rounded up to a few, with rows that weigh nothing.
    local missing = -#actions % 500
    for _ = 1, missing do observations[#observations + 1], actions[#actions + 1] = { 0, 0, 0, 0 }, 1 end
    if missing > 0 then weight = ops.concat({ weight, bp.zeros(missing) }, { axis = 1 }) end
    update(bp.tensor(observations), bp.tensor(actions, { dtype = "i64" }), weight)
  end
  return choose
end

-- ---- PPO -----------------------------------------------------------------------------------------------------------------------------
-- Many environments for a few steps, advantages from a critic, and several passes that keep each action's chance within `clip` of what it
-- was. Schulman and others, "Proximal Policy Optimization Algorithms", 2017.

local function ppo()
  local envs, horizon, passes, batch = 8, 32, 20, 256
  local gamma, lambda, clip, steps = 0.98, 0.8, 0.2, quick and 12000 or 150000
  local actor, critic = hidden_net(64, "tanh", 2), hidden_net(64, "tanh", 1)
  local parameters = actor:parameters()
  for _, p in ipairs(critic:parameters()) do parameters[#parameters + 1] = p end
  local updates = steps // (envs * horizon) * passes
  local optimizer = optim.adam(parameters, { lr = function(step) return 1e-3 * math.max(0.05, 1 - step / updates) end })

  local act = bp.capture(function(o)
    return bp.no_grad(function()
      local policy = rl.categorical{ logits = actor(o) }
      local action = policy:sample()
      return action, policy:log_prob(action), critic(o):reshape(envs)
    end)
  end)
  local value = bp.capture(function(o) return bp.no_grad(function() return critic(o):reshape(-1) end) end)
  local update = bp.capture(function(data, index)
    local function rows(t) return ops.take(t, index, { axis = 1 }) end
    local policy, advantage = rl.categorical{ logits = actor(rows(data.observation)) }, rows(data.advantage)
    advantage = (advantage - advantage:mean()) / ((advantage - advantage:mean()):square():mean():sqrt() + 1e-8)
    local ratio = (policy:log_prob(rows(data.action)) - rows(data.log_prob)):exp()
    local gain = ops.minimum(ratio * advantage, ratio:clamp{ min = 1 - clip, max = 1 + clip } * advantage):mean()
    local miss = (critic(rows(data.observation)):reshape(-1) - rows(data.target)):square():mean()
    optimizer:zero_grad()
    local loss = miss * 0.5 - gain
    loss:backward()
    bp.clip_grad_norm(parameters, 0.5)
    optimizer:step()
    return loss
  end)

  local world = rl.vector_env{ make = function(i) return rl.cartpole{ seed = 1000 * seed + i } end, count = envs }
  local function choose(observation) return rl.categorical{ logits = actor(observation) }:sample() end
  local progress, o = new_progress("ppo", steps, choose), world:reset()
  while not progress.over() do
    local seen = { observation = {}, action = {}, log_prob = {}, value = {}, reward = {}, done = {}, cut = {} }
    for t = 1, horizon do
      seen.observation[t] = o
      seen.action[t], seen.log_prob[t], seen.value[t] = act(o)
      local infos, cut
      o, seen.reward[t], seen.done[t], infos = world:step(seen.action[t])
      cut = {}
      for i, info in ipairs(infos) do
        cut[i] = info.truncated and value(info.final_observation:reshape(1, 4)):item() or 0
        if info.episode_return then progress.episode(info.episode_return) end
      end
      seen.cut[t] = bp.tensor(cut)
    end
    for name, list in pairs(seen) do seen[name] = ops.stack(list, { axis = 1 }) end
    local advantage, target = rl.gae{ seen.reward, seen.value, done = seen.done, cut = seen.cut, last = value(o), gamma = gamma,
      lambda = lambda }
    local data = { observation = seen.observation:reshape(-1, 4), action = seen.action:reshape(-1), log_prob = seen.log_prob:reshape(-1),
      advantage = advantage:reshape(-1), target = target:reshape(-1) }
    for _ = 1, passes do
      local order = bp.randperm(envs * horizon)
      for first = 1, envs * horizon, batch do update(data, order[{ { first, first + batch - 1 } }]) end
    end
  end
  return choose
end

-- ---- DQN -----------------------------------------------------------------------------------------------------------------------------
-- Learns what each action is worth from steps drawn out of a replay buffer, against a copy of itself that follows slowly; the better action
-- is chosen by the net and valued by the copy. Mnih and others, 2015; van Hasselt and others, "Double Q-learning", 2016.

local function dqn()
  local gamma, steps, warmup, explore = 0.99, quick and 4000 or 120000, 1000, 8000
  local net, copy, env = hidden_net(128, "relu", 2), hidden_net(128, "relu", 2), rl.cartpole{ seed = seed }
  local optimizer = optim.adam(net:parameters(), { lr = 3e-4 })
  local mine, theirs = net:parameters(), copy:parameters()
  local function follow(share)
    bp.no_grad(function()
      for i, p in ipairs(theirs) do p:mul_(1 - share):add_(mine[i] * share) end
    end)
  end
  copy:freeze()
  follow(1)
  local buffer = rl.replay{ 100000,
    fields = { observation = { 4 }, action = { dtype = "i64" }, reward = {}, following = { 4 }, ended = {} } }
  local best = bp.capture(function(o) return bp.no_grad(function() return net(o):argmax(-1) end) end)
  local update = bp.capture(function()
    local batch = buffer:sample(128)
    local target = bp.no_grad(function()
      local choice = net(batch.following):argmax(-1):unsqueeze(-1)
      return batch.reward + (1 - batch.ended) * gamma * ops.gather(copy(batch.following), choice, { axis = 2 }):squeeze(-1)
    end)
    local worth = ops.gather(net(batch.observation), batch.action:unsqueeze(-1), { axis = 2 }):squeeze(-1)
    local loss = nn.loss.huber(worth, target)
    optimizer:zero_grad()
    loss:backward()
    bp.clip_grad_norm(mine, 10)
    optimizer:step()
    follow(0.005)
    return loss
  end)
  local function choose(observation) return net(observation):argmax(-1) end
  local progress, o, length = new_progress("dqn", steps, choose), env:reset(), 0
  local chance, n = bp.rand(steps + 500):totable(), 0
  while not progress.over() do
    n = n + 1
    local epsilon = math.max(0.04, 1 - n / explore)
    local action = (chance[n] or 1) < epsilon and bp.randint(1, 2, {}):item() or best(bp.tensor(o)):item()
    local following, reward, done, info = env:step(action)
    buffer:add{ observation = o, action = action, reward = reward, following = following, ended = done and not info.truncated }
    o, length = following, length + 1
    if done then
      progress.episode(length)
      o, length = env:reset(), 0
    end
    if n >= warmup then update() end
  end
  return choose
end

local methods = { reinforce = reinforce, ppo = ppo, dqn = dqn }
local train = methods[method]
if not train then
  print(("unknown method '%s'; expected reinforce, ppo or dqn"):format(tostring(method)))
  os.exit(2)
end
local reached = play(train(), 1000003 * seed)
print(("%s: mean return over %d episodes: %.1f%s"):format(method, GOAL_EPISODES, reached, reached >= SOLVED and " (solved)" or ""))
