--- Watching one number of the logs: what "better" means for it, and the error when it is not there.
---@internal
local core = require "bp.core"
local logs = require "bp.logs"
local options = require "bp.options"

local monitor = {}

--- Fields of callbacks that watch a number.
---@return table[] fields
function monitor.fields()
  return {
    { "monitor", "string", default = "val_loss", help = "the number watched, by its name in the logs" },
    { "mode", "choice", choices = { "auto", "min", "max" }, default = "auto", named = true,
      help = '"min": lower is better; "auto": higher is better for accuracies and r2, lower for the rest' },
  }
end

--- +1 when higher values of that name are better, else -1.
---@param name string
---@param mode string
---@return integer sign
function monitor.sign(name, mode)
  if mode ~= "auto" then return mode == "max" and 1 or -1 end
  local lower = name:lower()
  return (lower:find("acc", 1, true) or lower:find("auc", 1, true) or lower:find("r2", 1, true)) and 1 or -1
end

--- Whether a number is not to be expected in this epoch, because there was no validation after it.
---@param run table
---@param values table logs
---@param name string
---@return boolean
function monitor.skipped(run, values, name)
  return name:find("^val_") ~= nil and values[name] == nil and run.epoch % run.options.validation_freq ~= 0
end

--- The value watched; raises when the logs lack it.
---@param who string the callback
---@param values table logs
---@param name string
---@return number value
function monitor.value(who, values, name)
  local value = values[name]
  if type(value) == "number" then return value end
  local keys = logs.keys(values)
  local why = name:find("^val_") and values["val_loss"] == nil and "; fit has no validation: give it validation or validation_split"
    or options.hint(name, keys)
  core.error(("%s: the logs have no '%s'%s"):format(who, name, why))
end

return monitor
