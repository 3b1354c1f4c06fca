--- nn.dense: y = activation(x w + b), w [in][units], over the last dimension.
local core = require "bp.core"
local activations = require "bp.nn.activations"
local layer = require "bp.nn.layer"
local lora = require "bp.nn.lora"
local options = require "bp.options"

local fields = {
  { "units", "int", min = 1, required = true, help = "number of outputs" },
  { "activation", "string|function", named = true, help = "name or function applied to the result; default none" },
  { "inputs", "int", min = 1, named = true, help = "number of inputs, when the layer is to have its parameters before the first call" },
}
layer.add_weight_fields(fields)

-- Two numbers are inputs and units, as in PyTorch.
local function two_numbers(_, given)
  if options.is_plain(given) and given[1] ~= nil and given[2] ~= nil and given[3] == nil then
    local copy = { inputs = given[1], units = given[2] }
    for key, value in pairs(given) do
      if type(key) == "string" then copy[key] = value end
    end
    return copy
  end
  return given
end

--- Fully connected layer.
---@class nn.dense
local Dense = layer.define("dense", "Fully connected layer: y = activation(x w + b).", fields, two_numbers)

function Dense:setup(o)
  rawset(self, "fused", (activations.split("dense", o.activation)))
  rawset(self, "rest", (select(2, activations.split("dense", o.activation))))
  if o.inputs then self:build_for{ o.inputs } end
end

function Dense:build(shape)
  local o = self.options
  if #shape == 0 then layer.need_dims(self, shape, 2, "[batch][inputs]") end
  local inputs = shape[#shape]
  self.kernel = layer.parameter("dense", o.kernel_init, { inputs, o.units })
  if o.use_bias then self.bias = layer.parameter("dense", o.bias_init, { o.units }, inputs) end
end

-- With the low-rank part of model:lora, which comes before the activation.
local function adapted(self, x)
  local y = core.ops.linear(x, self.kernel, self.bias) + lora.forward(self, x)
  return activations.get("dense", self.options.activation)(y)
end

function Dense:forward(x)
  if rawget(self, "adapter") then return adapted(self, x) end
  local y = core.ops.linear(x, self.kernel, self.bias, { activation = self.fused })
  if self.rest then y = self.rest(y) end
  return y
end

Dense.own_penalty = layer.kernel_penalty

return Dense
