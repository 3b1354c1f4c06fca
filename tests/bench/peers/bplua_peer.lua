--- The workloads of tests/bench/peers/workloads.py in bplua, behind the same protocol (peers/protocol.py): one JSON line per command from
--- stdin.
--   bplua tests/bench/bplua_peer.lua [--threads N] [--eager]       list | run WORKLOAD STEPS | quit
local bp = require "bp"
local core = require "bp.core"
local nn, optim = bp.nn, bp.optim

local eager = false
for i, word in ipairs(arg) do
  if word == "--eager" then eager = true end
  if word == "--threads" then bp.threads(tonumber(arg[i + 1])) end
end

local POOL = 24 -- batches that training goes round in

-- ---- data ----------------------------------------------------------------------------------------------------------------------------

local function cut(x, y, batch)
  local xs, ys = {}, {}
  for i = 1, POOL do
    local rows = { (i - 1) * batch + 1, i * batch }
    xs[i], ys[i] = x[{ rows }]:clone(), y[{ rows }]:clone()
  end
  return xs, ys
end

local function fashion(count)
  local train = assert(bp.data.fashion_mnist())
  local part = train:subset(bp.arange(count))
  return part.x:to "f32" / 255, part.y
end

local function tiny_data(batch)
  local x = bp.rand(POOL * batch, 10) * 2 - 1
  local first, second, third = x[{ {}, { 1, 1 } }], x[{ {}, { 2, 2 } }], x[{ {}, { 3, 3 } }]
  return cut(x, (first * 2):sin() + second * third, batch)
end

local function patterns(batch)
  local y = bp.randint(1, 10, { POOL * batch })
  local kinds = bp.rand(10, 32, 32, 3)
  return cut(bp.ops.take(kinds, y) + bp.randn(POOL * batch, 32, 32, 3) * 0.3, y, batch)
end

local function flat_fashion(batch)
  local x, y = fashion(POOL * batch)
  return cut(x:reshape(POOL * batch, 784), y, batch)
end

local function square_fashion(batch)
  local x, y = fashion(POOL * batch)
  return cut(x, y, batch)
end

-- ---- nets ----------------------------------------------------------------------------------------------------------------------------

local function tiny() return nn.sequential{ nn.dense{ 32, activation = "relu" }, nn.dense(1) } end

local function mlp()
  return nn.sequential{ nn.dense{ 512, activation = "relu" }, nn.dropout(0.2), nn.dense{ 512, activation = "relu" }, nn.dropout(0.2),
    nn.dense(10) }
end

local function cnn()
  return nn.sequential{ nn.conv2d{ 32, 3, activation = "relu" }, nn.conv2d{ 64, 3, activation = "relu" }, nn.max_pool2d(2),
    nn.dropout(0.25), nn.flatten(), nn.dense{ 128, activation = "relu" }, nn.dropout(0.5), nn.dense(10) }
end

local function lenet5()
  return nn.sequential{ nn.conv2d{ 6, 5, activation = "relu", padding = "same" }, nn.max_pool2d(2), nn.conv2d{ 16, 5, activation = "relu" },
    nn.max_pool2d(2), nn.flatten(), nn.dense{ 120, activation = "relu" }, nn.dense{ 84, activation = "relu" }, nn.dense(10) }
end

local function conv3(filters, stride) return nn.conv2d{ filters, 3, strides = stride, padding = "same", use_bias = false } end

local Block = nn.module("ResnetBlock", function(self, filters, stride)
  self.first, self.second = conv3(filters, stride), conv3(filters, 1)
  self.norm1, self.norm2 = nn.batch_norm(), nn.batch_norm()
  rawset(self, "stride", stride)
end)

