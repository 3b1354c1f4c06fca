--- Helpers of the specs over tensors.
local core = require "bp.core"

local support = {}

--- Runs fn and returns the message of the error that it has to raise.
function support.failure(fn, ...)
  local ok, message = pcall(fn, ...)
  assert(not ok, "expected an error")
  return message
end

--- Number of tensors that live after collecting garbage.
function support.alive()
  collectgarbage()
  collectgarbage()
  return core.memory().tensors
end

return support
