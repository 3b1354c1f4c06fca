--- Instructions per step of small workloads, counted by valgrind's callgrind, against what tests/bench/baseline.lua keeps: a count does
--- not depend on what else the machine does. bplua tests/bench/quick.lua [--update] [NAME...]. Fails where a count grew by more than a
--- quarter. One thread, AVX2 kernels. A workload whose layers are not there is named as not measured. --update keeps the counts that were
--- measured beside those that were not.
local baseline_file = "tests/bench/baseline.lua"
local bplua = arg[-1]

local programs = {
  mlp_tiny = { 200, [[
    local net, x, y = nn.sequential{ nn.dense{32, activation = "relu"}, nn.dense(1) }, bp.rand(32, 10), bp.rand(32, 1)
    return train(net, optim.adam, nn.loss.mse, x, y)]] },
  mlp_784 = { 1, [[
    local net = nn.sequential{ nn.dense{512, activation = "relu"}, nn.dropout(0.2), nn.dense{512, activation = "relu"},
      nn.dropout(0.2), nn.dense(10) }
    return train(net, optim.adam, nn.loss.cross_entropy, bp.rand(16, 784), bp.randint(1, 10, {16}))]] },
  cnn = { 1, [[
    local net = nn.sequential{ nn.conv2d{32, 3, activation = "relu"}, nn.conv2d{64, 3, activation = "relu"}, nn.max_pool2d(2),
      nn.dropout(0.25), nn.flatten(), nn.dense{128, activation = "relu"}, nn.dropout(0.5), nn.dense(10) }
    return train(net, optim.adam, nn.loss.cross_entropy, bp.rand(1, 28, 28, 1), bp.randint(1, 10, {1}))]] },
  batch_norm = { 20, [[
    local net = nn.sequential{ nn.conv2d{16, 3, padding = "same"}, nn.batch_norm(), nn.activation "relu", nn.global_avg_pool2d(),
      nn.dense(10) }
    return train(net, optim.sgd, nn.loss.cross_entropy, bp.rand(4, 16, 16, 3), bp.randint(1, 10, {4}))]] },
  infer_mlp = { 500, [[return infer(nn.sequential{ nn.dense{32, activation = "relu"}, nn.dense(1) }, bp.rand(1, 10))]] },
  infer_cnn = { 5, [[
    return infer(nn.sequential{ nn.conv2d{32, 3, activation = "relu"}, nn.conv2d{64, 3, activation = "relu"}, nn.max_pool2d(2),
      nn.flatten(), nn.dense{128, activation = "relu"}, nn.dense(10) }, bp.rand(1, 28, 28, 1))]] },
  infer_mlp_into = { 500, [[
    return infer(nn.sequential{ nn.dense{32, activation = "relu"}, nn.dense(1) }, bp.rand(1, 10), true)]] },
  lenet5 = { 1, [[
    local net = nn.sequential{ nn.conv2d{6, 5, activation = "relu", padding = "same"}, nn.max_pool2d(2),
      nn.conv2d{16, 5, activation = "relu"}, nn.max_pool2d(2), nn.flatten(), nn.dense{120, activation = "relu"},
      nn.dense{84, activation = "relu"}, nn.dense(10) }
    return train(net, optim.sgd, nn.loss.cross_entropy, bp.rand(4, 28, 28, 1), bp.randint(1, 10, {4}))]] },
  conv_strided = { 20, [[
    local net = nn.sequential{ nn.conv2d{12, 5, strides = 2, padding = "same", activation = "relu"}, nn.conv2d{20, 3},
      nn.global_avg_pool2d(), nn.dense(3) }
    return train(net, optim.adam, nn.loss.cross_entropy, bp.rand(3, 17, 17, 5), bp.randint(1, 3, {3}))]] },
  eager_tiny = { 50, [[
    local net, x, y = nn.sequential{ nn.dense{32, activation = "relu"}, nn.dense(1) }, bp.rand(32, 10), bp.rand(32, 1)
    return train(net, optim.adam, nn.loss.mse, x, y, true)]] },
  replay_100_ops = { 50, [[
    local x = bp.rand(1)
    local step = bp.capture(function(v)
      for _ = 1, 100 do v = v:abs() end
      return v
    end)
    return function() step(x):free() end]] },
  fit_step = { 32, [[
    local model = nn.sequential{ nn.dense{32, activation = "relu"}, nn.dense(1) }
    model:compile{ optimizer = optim.adam{ lr = 1e-3 }, loss = "mse" }
    local data, left = { bp.rand(512, 10), bp.rand(512, 1) }, 0
    return function()
      if left == 0 then
        model:fit{ data, epochs = 1, batch_size = 32, verbose = 0 }
        left = 16
      end
      left = left - 1
    end]] },
  lstm = { 20, [[
    local net = nn.sequential{ nn.lstm(32), nn.dense(1) }
    return train(net, optim.adam, nn.loss.mse, bp.rand(8, 10, 16), bp.rand(8, 1))]], "lstm" },
  gru = { 20, [[
    local net = nn.sequential{ nn.gru(32), nn.dense(1) }
    return train(net, optim.adam, nn.loss.mse, bp.rand(8, 10, 16), bp.rand(8, 1))]], "gru" },
  embedding = { 20, [[
    local net = nn.sequential{ nn.embedding{1000, 32}, nn.flatten(), nn.dense(1) }
    return train(net, optim.sgd, nn.loss.mse, bp.randint(1, 1000, {8, 10}), bp.rand(8, 1))]], "embedding" },
  attention = { 20, [[
    local block = nn.multi_head_attention(2)
    local net = nn.sequential{ block, nn.flatten(), nn.dense(1) }
    return train(net, optim.sgd, nn.loss.mse, bp.rand(2, 12, 32), bp.rand(2, 1))]], "multi_head_attention" },
  depthwise = { 20, [[
    local net = nn.sequential{ nn.depthwise_conv2d{3, padding = "same"}, nn.global_avg_pool2d(), nn.dense(3) }
    return train(net, optim.sgd, nn.loss.cross_entropy, bp.rand(4, 14, 14, 32), bp.randint(1, 3, {4}))]], "depthwise_conv2d" },
}

