--- Warnings about things that are allowed but hardly meant. They go to stderr; a program can take them over:
---
---     require("bp").warning.handler = function(message) ... end
local warning = {}

--- Receives the text of every warning (default: writes it to stderr when there is an io library).
---@param message string
function warning.handler(message)
  local io = package.loaded.io
  if io then io.stderr:write("bp: warning: ", message, "\n") end
end

--- Gives a warning.
---@param message string a format, with its values
---@private
function warning.give(message, ...)
  warning.handler(message:format(...))
end

return warning
