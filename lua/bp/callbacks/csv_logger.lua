--- callbacks.csv_logger: a CSV file with a line per epoch, rewritten whole after each, so that it is complete whenever the program ends.
local core = require "bp.core"
local options = require "bp.options"

local spec = options.define("csv_logger", "Writes what is logged into a CSV file, epoch by epoch.", {
  { "path", "string", required = true, help = "the file; an old one is replaced" },
})

local Logger = { __name = "csv_logger" }
Logger.__index = Logger

function Logger:write(run)
  local ok, message = core.write_file(self.options.path, run.history:to_csv())
  if not ok then core.error("csv_logger: " .. message) end
end

function Logger:on_epoch_end(_, _, run) self:write(run) end
function Logger:on_train_end(run) self:write(run) end

--- Writes what is logged into a CSV file.
---@param given string|table the path, or { path = }
---@return table callback
return function(given, ...)
  return setmetatable({ options = spec:read(given, ...) }, Logger)
end
