--- The nets of tests/bench/workloads.lua in bplua, and the functions that do steps with them. Used by peers/bplua_peer.lua.
local bp = require "bp"
local core = require "bp.core"
local data = require "data"
local nn, optim = bp.nn, bp.optim

-- ---- nets ----------------------------------------------------------------------------------------------------------------------------

local build = {}

function build.mlp_tiny() return nn.sequential{ nn.dense{ 32, activation = "relu" }, nn.dense(1) } end

function build.mlp_784()
  return nn.sequential{ nn.dense{ 512, activation = "relu" }, nn.dropout(0.2), nn.dense{ 512, activation = "relu" }, nn.dropout(0.2),
    nn.dense(10) }
end

function build.cnn_mnist()
  return nn.sequential{ nn.conv2d{ 32, 3, activation = "relu" }, nn.conv2d{ 64, 3, activation = "relu" }, nn.max_pool2d(2),
    nn.dropout(0.25), nn.flatten(), nn.dense{ 128, activation = "relu" }, nn.dropout(0.5), nn.dense(10) }
end

function build.lenet5()
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

function build.resnet20()
  local layers = { conv3(16, 1), nn.batch_norm(), nn.activation "relu" }
  for stage, filters in ipairs{ 16, 32, 64 } do
    for index = 1, 3 do layers[#layers + 1] = Block(filters, stage > 1 and index == 1 and 2 or 1) end
  end
  for _, l in ipairs{ nn.global_avg_pool2d(), nn.dense(10) } do layers[#layers + 1] = l end
  return nn.sequential(layers)
end

function build.lstm_text() return nn.sequential{ nn.embedding{ 20000, 128 }, nn.lstm(128), nn.dense(1) } end

function build.gru_sequence() return nn.sequential{ nn.gru(64), nn.dense(1) } end

function build.batch_norm()
  return nn.sequential{ conv3(32, 1), nn.batch_norm(), nn.activation "relu", conv3(32, 1), nn.batch_norm(), nn.activation "relu",
    nn.global_avg_pool2d(), nn.dense(10) }
end

local Bag = nn.module("WordBag", function(self) self.words, self.out = nn.embedding{ 20000, 128 }, nn.dense(1) end)
function Bag:forward(x) return self.out(self.words(x):mean(2)) end
function build.embedding() return Bag() end

local Attention = nn.module("AttentionBlock", function(self)
  self.attention, self.norm, self.out = nn.multi_head_attention(4), nn.layer_norm(), nn.dense(10)
end)
function Attention:forward(x) return self.out(self.norm(x + self.attention(x)):mean(2)) end
function build.attention() return Attention() end

function build.depthwise()
  local function pair()
    return nn.depthwise_conv2d{ 3, padding = "same", activation = "relu" }, nn.conv2d{ 64, 1, activation = "relu" }
  end
  local a, b = pair()
  local c, d = pair()
  return nn.sequential{ a, b, c, d, nn.global_avg_pool2d(), nn.dense(10) }
end

-- ---- steps ---------------------------------------------------------------------------------------------------------------------------
-- A maker takes { eager =, into =, folder =, name =, seed = } and gives run(n) -> last loss, and the captured function for those who want
-- to look. With `into` all results go into one tensor.

local function adam(lr) return function(net) return optim.adam(net:parameters(), { lr = lr }) end end
local function sgd(lr, momentum, decay)
  return function(net) return optim.sgd(net:parameters(), { lr = lr, momentum = momentum, weight_decay = decay }) end
end

local function prepared(o, body)
  if o.eager then return function(...) return bp.scope(body, ...) end end
  return bp.capture(body)
end

local function training(make_net, optimizer, loss_of)
  return function(o)
    bp.seed(o.seed)
    local net, xs, ys = make_net(), data.read(o.folder, o.name)
    net:train()
    bp.no_grad(function() net(xs[1]) end)
    local opt = optimizer(net)
    local step = prepared(o, function(x, y)
      local loss = loss_of(net(x), y)
      opt:zero_grad()
      loss:backward()
      opt:step()
      return loss
    end)
    local at = 0
    return function(n)
      local loss
      for _ = 1, n do
        at = at % #xs + 1
        if loss then loss:free() end
        loss = step(xs[at], ys[at])
      end
      return loss:item()
    end, step
  end
end

local function inference(make_net)
  return function(o)
    bp.seed(o.seed)
    local net, xs = make_net(), (data.read(o.folder, o.name))
    net(xs[1])
    net:eval()
    local step = prepared(o, function(x) return bp.no_grad(function() return net(x) end) end)
    local at, out = 0, o.into and step(xs[1])
    return function(n)
      for _ = 1, n do
        at = at % #xs + 1
        if out then step:into(out, xs[at]) else step(xs[at]):free() end
      end
    end, step
  end
end

-- A whole epoch as a user runs it.
local function epoch(o)
  bp.seed(o.seed)
  local train = assert(bp.data.fashion_mnist())
  local model = nn.sequential{ nn.flatten(), nn.rescaling(1 / 255) }
  for _, l in ipairs(build.mlp_784().layers) do model:add(l) end
  model:compile{ optimizer = optim.adam{ lr = 1e-3 }, loss = "sparse_categorical_crossentropy" }
  return function(n)
    local history = model:fit{ train, epochs = n, batch_size = 128, verbose = 0, capture = not o.eager }
    local losses = history.history and history.history.loss or history.loss
    return losses[#losses]
  end
end

-- Trials: a new net each, ten epochs through fit; the loss of the last epoch is what is searched for.
local function trials(o)
  local xs, ys = data.read(o.folder, o.name)
  local search = bp.search
  return function(n)
    local study = search.study{ verbose = false, sampler = search.random{ seed = o.seed } }
    study:optimize{ trials = n, space = { lr = search.float{ 1e-4, 1e-1, log = true }, l2 = search.float{ 1e-6, 1e-2, log = true } },
      objective = function(params)
        local model = build.mlp_tiny()
        model:compile{ optimizer = optim.adam{ lr = params.lr, weight_decay = params.l2 }, loss = "mse" }
        local history = model:fit{ { xs[1], ys[1] }, epochs = 10, batch_size = 32, verbose = 0, capture = not o.eager }
        local losses = history.history and history.history.loss or history.loss
        return losses[#losses]
      end }
    return study.best.value
  end
end

-- A single layer, forward and every gradient, for the sweep: "conv2d 8 26 26 32 3 64 1 valid".
local layers = {
  dense = function(units) return nn.dense(units) end,
  conv2d = function(taps, filters, stride, padding) return nn.conv2d{ filters, taps, strides = stride, padding = padding } end,
  depthwise = function(taps, stride, padding) return nn.depthwise_conv2d{ taps, strides = stride, padding = padding } end,
  lstm = function(units) return nn.lstm{ units, return_sequences = true } end,
  gru = function(units) return nn.gru{ units, return_sequences = true } end,
  batch_norm = function() return nn.batch_norm() end,
  max_pool2d = function(size) return nn.max_pool2d(size) end,
  softmax = function() return nn.activation "softmax" end,
}
local INPUT_DIMS = { dense = 2, conv2d = 4, depthwise = 4, lstm = 3, gru = 3, batch_norm = 4, max_pool2d = 4, softmax = 2 }

local function layer_alone(words)
  return function(o)
    bp.seed(o.seed)
    local kind, shape = words[1], {}
    for i = 1, INPUT_DIMS[kind] do shape[i] = math.tointeger(tonumber(words[i + 1])) end
    local rest = {}
    for i = INPUT_DIMS[kind] + 2, #words do rest[#rest + 1] = math.tointeger(tonumber(words[i])) or words[i] end
    local x = bp.randn(table.unpack(shape)):requires_grad_(true)
    local net = nn.sequential{ layers[kind](table.unpack(rest)) }
    net:train()
    local grad = bp.no_grad(function() return net(x) end)
    local wanted = { x, table.unpack(net:parameters()) }
    local step = prepared(o, function(g)
      local y = net(x)
      return y, table.unpack(core.gradients(y, wanted, { grad = g })) -- y too: else a plan leaves out what only it needs
    end)
    return function(n)
      for _ = 1, n do
        for _, t in ipairs{ step(grad) } do t:free() end
      end
    end, step
  end
end

local loss = nn.loss
local bce = loss.binary_crossentropy{ from_logits = true }
local nets = { build = build, makers = {
  mlp_tiny = training(build.mlp_tiny, adam(0.01), loss.mse),
  mlp_784 = training(build.mlp_784, adam(0.001), loss.cross_entropy),
  cnn_mnist = training(build.cnn_mnist, adam(0.001), loss.cross_entropy),
  lenet5 = training(build.lenet5, sgd(0.01, 0.9, 0), loss.cross_entropy),
  resnet20 = training(build.resnet20, sgd(0.1, 0.9, 1e-4), loss.cross_entropy),
  lstm_text = training(build.lstm_text, adam(0.003), bce),
  gru_sequence = training(build.gru_sequence, adam(0.001), bce),
  batch_norm = training(build.batch_norm, sgd(0.05), loss.cross_entropy),
  embedding = training(build.embedding, sgd(1), bce),
  attention = training(build.attention, adam(0.001), loss.cross_entropy),
  depthwise = training(build.depthwise, adam(0.01), loss.cross_entropy),
  infer_mlp = inference(build.mlp_tiny),
  infer_cnn = inference(build.cnn_mnist),
  epoch_fashion = epoch,
  trials = trials,
} }

--- What makes a workload, or nil and what is missing here.
---@param name string of workloads.lua, or "sweep:" and a layer
---@param needs table|nil constructors of nn
function nets.maker(name, needs)
  for _, need in ipairs(needs or {}) do
    if not nn[need] then return nil, "nn." .. need .. " is not there" end
  end
  local spec = name:match "^sweep:(.*)"
  if not spec then return nets.makers[name], "no workload called " .. name end
  local words = {}
  for word in spec:gmatch "[^,]+" do words[#words + 1] = word end
  return layer_alone(words)
end

return nets
