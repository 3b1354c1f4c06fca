--- bp.optim: optimizers and learning-rate schedules.
local core = require "bp.core"
local options = require "bp.options"
local adam = require "bp.optim.adam"
local optimizer = require "bp.optim.optimizer"

local ops = core.ops
local define_spec = options.define("optim.define", "What an optimizer written in Lua consists of.", {
  { "update", "function", required = true, named = true, help = "function (w, g, slots, rate, step, o): changes w and the slots in place" },
  { "slots", "table|function", default = {}, named = true,
    help = "names of the vectors it keeps beside the parameters, or a function (o) -> names" },
  { "lr", "number", min = 0, default = 1e-3, named = true, help = "default learning rate" },
  { "options", "table", default = {}, named = true, help = "its own options: { { name, kind, default =, help = }, ... }" },
  { "summary", "string", default = "Defined by the program.", named = true, help = "a line for bp.help" },
})

local optim = {
  sgd = require "bp.optim.sgd",
  adam = adam.adam,
  adamw = adam.adamw,
  rmsprop = require "bp.optim.rmsprop",
  lbfgs = require "bp.optim.lbfgs",
  schedule = require "bp.optim.schedule",
}

for name, constructor in pairs(require "bp.optim.adaptive") do optim[name] = constructor end

local names, written = {}, {}
for name, value in pairs(optim) do
  if type(value) == "function" then names[#names + 1] = name end
end
table.sort(names)

--- An optimizer written in Lua. It is as good as a built-in one: steps are captured, parameters come in groups, clipping, accumulate, ema
--- and weight_decay are seen to, its state is saved and taken up again, compile and saved models know it by its name.
---
---     optim.define("signum", { lr = 1e-3, options = { { "beta", "number", min = 0, below = 1, default = 0.9, help = "decay" } },
---       slots = { "m" },
---       update = function(w, g, s, rate, step, o)
---         s.m:mul_(o.beta):add_(g * (1 - o.beta))
---         w:sub_(s.m:sign() * rate)
---       end })
---
--- update is given all parameters that train in one vector w, their gradient g and the slots (zeros at first) alike, and changes w and the
--- slots in place; rate and step (from 1) are tensors f64 of one number, so that a captured step sees new ones. Arithmetic of such numbers
--- stays exact in f64; to(w.dtype) what of it is multiplied with vectors, where speed matters.
---@param name string
---@param given table { update = function, slots = {} or function (o) -> names, lr = 1e-3, options = {}, summary = "..." }
---@return function constructor also optim[name]
function optim.define(name, given)
  if type(name) ~= "string" or not name:match "^[%a_][%w_]*$" then
    core.error("optim.define: the name is " .. options.describe(name) .. "; expected a word such as \"my_sgd\"")
  end
  if rawget(optim, name) ~= nil and not written[name] then
    core.error(("optim.define: '%s' is a name of bp.optim; choose another"):format(name))
  end
  local o = define_spec:read(given)
  local slots = o.slots
  if type(slots) == "table" then
    local list = slots
    slots = function() return list end
  end
  local constructor = optimizer.define(name, o.summary, o.lr, o.options, { slots = slots, written = true,
    update = function(w, g, cut, rate, step, own)
      if own.weight_decay > 0 and not own.decay_is_own then g = g + w * own.weight_decay end
      o.update(w, g, cut, rate, ops.cast(step, { dtype = "f64" }), own)
    end })
  if not written[name] then names[#names + 1] = name end
  table.sort(names)
  optim[name], written[name] = constructor, true
  return constructor
end

--- The optimizer for what compile is given: a name (with its defaults), or one made without parameters.
---@param who string for messages
---@param what string|table
---@return table optimizer
---@private
function optim.get(who, what)
  if type(what) == "string" then
    for _, name in ipairs(names) do
      if name == what then return optim[name]() end
    end
    core.error(("%s: unknown optimizer '%s'%s"):format(who, what, options.hint(what, names)))
  end
  local meta = getmetatable(what)
  if type(meta) ~= "table" or type(meta.__name) ~= "string" or not meta.__name:find("^optimizer ") then
    core.error(("%s: the optimizer is %s; expected optim.adam{ lr = 1e-3 } or a name"):format(who, options.describe(what)))
  end
  return what
end

--- The optimizer that config() described.
---@param config table { name, options }
---@return table optimizer
---@private
function optim.from_config(config)
  local given = {}
  for key, value in pairs(config.options) do
    given[key] = type(value) == "table" and value.options and optim.schedule.from_config(value) or value
  end
  return optim[config.name](given)
end

require("bp.names").strict("optim.schedule", optim.schedule)

return optim
