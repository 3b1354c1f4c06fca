--- callbacks.lambda: a callback of plain functions, without self. (A table with functions on_... that take self is a callback as well.)
local options = require "bp.options"

local hooks = {}
for i, name in ipairs{ "on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end" } do
  local what = name:find "train" and "(run)" or name:find "begin" and "(number, run)" or "(number, logs, run)"
  hooks[i] = { name, "function", named = true, help = "function " .. what }
end
local spec = options.define("lambda", "A callback of plain functions.", hooks)

--- A callback of plain functions: callbacks.lambda{ on_epoch_end = function(epoch, logs, run) ... end }.
---@param given table functions by name
---@return table callback
return function(given, ...)
  local callback = {}
  for name, fn in pairs(spec:read(given, ...)) do
    callback[name] = function(_, ...) return fn(...) end
  end
  return setmetatable(callback, { __name = "lambda" })
end
