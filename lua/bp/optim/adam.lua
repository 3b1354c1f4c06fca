--- optim.adam (Kingma & Ba 2015) and optim.adamw (Loshchilov & Hutter 2019), in PyTorch's form: eps is added to the root of the corrected
--- second moment. adamw takes lr * weight_decay * w off w instead of adding to the gradient.
local core = require "bp.core"
local optimizer = require "bp.optim.optimizer"

local function fields(decay)
  local list = {
    { "beta1", "number|function", min = 0, below = 1, default = 0.9,
      help = "decay of the mean of the gradient; also a schedule, or a function (step) -> number" },
    { "beta2", "number", min = 0, below = 1, default = 0.999, help = "decay of the mean of its square" },
    { "eps", "number", above = 0, default = 1e-8, named = true, help = "added to the root; Keras' default is 1e-7" },
    { "amsgrad", "boolean", default = false, named = true, help = "use the largest second moment so far (Reddi et al. 2018)" },
  }
  if decay then
    list[#list + 1] = { "weight_decay", "number", min = 0, default = decay,
      named = true, help = "takes lr * weight_decay * w off w; Keras' default is 0.004" }
  end
  return list
end

local function methods(decoupled)
  return {
    slots = function(o) return o.amsgrad and { "m", "v", "vmax" } or { "m", "v" } end,
    moving = "beta1",
    update = function(w, g, slots, rate, step, o, group)
      core.ops.adam_step(w, g, slots.m, slots.v, slots.vmax, rate, step, group.moved,
        { beta1 = not group.moved and o.beta1 or nil, beta2 = o.beta2, eps = o.eps, weight_decay = o.weight_decay, decoupled = decoupled })
    end,
  }
end

return {
  adam = optimizer.define("adam", "Adaptive moments.", 1e-3, fields(), methods(false)),
  adamw = optimizer.define("adamw", "Adaptive moments with decoupled weight decay.", 1e-3, fields(0.01), methods(true)),
}
