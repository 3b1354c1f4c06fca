--- Keras' hello world, trained by fit from the same weights on the same batches: the losses of the epochs and the weights at the end.
local bp = require "bp"
local vectors = require "support.vectors"
local nn, optim = bp.nn, bp.optim

local function train(data, dtype, capture)
  local o = data.options
  local function given(tensor) return function() return tensor:to(dtype) end end
  local model = nn.sequential{
    nn.dense{ 32, activation = "relu", kernel_init = given(data.w1), bias_init = given(data.b1) },
    nn.dense{ 1, kernel_init = given(data.w2), bias_init = given(data.b2) },
  }
  model:compile{ optimizer = optim.adam{ o.lr, beta1 = o.beta1, beta2 = o.beta2, eps = o.eps }, loss = "mse" }
  local history = model:fit{ data.x:to(dtype), data.y:to(dtype), batch_size = o.batch_size, epochs = o.epochs, shuffle = o.shuffle,
    verbose = 0, capture = capture }
  return model, history
end

-- rtol for the losses and for the weights.
local function compare(case, model, history, loss_rtol, rtol)
  vectors.near(case.loss, history.loss, "loss", loss_rtol)
  for i = 1, 2 do
    vectors.near(case["w" .. i], model:layer(i).kernel, "w" .. i, rtol, 0.5)
    vectors.near(case["b" .. i], model:layer(i).bias, "b" .. i, rtol, 0.5)
  end
end

-- Dtype, tolerance of the losses, tolerance of the weights. PyTorch's adam is ours to the last digits. Keras puts eps elsewhere, which
-- shows in the first steps and, 100 steps later, in the third digit of the loss: the same training, other roundings.
local expected = {
  pytorch_f64 = { { "f64", 1e-9, 1e-9 }, { "f32", 1e-4, 1e-3 } },
  keras_f64 = { { "f64", 3e-3, 0.05 } },
  keras_f32 = { { "f32", 3e-3, 0.05 } },
}

local function keras_hello(case, cases)
  for _, row in ipairs(expected[case.name]) do
    for _, capture in ipairs{ true, false } do
      local model, history = train(cases.data, row[1], capture)
      compare(case, model, history, row[2], row[3])
    end
  end
end

describe("Keras' hello world trains as it does there:", function()
  vectors.compare("keras_hello", { keras_hello = keras_hello }, {}, { "data" })
end)
