--- bp.optim: optimizers and learning-rate schedules.
local core = require "bp.core"
local options = require "bp.options"
local adam = require "bp.optim.adam"

local optim = {
  sgd = require "bp.optim.sgd",
  adam = adam.adam,
  adamw = adam.adamw,
  rmsprop = require "bp.optim.rmsprop",
  schedule = require "bp.optim.schedule",
}

local names = { "adam", "adamw", "rmsprop", "sgd" }

--- The optimizer for what compile is given: a name (with its defaults), or one made without parameters.
---@param who string for messages
---@param what string|table
---@return table optimizer
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
function optim.from_config(config)
  local given = {}
  for key, value in pairs(config.options) do
    given[key] = type(value) == "table" and value.options and optim.schedule[value.name](value.options) or value
  end
  return optim[config.name](given)
end

return optim
