--- nn.batch_norm (Ioffe & Szegedy 2015) over the last dimension. Training uses the mean and variance of the batch and keeps running ones:
--- running = decay * running + (1 - decay) * batch; inference uses the running ones. The variance kept is the unbiased one, as in PyTorch.
local core = require "bp.core"
local layer = require "bp.nn.layer"

--- Batch normalisation over the last dimension.
---@class nn.batch_norm
local BatchNorm = layer.define("batch_norm", "Normalises each channel over the batch.", {
  { "decay", "number", min = 0, max = 1, default = 0.9,
    named = true, help = "weight of the old running statistics: Keras' momentum, 1 - PyTorch's" },
  { "eps", "number", above = 0, default = 1e-5, named = true, help = "added to the variance" },
  { "scale", "boolean", default = true, named = true, help = "learn a factor (gamma)" },
  { "center", "boolean", default = true, named = true, help = "learn a shift (beta)" },
  { "inputs", "int", min = 1, named = true, help = "number of channels, when the layer is to have its parameters before the first call" },
}, function(spec, given)
  if type(given) == "table" and given.momentum ~= nil then
    spec:fail("unknown option 'momentum': Keras means the weight of the old statistics by it, PyTorch that of the new; here it is decay, "
      .. "the weight of the old ones (default 0.9)")
  end
  return given
end)

function BatchNorm:setup(o)
  if o.inputs then self:build_for{ o.inputs } end
end

function BatchNorm:build(shape)
  if #shape < 2 then layer.need_dims(self, shape, 2, "[batch]...[channels]") end
  local o, channels = self.options, { shape[#shape] }
  if o.scale then self.gamma = layer.parameter("batch_norm", "ones", channels) end
  if o.center then self.beta = layer.parameter("batch_norm", "zeros", channels) end
  self:buffer("running_mean", core.ops.full{ shape = channels, value = 0 })
  self:buffer("running_var", core.ops.full{ shape = channels, value = 1 })
end

function BatchNorm:forward(x)
  local o = self.options
  if self.training then
    return (core.ops.batch_norm(x, self.gamma, self.beta, self.running_mean, self.running_var, { decay = o.decay, eps = o.eps }))
  end
  return core.ops.batch_norm_inference(x, self.gamma, self.beta, self.running_mean, self.running_var, { eps = o.eps })
end

return BatchNorm
