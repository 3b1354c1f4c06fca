--- What `make bench` computes: names, sizes and the arithmetic of every workload. peers/workloads.py has the same nets in words for Python;
--- the data of both come from tests/bench/data.lua.
---
--- Counting. A multiply-add is two operations. A layer of m multiply-adds a sample costs 2m forward, 2m for the gradient of its weights
--- and 2m for that of its input; the first layer needs no gradient of its input. Only sums of products count: activations, normalisations
--- and optimizers are no part of the F below. A convolution counts what its definition needs inside the image, as if computed directly:
--- with Winograd's fewer multiplications a share above 100 % is possible.
---
--- The limit of a step is F/P + Q/B. P: multiply-add rate of all cores, measured in the same run. Q: bytes that the optimizer has to
--- move, which can overlap with no product: Adam reads weight, gradient and two moments and writes three (28 bytes a parameter), SGD with
--- momentum 20, plain SGD 12. B: bandwidth of the memory that holds them, the caches or the main memory, measured in the same run.
local MOVED = { adam = 28, momentum = 20, sgd = 12 }
local HELD = { adam = 16, momentum = 12, sgd = 8 }

-- ---- layers: { multiply-adds of a sample, parameters, first } --------------------------------------------------------------------------

-- How many (output, tap) pairs of one axis lie inside an image.
local function pairs_inside(size, taps, stride, before, out)
  local n = 0
  for i = 0, out - 1 do
    for a = 0, taps - 1 do
      local at = i * stride - before + a
      if at >= 0 and at < size then n = n + 1 end
    end
  end
  return n
end

local layer = {}

function layer.dense(inputs, units, first) return { inputs * units, inputs * units + units, first } end

