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

local axis = { { "axis", "int", default = -1, help = "the dimension that sums to one" } }
define("softmax", "exp(x) / sum(exp(x)) along a dimension.", axis, function(o) return { axis = o.axis } end)
define("log_softmax", "Logarithm of softmax, computed stably.", axis, function(o) return { axis = o.axis } end)

return layers
