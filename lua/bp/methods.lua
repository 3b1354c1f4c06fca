--- Methods that say so when they are called with '.' instead of ':'.
---@internal
local core = require "bp.core"
local options = require "bp.options"

--- Has every method of a table check what it is called on.
---@param methods table functions by name; metamethods and names in `except` are left alone
---@param what string what they are methods of: "model"
---@param is function is(value): whether a value has these methods
---@param except table|nil set of names
return function(methods, what, is, except)
  for name, method in pairs(methods) do
    if type(method) == "function" and not name:find "^__" and not (except and except[name]) then
      methods[name] = function(self, ...)
        if not is(self) then
          core.error(("%s:%s: called on %s; write %s:%s(...) with ':'"):format(what, name, options.describe(self), what, name))
        end
        return method(self, ...)
      end
    end
  end
end
