--- nn.lambda: a Lua function as a layer. A function cannot be written into a file; a model with a lambda is saved only when the function
--- was registered under a name, which whoever loads the model has to do too.
---
---     nn.register("double", function(x) return x * 2 end)
---     nn.sequential{ nn.lambda "double", nn.dense(1) }
local core = require "bp.core"
local layer = require "bp.nn.layer"
local options = require "bp.options"

local lambda = { functions = {} }
local names_of = setmetatable({}, { __mode = "k" })

--- Gives a function a name for nn.lambda, activation options and saved models.
---@param name string
---@param fn function tensors -> tensor
---@return function fn
function lambda.register(name, fn)
  if type(name) ~= "string" then core.error("nn.register: the name is " .. options.describe(name) .. "; expected a string") end
  if type(fn) ~= "function" then core.error("nn.register: the second value is " .. options.describe(fn) .. "; expected a function") end
  lambda.functions[name], names_of[fn] = fn, name
  return fn
end

--- The name a function was registered under, or nil.
---@param fn function
---@return string|nil name
function lambda.name_of(fn) return names_of[fn] end

--- A Lua function as a layer.
---@class nn.lambda
local Lambda = layer.define("lambda", "A Lua function as a layer.", {
  { "fn", "function|string", required = true, help = "function of the inputs, or the name it was registered under" },
})
lambda.layer = Lambda

function Lambda:setup(o)
  local fn = o.fn
  if type(fn) == "string" then
    fn = lambda.functions[fn]
    if not fn then
      local known = {}
      for name in pairs(lambda.functions) do known[#known + 1] = name end
      table.sort(known)
      self.spec:fail("no function is registered as '%s'%s; nn.register(%q, function(x) ... end) before this", o.fn,
        #known > 0 and options.hint(o.fn, known) or "", o.fn)
    end
  end
  rawset(self, "fn", fn)
end

function Lambda:forward(...) return self.fn(...) end

return lambda