--- padding "same" puts the smaller half before, as Keras does; bias unless has_bias is false.
function layer.conv(side, channels, filters, taps, o)
  o = o or {}
  local stride = o.stride or 1
  local out = o.same and -(-side // stride) or (side - taps) // stride + 1
  local before = o.same and math.max(0, (out - 1) * stride + taps - side) // 2 or 0
  local inside = pairs_inside(side, taps, stride, before, out)
  local each = o.depthwise and channels or channels * filters
  return { inside * inside * each, taps * taps * each + (o.no_bias and 0 or filters), o.first }
end

--- gates: 4 for LSTM, 3 for GRU, which has a second bias inside its reset gate.
function layer.recurrent(gates, steps, inputs, units, first)
  return { steps * gates * units * (inputs + units), gates * units * (inputs + units + (gates == 3 and 2 or 1)), first }
end

function layer.parameters(n) return { 0, n } end

--- Self-attention: four projections and the two products with the keys and the values.
function layer.attention(steps, width) return { steps * width * width * 4 + 2 * steps * steps * width, 4 * (width * width + width) } end

local function cnn()
  return { layer.conv(28, 1, 32, 3, { first = true }), layer.conv(26, 32, 64, 3), layer.dense(9216, 128), layer.dense(128, 10) }
end

local function tiny() return { layer.dense(10, 32, true), layer.dense(32, 1) } end

local function mlp() return { layer.dense(784, 512, true), layer.dense(512, 512), layer.dense(512, 10) } end

local function resnet20()
  local layers = { layer.conv(32, 3, 16, 3, { same = true, no_bias = true, first = true }), layer.parameters(32) }
  local side, before = 32, 16
  for stage, filters in ipairs{ 16, 32, 64 } do
    for index = 1, 3 do
      local stride = stage > 1 and index == 1 and 2 or 1
      layers[#layers + 1] = layer.conv(side, before, filters, 3, { same = true, no_bias = true, stride = stride })
      side, before = side // stride, filters
      layers[#layers + 1] = layer.conv(side, filters, filters, 3, { same = true, no_bias = true })
      layers[#layers + 1] = layer.parameters(4 * filters)
    end
  end
  layers[#layers + 1] = layer.dense(64, 10)
  return layers
end

-- ---- the list ------------------------------------------------------------------------------------------------------------------------
-- learn: { steps, seeds } of the check that both sides learn alike. small: peers are also compiled for one thread.

local list = {
  { name = "mlp_tiny", title = "dense 10-32-1, batch 32, Adam", batch = 32, optimizer = "adam", layers = tiny(), learn = { 480, 5 },
    small = true, bound = "calls: 0.3 us of arithmetic" },
  { name = "mlp_784", title = "dense 784-512-512-10, batch 128, dropout, Adam", batch = 128, optimizer = "adam", layers = mlp(),
    learn = { 96, 3 }, bound = "products; Adam's traffic is a tenth" },
  { name = "cnn_mnist", title = "conv 3x3x32, 3x3x64, pool, dense 128, batch 128, dropout, Adam", batch = 128, optimizer = "adam",
    layers = cnn(), learn = { 24, 3 }, bound = "the second convolution: 89 % of the arithmetic" },
  { name = "lenet5", title = "LeNet-5, batch 32, SGD with momentum", batch = 32, optimizer = "momentum", learn = { 120, 3 }, small = true,
    layers = { layer.conv(28, 1, 6, 5, { same = true, first = true }), layer.conv(14, 6, 16, 5), layer.dense(400, 120),
      layer.dense(120, 84), layer.dense(84, 10) }, bound = "convolutions with few channels" },
  { name = "resnet20", title = "ResNet-20, 32x32x3, batch 128, SGD with momentum", batch = 128, optimizer = "momentum",
    layers = resnet20(), learn = { 24, 3 }, bound = "3x3 convolutions, then the traffic of normalisation" },
  { name = "lstm_text", title = "embedding 20,000x128, LSTM 128 over 80 steps, batch 32, Adam", batch = 32, optimizer = "adam",
    needs = { "embedding", "lstm" }, learn = { 96, 6 },
    layers = { layer.parameters(20000 * 128), layer.recurrent(4, 80, 128, 128), layer.dense(128, 1) },
    bound = "80 dependent products; dense Adam over 2.6 million parameters" },
  { name = "gru_sequence", title = "GRU 64 over 40 steps of 64, batch 32, Adam", batch = 32, optimizer = "adam", needs = { "gru" },
    layers = { layer.recurrent(3, 40, 64, 64, true), layer.dense(64, 1) }, learn = { 48, 3 },
    bound = "40 dependent products" },
  { name = "batch_norm", title = "conv 3x3x32, batch norm, relu twice, 16x16x16, batch 32, SGD", batch = 32, optimizer = "sgd",
    layers = { layer.conv(16, 16, 32, 3, { same = true, no_bias = true, first = true }), layer.parameters(64),
      layer.conv(16, 32, 32, 3, { same = true, no_bias = true }), layer.parameters(64), layer.dense(32, 10) },
    learn = { 48, 3 }, bound = "convolutions and passes over their results" },
  { name = "embedding",
    title = "embedding 20,000x128, mean of 80 words, dense 1, batch 32, SGD", batch = 32, optimizer = "sgd",
    needs = { "embedding" }, layers = { layer.dense(128, 1) }, learn = { 2000, 3 }, touched = 32 * 80 * 128 * 4 * 5,
    bound = "rows gathered and scattered" },
  { name = "attention", title = "attention of 4 heads, 64 steps of 128, layer norm, batch 16, Adam", batch = 16, optimizer = "adam",
    needs = { "multi_head_attention", "layer_norm" }, layers = { layer.attention(64, 128), layer.parameters(256), layer.dense(128, 10) },
    learn = { 48, 3 }, bound = "products of 64x128 by 128x128, softmax" },
  { name = "depthwise", title = "depthwise 3x3 and 1x1x64 twice, 28x28x32, batch 32, Adam", batch = 32, optimizer = "adam",
    needs = { "depthwise_conv2d" }, learn = { 48, 3 },
    layers = { layer.conv(28, 32, 32, 3, { same = true, depthwise = true, first = true }), layer.conv(28, 32, 64, 1),
      layer.conv(28, 64, 64, 3, { same = true, depthwise = true }), layer.conv(28, 64, 64, 1), layer.dense(64, 10) },
    bound = "1x1 products, then traffic between layers" },
  { name = "infer_mlp", title = "one sample through dense 10-32-1", batch = 1, layers = tiny(), small = true, forward = true,
    bound = "calls" },
  { name = "infer_cnn", title = "one sample through the convolutional net", batch = 1, layers = cnn(), small = true, forward = true,
    bound = "one convolution over two cores; 4.7 MB of weights from the caches" },
  { name = "epoch_fashion", title = "an epoch of Fashion-MNIST through fit, shuffled, the 784 net", batch = 60000, optimizer = "adam",
    layers = mlp(), updates = 469, seconds = 0.1, bound = "as the 784 net; gathering and scaling of bytes" },
  { name = "trials", title = "trials of 10-32-1 over rate and decay, 1,000 samples, 10 epochs", batch = 1, unit = "trials/s",
    layers = tiny(), optimizer = "adam", samples = 10000, updates = 320, bound = "calls, on one core" },
}

-- ---- arithmetic ----------------------------------------------------------------------------------------------------------------------

local by_name = {}
for _, w in ipairs(list) do
  local operations, parameters = 0, 0
  for _, l in ipairs(w.layers) do
    operations = operations + 2 * l[1] * (w.forward and 1 or l[3] and 2 or 3)
    parameters = parameters + l[2]
  end
  w.flops = operations * (w.samples or 1) * w.batch -- of a step, which for the epoch and for a trial is many updates
  w.parameters = parameters
  w.moved = w.touched or (w.optimizer and MOVED[w.optimizer] * parameters * (w.updates or 1) or 0)
  w.held = w.optimizer and HELD[w.optimizer] * parameters or 0
  by_name[w.name] = w
end

local workloads = { list = list, by_name = by_name, layer = layer, POOL = 24 }

--- The least time of a step: seconds of arithmetic, seconds of traffic.
---@param w table workload
---@param machine table { p =, cache =, memory = }: GFLOP/s and GB/s
function workloads.limit(w, machine)
  return w.flops / (1e9 * machine.p), w.moved / (1e9 * (w.held < 8e6 and machine.cache or machine.memory))
end

return workloads
