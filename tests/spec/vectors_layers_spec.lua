--- Layers against PyTorch and Keras: outputs and all gradients, in f64 to 1e-9, and in f32 to what f32 can hold.
local bp = require "bp"
local vectors = require "support.vectors"
local near, leaf, list = vectors.near, vectors.leaf, vectors.list
local nn = bp.nn

-- Runs a layer forward and backward. make(dtype) gives the layer, its parameters by stored name, and a last check.
local function check(case, make)
  for dtype, rtol in pairs{ f64 = 1e-9, f32 = 3e-4 } do
    local layer, params, last = make(dtype)
    local x = leaf(case.x, dtype)
    local y = layer(x)
    near(case.y, y, dtype .. " y", rtol)
    y:backward{ grad = case.dy:to(dtype) }
    near(case.dx, x.grad, dtype .. " dx", rtol)
    for name, param in pairs(params or {}) do near(case["d" .. name], layer[param].grad, ("%s d%s"):format(dtype, name), rtol) end
    if last then last(layer, rtol) end
  end
end

local function given(tensor, dtype)
  return tensor and function() return tensor:to(dtype) end
end

local function pool(name)
  return function(case)
    local o = case.options
    check(case, function()
      return nn[name]{ size = list(o.size), strides = list(o.strides), padding = o.padding }
    end)
  end
end

local function global_pool(name)
  return function(case) check(case, function() return nn[name]() end) end
end

local tests = {
  max_pool2d = pool "max_pool2d",
  avg_pool2d = pool "avg_pool2d",
  global_max_pool2d = global_pool "global_max_pool2d",
  global_avg_pool2d = global_pool "global_avg_pool2d",
}

function tests.dense(case)
  check(case, function(dtype)
    local layer = nn.dense{ units = case.w:shape(2), use_bias = case.options.bias, kernel_init = given(case.w, dtype),
      bias_init = given(case.b, dtype) }
    return layer, { w = "kernel", b = case.options.bias and "bias" or nil }
  end)
end

function tests.conv2d(case)
  local o = case.options
  check(case, function(dtype)
    local layer = nn.conv2d{ filters = o.filters, kernel_size = list(o.kernel), strides = list(o.strides), padding = o.padding,
      dilation = list(o.dilation), use_bias = o.bias, kernel_init = given(case.w, dtype), bias_init = given(case.b, dtype) }
    return layer, { w = "kernel", b = o.bias and "bias" or nil }
  end)
end

function tests.batch_norm(case)
  local o = case.options
  if o.training then case:leave("new_var_biased", "Keras' running variance; ours is the unbiased one of PyTorch") end
  check(case, function(dtype)
    local layer = nn.batch_norm{ decay = o.decay, eps = o.eps, inputs = case.gamma:shape(1) }
    layer.gamma, layer.beta = nn.parameter(case.gamma:to(dtype)), nn.parameter(case.beta:to(dtype))
    layer:buffer("running_mean", case.running_mean:to(dtype):clone())
    layer:buffer("running_var", case.running_var:to(dtype):clone())
    layer:train(o.training)
    return layer, { gamma = "gamma", beta = "beta" }, function(after, rtol)
      near(o.training and case.new_mean or case.running_mean, after.running_mean, dtype .. " running_mean", rtol)
      near(o.training and case.new_var_unbiased or case.running_var, after.running_var, dtype .. " running_var", rtol)
    end
  end)
end

local counts_padding = "our mean is over the pixels inside the image, as Keras' is"

describe("layers agree with PyTorch and Keras:", function()
  vectors.compare("layers", tests, {
    avg_pool2d_2_same_odd_count_padding = counts_padding,
    avg_pool2d_3_same_strides1_count_padding = counts_padding,
    avg_pool2d_3_same_strides2_even_count_padding = counts_padding,
    avg_pool2d_3_same_strides2_odd_count_padding = counts_padding,
  })
end)
