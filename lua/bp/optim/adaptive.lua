--- The optimizers beyond sgd, adam, adamw and rmsprop. Defaults are PyTorch's; what Keras has otherwise stands in the help.
local core = require "bp.core"
local optimizer = require "bp.optim.optimizer"

local ops = core.ops
local adaptive = {}

local function beta1(default, help)
  return { "beta1", "number", min = 0, below = 1, default = default or 0.9, help = help or "decay of the mean of the gradient" }
end
local function beta2(default, help)
  return { "beta2", "number", min = 0, below = 1, default = default or 0.999, help = help or "decay of the mean of its square" }
end
local function eps(default, help)
  return { "eps", "number", above = 0, default = default, named = true, help = help }
end
local decoupled = { "decoupled", "boolean", default = false, named = true,
  help = "take lr * weight_decay * w off w instead of adding weight_decay * w to the gradient" }
local function own_decay(default)
  return { "weight_decay", "number", min = 0, default = default, named = true, help = "takes lr * weight_decay * w off w" }
end

adaptive.adagrad = optimizer.define("adagrad", "Gradient divided by the root of the sum of all squares so far (Duchi et al. 2011).", 0.01, {
  { "lr_decay", "number", min = 0, default = 0, named = true, help = "the rate of step t is lr / (1 + (t - 1) * lr_decay)" },
  { "initial_accumulator", "number", min = 0, default = 0, named = true, help = "what the sum starts with; Keras: 0.1" },
  eps(1e-10, "keeps the division finite; Keras: 1e-7"),
  { "eps_inside", "boolean", default = false, named = true, help = "add eps under the root, as Keras does" },
}, {
  slots = function() return { { "sum", fill = function(o) return o.initial_accumulator end } } end,
  update = function(w, g, slots, rate, step, o)
    ops.adagrad_step(w, g, slots.sum, rate, step,
      { eps = o.eps, lr_decay = o.lr_decay, weight_decay = o.weight_decay, eps_inside = o.eps_inside })
  end,
})

adaptive.adadelta = optimizer.define("adadelta", "Steps as large as the last ones were (Zeiler 2012).", 1, {
  { "rho", "number", min = 0, below = 1, default = 0.9, help = "decay of the means; Keras: 0.95" },
  eps(1e-6, "keeps the roots away from 0; Keras: 1e-7"),
}, {
  slots = function() return { "v", "delta" } end,
  update = function(w, g, slots, rate, _, o)
    ops.adadelta_step(w, g, slots.v, slots.delta, rate, { rho = o.rho, eps = o.eps, weight_decay = o.weight_decay })
  end,
})

adaptive.nadam = optimizer.define("nadam", "Adam that looks ahead along its momentum (Dozat 2016).", 2e-3, {
  beta1(), beta2(), eps(1e-8, "added to the root; Keras: 1e-7"),
  { "momentum_decay", "number", min = 0, default = 4e-3, named = true, help = "how fast the momentum grows to beta1; Keras: 1" },
  decoupled,
}, {
  slots = function() return { "m", "v" } end,
  scalars = { product = 1 },
  advance = function(scalars, rate, step, o)
    ops.nadam_product(scalars.product, rate, step, { beta1 = o.beta1, momentum_decay = o.momentum_decay })
  end,
  update = function(w, g, slots, rate, step, o, group)
    ops.nadam_step(w, g, slots.m, slots.v, rate, step, group.scalars.product, { beta1 = o.beta1, beta2 = o.beta2, eps = o.eps,
      momentum_decay = o.momentum_decay, weight_decay = o.weight_decay, decoupled = o.decoupled })
  end,
})

adaptive.adamax = optimizer.define("adamax", "Adam with the largest gradient so far as second moment (Kingma & Ba 2015).", 2e-3, {
  beta1(), beta2(nil, "decay of the largest gradient"), eps(1e-8, "keeps the division finite; Keras: 1e-7, added elsewhere"),
}, {
  slots = function() return { "m", "u" } end,
  update = function(w, g, slots, rate, step, o)
    ops.adamax_step(w, g, slots.m, slots.u, rate, step, { beta1 = o.beta1, beta2 = o.beta2, eps = o.eps, weight_decay = o.weight_decay })
  end,
})

adaptive.radam = optimizer.define("radam", "Adam that waits until its second moment is known well enough (Liu et al. 2020).", 1e-3, {
  beta1(), beta2(), eps(1e-8, "added to the root"), decoupled,
}, {
  slots = function() return { "m", "v" } end,
  update = function(w, g, slots, rate, step, o)
    ops.radam_step(w, g, slots.m, slots.v, rate, step,
      { beta1 = o.beta1, beta2 = o.beta2, eps = o.eps, weight_decay = o.weight_decay, decoupled = o.decoupled })
  end,
})

adaptive.rprop = optimizer.define("rprop", "Only the signs of the gradient count (Riedmiller & Braun 1993); for whole data sets.",
  0.01, {
    { "shrink", "number", above = 0, below = 1, default = 0.5, named = true, help = "factor of a step size where the sign turned" },
    { "grow", "number", min = 1, default = 1.2, named = true, help = "factor where it did not" },
    { "least", "number", min = 0, default = 1e-6, named = true, help = "smallest step size" },
    { "most", "number", above = 0, default = 50, named = true, help = "largest step size" },
  }, {
    -- The first rate is what step sizes start with.
    slots = function() return { "previous", { "size", fill = function(o) return type(o.lr) == "number" and o.lr or o.lr(1) end } } end,
    update = function(w, g, slots, rate, _, o)
      ops.rprop_step(w, g, slots.previous, slots.size, rate,
        { shrink = o.shrink, grow = o.grow, least = o.least, most = o.most, weight_decay = o.weight_decay })
    end,
  })

adaptive.lion = optimizer.define("lion", "The sign of a mean of gradients (Chen et al. 2023); wants a tenth of Adam's rate.", 1e-4, {
  beta1(0.9, "share of the mean in the step"), beta2(0.99, "decay of the mean"), own_decay(0),
}, {
  slots = function() return { "m" } end,
  update = function(w, g, slots, rate, _, o)
    ops.lion_step(w, g, slots.m, rate, { beta1 = o.beta1, beta2 = o.beta2, weight_decay = o.weight_decay })
  end,
})

return adaptive
