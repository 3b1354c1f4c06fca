--- optim.rmsprop (Hinton 2012): w = w - lr * g / (sqrt(v) + eps), v the decayed mean of g^2. Keras puts eps under the root: eps_inside =
--- true.
local core = require "bp.core"
local optimizer = require "bp.optim.optimizer"

return optimizer.define("rmsprop", "Gradient divided by the root of its mean square.", 1e-3, {
  { "rho", "number", min = 0, below = 1, default = 0.9, help = "decay of the mean of the square" },
  { "momentum", "number", min = 0, below = 1, default = 0, help = "share of the last step that is taken again" },
  { "eps", "number", above = 0, default = 1e-7, named = true, help = "keeps the division finite" },
  { "centered", "boolean", default = false, named = true, help = "take the mean of the gradient off, so that v is its variance" },
  { "eps_inside", "boolean", default = false, named = true, help = "add eps under the root, as Keras does" },
}, {
  slots = function(o)
    local names = { "v" }
    if o.momentum > 0 then names[#names + 1] = "momentum" end
    if o.centered then names[#names + 1] = "mean" end
    return names
  end,
  update = function(w, g, slots, rate, _, o)
    core.ops.rmsprop_step(w, g, slots.v, slots.momentum, slots.mean, rate,
      { rho = o.rho, eps = o.eps, momentum = o.momentum, weight_decay = o.weight_decay, eps_inside = o.eps_inside })
  end,
})
