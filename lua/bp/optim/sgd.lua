--- optim.sgd: stochastic gradient descent (Robbins & Monro 1951), with momentum (Polyak 1964) in PyTorch's form:
--- v = momentum * v + (1 - dampening) * g, v = g at the first step; w = w - lr * v, with nesterov w = w - lr * (g + momentum * v).
local core = require "bp.core"
local optimizer = require "bp.optim.optimizer"
local schedule = require "bp.optim.schedule"

return optimizer.define("sgd", "Stochastic gradient descent, with momentum.", 0.01, {
  { "momentum", "number|function", min = 0, below = 1, default = 0,
    help = "share of the last step that is taken again; also a schedule, or a function (step) -> number" },
  { "nesterov", "boolean", default = false, help = "look ahead along the momentum" },
  { "dampening", "number", min = 0, max = 1, default = 0, named = true, help = "share of the gradient kept out of the momentum" },
}, {
  moving = "momentum",
  slots = function(o) return (schedule.is_dynamic(o.momentum) or o.momentum > 0) and { "velocity" } or {} end,
  update = function(w, g, slots, rate, step, o, group)
    local momentum = not group.moved and o.momentum or 0.9 -- stands for what the tensor says
    core.ops.sgd_step(w, g, slots.velocity, rate, step, group.moved,
      { momentum = momentum, dampening = o.dampening, nesterov = o.nesterov, weight_decay = o.weight_decay })
  end,
})
