--- The data of the bench: the same numbers for every program, as safetensors files that Python reads with peers/workloads.py. Training goes
--- round in POOL batches. Labels in the files count from 0. Images are NHWC.
local bp = require "bp"

local POOL = 24
local data = {}

-- The real images where they are installed: a share of their pixels is always zero, and made-up noise is not.
local function fashion(count)
  local train = bp.data.fashion_mnist()
  if not train then
    local y = bp.randint(1, 10, { count })
    return (bp.ops.take(bp.rand(10, 28, 28, 1), y) + bp.randn(count, 28, 28, 1) * 0.3):clamp(0, 1), y - 1
  end
  local part = train:subset(bp.arange(count))
  return part.x:to "f32" / 255, part.y:to "i64" - 1
end

-- Ten patterns under noise.
local function patterns(count, ...)
  local y = bp.randint(1, 10, { count })
  return bp.ops.take(bp.rand(10, ...), y) + bp.randn(count, ...) * 0.3, y - 1
end

local function smooth(count)
  local x = bp.rand(count, 10) * 2 - 1
  local first, second, third = x[{ {}, { 1, 1 } }], x[{ {}, { 2, 2 } }], x[{ {}, { 3, 3 } }]
  return x, (first * 2):sin() + second * third
end

-- Words of 20,000, from 0; more of them are odd where the answer is yes.
local function words(count)
  local y = bp.randint(0, 1, { count, 1 }):to "f32"
  local odd = bp.rand(count, 80):lt(y * 0.3 + 0.5)
  return bp.randint(0, 9999, { count, 80 }) * 2 + odd:to "i64", y
end

-- The sign of a slow drift.
local function drift(count)
  local y = bp.randint(0, 1, { count, 1 }):to "f32"
  return bp.randn(count, 40, 64) + (y * 0.2 - 0.1):reshape(count, 1, 1), y
end

local makers = {
  mlp_tiny = { 32, smooth },
  mlp_784 = { 128, function(count)
    local x, y = fashion(count)
    return x:reshape(count, 784), y
  end },
  cnn_mnist = { 128, fashion },
  lenet5 = { 32, fashion },
  resnet20 = { 128, function(count) return patterns(count, 32, 32, 3) end },
  lstm_text = { 32, words },
  embedding = { 32, words },
  gru_sequence = { 32, drift },
  batch_norm = { 32, function(count) return patterns(count, 16, 16, 16) end },
  attention = { 16, function(count) return patterns(count, 64, 128) end },
  depthwise = { 32, function(count) return patterns(count, 28, 28, 32) end },
  infer_mlp = { 1, smooth },
  infer_cnn = { 1, fashion },
  trials = { 1000, smooth },
}

--- Writes the files of these workloads into a folder. The whole Fashion-MNIST is not copied: a program reads the files of the package.
function data.write(folder, names)
  for _, name in ipairs(names) do
    local maker = makers[name]
    if maker then
      bp.seed(7)
      local x, y = maker[2]((name == "trials" and 1 or POOL) * maker[1])
      assert(bp.save_tensors(("%s/%s.safetensors"):format(folder, name), { x = x:contiguous(), y = y:contiguous() }))
    end
  end
end

--- The batches of a workload, for bplua: labels and words count from 1.
---@return table xs, table ys
function data.read(folder, name)
  local file = assert(bp.load_tensors(("%s/%s.safetensors"):format(folder, name)))
  local x, y = file.x, file.y
  if x.dtype == "i64" then x = x + 1 end
  if y.dtype == "i64" then y = y + 1 end
  if name == "trials" then return { x }, { y } end
  local batch, xs, ys = x:size(1) // POOL, {}, {}
  for i = 1, POOL do
    local rows = { (i - 1) * batch + 1, i * batch }
    xs[i], ys[i] = x[{ rows }]:clone(), y[{ rows }]:clone()
  end
  return xs, ys
end

return data
