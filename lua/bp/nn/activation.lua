--- nn.activation("relu") and a layer for each activation: nn.relu(), nn.leaky_relu{0.2}, nn.softmax(), ...
local core = require "bp.core"
local activations = require "bp.nn.activations"
local layer = require "bp.nn.layer"

local layers = {}

local Activation = layer.define("activation", "An activation by name, or a function of one's own.", {
  { "activation", "string|function", required = true, help = "name or function" },
})
layers.activation = Activation

function Activation:setup(o) rawset(self, "fn", activations.get("activation", o.activation)) end
function Activation:forward(x) return self.fn(x) end

local function define(name, summary, fields, op_options)
  local class = layer.define(name, summary, fields or {})
  local op = core.ops[name]
  function class:setup(o) rawset(self, "op_options", op_options and op_options(o) or {}) end
  function class:forward(x) return op(x, self.op_options) end
  layers[name] = class
end

define("relu", "max(x, 0).")
define("leaky_relu", "x for x > 0, slope * x otherwise.", { { "slope", "number", default = 0.01, help = "slope below zero" } },
  function(o) return { slope = o.slope } end)
define("elu", "x for x > 0, alpha * (exp(x) - 1) otherwise.",
  { { "alpha", "number", default = 1, help = "limit far below zero, negated" } },
  function(o) return { alpha = o.alpha } end)
define("gelu", "x * P(X <= x) for a standard normal X.",
  { { "approximate", "boolean", default = false, named = true, help = "use the tanh formula" } },
    function(o) return { approximate = o.approximate } end)
define("silu", "x * sigmoid(x).")
define("sigmoid", "1 / (1 + exp(-x)).")
define("tanh", "Hyperbolic tangent.")
define("softplus", "log(1 + exp(x)).")

-- Those that have no options are the named functions.
for name, summary in pairs{
  linear = "x.", softsign = "x / (1 + |x|).", mish = "x * tanh(softplus(x)).", exponential = "exp(x).", relu6 = "min(max(x, 0), 6).",
  hard_tanh = "min(max(x, -1), 1).",
  hard_sigmoid = "min(max(x/6 + 1/2, 0), 1), as in PyTorch and Keras 3; Keras 2 had x/5 + 1/2.",
  selu = "1.0507 * elu(x) with alpha 1.6733: keeps mean 0 and variance 1 in nets of dense layers (Klambauer et al., 2017).",
} do
  local class, fn = layer.define(name, summary, {}), activations.get(name, name)
  function class.forward(_, x) return fn(x) end
  layers[name] = class
end

--- x for x > 0, a * x otherwise, with slopes a that are learnt (He et al., 2015).
---@class nn.prelu
local Prelu = layer.define("prelu", "x for x > 0, a * x otherwise, with slopes a that are learnt.", {
  { "share", "choice", choices = { "positions", "all", "none" }, default = "positions",
    help = '"positions": one slope for each channel; "all": a single one; "none": one for each element of a sample, as in Keras' },
  { "alpha_init", "string|number|function", default = 0.25, named = true, help = "initialiser of the slopes; PyTorch's 0.25, Keras has 0" },
})
layers.prelu = Prelu
function Prelu:build(shape)
  local own = { shape[#shape] }
  if self.options.share == "all" then own = { 1 } elseif self.options.share == "none" then own = { table.unpack(shape, 2) } end
  if #shape < 2 then layer.need_dims(self, shape, 2, "[batch]...[channels]") end
  self.alpha = layer.parameter("prelu", self.options.alpha_init, own)
end
function Prelu:forward(x)
  return core.ops.where(core.ops.gt(x, 0), x, x * self.alpha)
end

--- One half of the channels times the sigmoid of the other (Dauphin et al., 2017).
---@class nn.glu
local Glu = layer.define("glu", "One half of a dimension times the sigmoid of the other.", {
  { "axis", "int", default = -1, help = "the dimension that is halved" },
})
layers.glu = Glu
function Glu:forward(x) return activations.glu(x, self.options.axis) end

local axis = { { "axis", "int", default = -1, help = "the dimension that sums to one" } }
define("softmax", "exp(x) / sum(exp(x)) along a dimension.", axis, function(o) return { axis = o.axis } end)
define("log_softmax", "Logarithm of softmax, computed stably.", axis, function(o) return { axis = o.axis } end)

return layers
