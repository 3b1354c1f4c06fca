--- callbacks.csv_logger: a CSV file with a line per epoch, rewritten whole after each, so that it is complete whenever the program ends. A
--- training that is resumed has every line once.
local core = require "bp.core"
local leftovers = require "bp.leftovers"
local options = require "bp.options"

local spec = options.define("csv_logger", "Writes what is logged into a CSV file, epoch by epoch.", {
  { "path", "string", required = true, help = "the file" },
  { "append", "boolean", default = false, named = true, help = "keep what is in the file and go on below it; default: replace it" },
})

local Logger = { __name = "csv_logger", kept = { "before" } }
Logger.__index = Logger

-- Lines below an earlier table lose their heading when it is the same.
local function below(before, text)
  if before == "" then return text end
  local head, rest = text:match "^([^\n]*\n)(.*)$"
  if before:find("\n" .. head, 1, true) or before:sub(1, #head) == head then return before .. rest end
  return before .. text
end

function Logger:write(run)
  local ok, message = core.write_file(self.options.path, below(self.before, run.history:to_csv()))
  if not ok then core.error("csv_logger: " .. message) end
end

function Logger:on_train_begin()
  local path = self.options.path
  leftovers.remove(path:match "^(.*)/" or ".", { path:match "[^/]*$" })
  self.before = self.options.append and core.read_file(path) or ""
end

function Logger:on_epoch_end(_, _, run) self:write(run) end
function Logger:on_train_end(run) self:write(run) end

--- Writes what is logged into a CSV file.
---@param given string|table the path, or { path, append = false }
---@return table callback
return function(given, ...)
  return setmetatable({ options = spec:read(given, ...) }, Logger)
end
