--- What the specs of bp.core share.
local core = require "bp.core"

local support = {}

--- The message that fn(...) raises; fails when it raises none.
function support.failure(fn, ...)
  local ok, message = pcall(fn, ...)
  assert(not ok, "an error was expected")
  assert(type(message) == "string", "the error is no string")
  return message
end

--- Tensors alive in Lua, garbage collected.
function support.alive()
  collectgarbage()
  collectgarbage()
  return core.memory().tensors
end

return support