function Block:forward(x)
  local y = self.norm2(self.second(self.norm1(self.first(x)):relu()))
  if self.stride > 1 then
    x = x[{ {}, { 1, -1, 2 }, { 1, -1, 2 } }]
    local side = bp.zeros(x:size(1), x:size(2), x:size(3), x:size(4) // 2)
    x = bp.concat({ side, x, side }, 4)
  end
  return (x + y):relu()
end

local function resnet20()
  local layers = { conv3(16, 1), nn.batch_norm(), nn.activation "relu" }
  for stage, filters in ipairs{ 16, 32, 64 } do
    for index = 1, 3 do layers[#layers + 1] = Block(filters, stage > 1 and index == 1 and 2 or 1) end
  end
  for _, layer in ipairs{ nn.global_avg_pool2d(), nn.dense(10) } do layers[#layers + 1] = layer end
  return nn.sequential(layers)
end

-- ---- steps ---------------------------------------------------------------------------------------------------------------------------

local function adam(lr) return function(net) return optim.adam(net:parameters(), { lr = lr }) end end
local function sgd(lr, decay)
  return function(net) return optim.sgd(net:parameters(), { lr = lr, momentum = 0.9, weight_decay = decay }) end
end

local function training(build, optimizer, loss_of, make_data, batch)
  return function()
    bp.seed(1)
    local net, xs, ys = build(), make_data(batch)
    net:train()
    bp.no_grad(function() net(xs[1]) end)
    local opt = optimizer(net)
    local function body(x, y)
      local loss = loss_of(net(x), y)
      opt:zero_grad()
      loss:backward()
      opt:step()
      return loss
    end
    local step = eager and function(x, y) return bp.scope(function() return body(x, y) end) end or bp.capture(body)
    local at = 0
    return function(n)
      local loss
      for _ = 1, n do
        at = at % POOL + 1
        if loss then loss:free() end
        loss = step(xs[at], ys[at])
      end
      return loss:item()
    end
  end
end

local function inference(build, make_data)
  return function()
    bp.seed(1)
    local net, xs = build(), make_data(1)
    net:eval()
    local step = eager and function(x) return bp.scope(function() return bp.no_grad(function() return net(x) end) end) end
      or bp.capture(function(x) return bp.no_grad(function() return net(x) end) end)
    local at = 0
    return function(n)
      for _ = 1, n do
        at = at % POOL + 1
        step(xs[at]):free()
      end
    end
  end
end

local workloads = {
  mlp_tiny = { 32, training(tiny, adam(0.01), nn.loss.mse, tiny_data, 32) },
  mlp_784 = { 128, training(mlp, adam(0.001), nn.loss.cross_entropy, flat_fashion, 128) },
  cnn_mnist = { 128, training(cnn, adam(0.001), nn.loss.cross_entropy, square_fashion, 128) },
  lenet5 = { 32, training(lenet5, sgd(0.01, 0), nn.loss.cross_entropy, square_fashion, 32) },
  resnet20 = { 128, training(resnet20, sgd(0.1, 1e-4), nn.loss.cross_entropy, patterns, 128) },
  infer_mlp = { 1, inference(tiny, tiny_data) },
  infer_cnn = { 1, inference(cnn, square_fashion) },
}

-- ---- protocol ------------------------------------------------------------------------------------------------------------------------

local built = {}
local about = { peer = "bplua", variant = eager and "eager" or "captured", threads = bp.threads() }

local function run(name, steps)
  local workload = workloads[name] or error("no workload called " .. tostring(name))
  local answer = { workload = name, steps = steps, samples = workload[1] * steps }
  for key, value in pairs(about) do answer[key] = value end
  if not built[name] then
    local start = core.clock()
    built[name] = workload[2]()
    built[name](1)
    local warm = core.clock()
    while core.clock() - warm < 0.5 do built[name](3) end
    answer.setup_seconds = core.clock() - start
  end
  local start = core.clock()
  answer.loss = built[name](steps)
  answer.seconds = core.clock() - start
  answer.samples_per_second = answer.samples / answer.seconds
  return answer
end

io.stdout:setvbuf "line"
for line in io.lines() do
  local words = {}
  for word in line:gmatch "%S+" do words[#words + 1] = word end
  if words[1] == "quit" then break end
  local answer
  if words[1] == "list" then
    local names = {}
    for name in pairs(workloads) do names[#names + 1] = name end
    table.sort(names)
    answer = { peer = about.peer, variant = about.variant, threads = about.threads, versions = { bplua = bp.version }, workloads = names }
  elseif words[1] == "run" and tonumber(words[3]) then
    local ok, result = pcall(run, words[2], math.tointeger(tonumber(words[3])))
    answer = ok and result or { error = tostring(result) }
  else answer = { error = "unknown command: " .. line } end
  print(bp.json.encode(answer))
end
