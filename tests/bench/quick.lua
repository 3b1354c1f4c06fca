--- Instructions per step of small workloads, counted by valgrind's callgrind, against what tests/bench/baseline.lua keeps: a count does
--- not depend on
-- what else the machine does. bplua tests/bench/quick.lua [--update]. Fails where a count grew by more than a quarter. One thread, AVX2
-- kernels.
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
  batch_norm = { 1, [[
    local net = nn.sequential{ nn.conv2d{16, 3, padding = "same"}, nn.batch_norm(), nn.activation "relu", nn.global_avg_pool2d(),
      nn.dense(10) }
    return train(net, optim.sgd, nn.loss.cross_entropy, bp.rand(4, 16, 16, 3), bp.randint(1, 10, {4}))]] },
  infer_mlp = { 500, [[
    local net, x = nn.sequential{ nn.dense{32, activation = "relu"}, nn.dense(1) }, bp.rand(1, 10)
    net(x)
    net:eval()
    local step = bp.capture(function(v) return bp.no_grad(function() return net(v) end) end)
    return function() step(x):free() end]] },
}

local prelude = [[
local bp = require "bp"
local nn, optim = bp.nn, bp.optim
bp.threads(1)
bp.seed(1)
local function train(net, optimizer, loss_of, x, y)
  net:train()
  bp.no_grad(function() net(x) end)
  local opt = optimizer(net:parameters(), { lr = 1e-3 })
  local step = bp.capture(function(a, b)
    local loss = loss_of(net(a), b)
    opt:zero_grad()
    loss:backward()
    opt:step()
    return loss
  end)
  return function() step(x, y):free() end
end
collectgarbage "stop"
local step = (function()
]]

local function count(name, steps)
  local path = os.tmpname()
  local f <close> = assert(io.open(path, "w"))
  f:write(prelude, programs[name][2], "\nend)()\nfor _ = 1, ", steps, " do step() end\n")
  f:flush()
  local p = io.popen(("BP_ISA=avx2 valgrind --tool=callgrind --callgrind-out-file=/dev/null '%s' %s 2>&1"):format(bplua, path))
  local text = p:read "a"
  local fine = p:close()
  os.remove(path)
  return fine and tonumber(text:match "Collected : (%d+)") or error(name .. ": " .. text)
end

local valgrind = os.execute "command -v valgrind > /dev/null 2>&1"
if not valgrind then
  print "not measured: valgrind is not installed (apt-get install valgrind)"
  os.exit(true)
end

local names, counts, failed = {}, {}, 0
for name in pairs(programs) do names[#names + 1] = name end
table.sort(names)
local known = loadfile(baseline_file, "t")
local baseline = known and known() or {}
for _, name in ipairs(names) do
  local steps = programs[name][1]
  counts[name] = (count(name, 2 + 2 * steps) - count(name, 2 + steps)) // steps
  local before = baseline[name]
  local grown = before and counts[name] / before
  if grown and grown > 1.25 then failed = failed + 1 end
  print(("%-12s %12d instructions a step%s"):format(name, counts[name], grown and (", %.2f of the baseline%s"):format(grown,
    grown > 1.25 and ": grew by more than a quarter" or "") or ""))
end
if arg[1] == "--update" then
  local f <close> = assert(io.open(baseline_file, "w"))
  f:write("--- Instructions per step as tests/bench/quick.lua counts them; written by its option --update.\nreturn {\n")
  for _, name in ipairs(names) do f:write(("  %s = %d,\n"):format(name, counts[name])) end
  f:write "}\n"
end
os.exit(failed == 0)