local prelude = [[
local bp = require "bp"
local nn, optim = bp.nn, bp.optim
bp.threads(1)
bp.seed(1)
local function train(net, optimizer, loss_of, x, y, eager)
  net:train()
  bp.no_grad(function() net(x) end)
  local opt = optimizer(net:parameters(), { lr = 1e-3 })
  local function body(a, b)
    local loss = loss_of(net(a), b)
    opt:zero_grad()
    loss:backward()
    opt:step()
    return loss
  end
  local step = eager and function(a, b) return bp.scope(body, a, b) end or bp.capture(body)
  return function() step(x, y):free() end
end
local function infer(net, x, into)
  net(x)
  net:eval()
  local step = bp.capture(function(v) return bp.no_grad(function() return net(v) end) end)
  local out = step(x)
  return into and function() step:into(out, x) end or function() step(x):free() end
end
collectgarbage "stop"
local step = (function()
]]

-- Starts a run of so many steps; the answer is read by finish, so that two can run at once.
local function start(name, steps)
  local path = os.tmpname()
  local f <close> = assert(io.open(path, "w"))
  f:write(prelude, programs[name][2], "\nend)()\nfor _ = 1, ", steps, " do step() end\n")
  return { path = path,
    pipe = io.popen(("BP_ISA=avx2 valgrind --tool=callgrind --callgrind-out-file=/dev/null '%s' %s 2>&1"):format(bplua, path)) }
end

local function finish(name, run)
  local text = run.pipe:read "a"
  local fine = run.pipe:close()
  os.remove(run.path)
  return fine and tonumber(text:match "Collected : (%d+)") or error(name .. ": " .. text)
end

-- Instructions of one step: the difference between two lengths.
local function count(name)
  local steps = programs[name][1]
  local long, short = start(name, 2 + 2 * steps), start(name, 2 + steps)
  local most = finish(name, long)
  return (most - finish(name, short)) // steps
end

-- What a count must not exceed whatever the baseline says: a replayed op may cost 50 ns: at four
-- instructions a cycle and 3 GHz some 600 instructions. It takes some 320 with the kernel of one element.
local MOST = { replay_100_ops = 40000 }

local valgrind = os.execute "command -v valgrind > /dev/null 2>&1"
if not valgrind then
  print "not measured: valgrind is not installed (apt-get install valgrind)"
  os.exit(true)
end

local update, wanted = false, {}
for _, word in ipairs(arg) do
  if word == "--update" then update = true
  elseif programs[word] then wanted[word] = true
  else
    io.stderr:write(("quick: no workload called %s\n"):format(word))
    os.exit(false)
  end
end

local names, failed = {}, 0
for name in pairs(programs) do
  if next(wanted) == nil or wanted[name] then names[#names + 1] = name end
end
table.sort(names)
local known = loadfile(baseline_file, "t")
local baseline = known and known() or {}
local counts = {}
for name, value in pairs(baseline) do counts[name] = programs[name] and value end
for _, name in ipairs(names) do
  local need = programs[name][3]
  if need and not require("bp").nn[need] then print(("%-12s not measured: there is no nn.%s"):format(name, need)) else
    counts[name] = count(name)
    local before = baseline[name]
    local grown = before and counts[name] / before
    local over = MOST[name] and counts[name] > MOST[name]
    if over or grown and grown > 1.25 then failed = failed + 1 end
    if over then print(("%-12s more than the %d instructions allowed"):format(name, MOST[name])) end
    print(("%-12s %12d instructions a step%s"):format(name, counts[name], grown and (", %.2f of the baseline%s"):format(grown,
      grown > 1.25 and ": grew by more than a quarter" or "") or ""))
  end
end
if update then
  local kept = {}
  for name in pairs(counts) do kept[#kept + 1] = name end
  table.sort(kept)
  local f <close> = assert(io.open(baseline_file, "w"))
  f:write("--- Instructions per step as tests/bench/quick.lua counts them; written by its option --update.\nreturn {\n")
  for _, name in ipairs(kept) do f:write(("  %s = %d,\n"):format(name, counts[name])) end
  f:write "}\n"
end
os.exit(failed == 0)
