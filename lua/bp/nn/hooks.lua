--- Functions that a user hangs on a layer: called after its forward, or when the gradient of its output passes in backward.
---@internal
local core = require "bp.core"
local options = require "bp.options"

local hooks = {}

local Hook = { __name = "hook" }
Hook.__index = Hook

-- Recorded steps hold what the hooks of their recording did.
local function changed()
  require("bp.nn.module").touch()
  core.renew_captures()
end

--- Ends the hook; a second time does nothing.
function Hook:remove()
  local list = rawget(self.layer, "hooks")
  for i, one in ipairs(list or {}) do
    if one == self then
      changed()
      table.remove(list, i)
      if #list == 0 then rawset(self.layer, "hooks", nil) end
      return
    end
  end
end
Hook.__close = Hook.remove

--- Hangs a function on a layer.
---@param layer table
---@param kind string "forward" or "backward"
---@param fn function
---@return table hook
function hooks.add(layer, kind, fn)
  local meta = getmetatable(fn)
  if type(fn) ~= "function" and not (type(meta) == "table" and meta.__call) then
    core.error(("%s:on_%s: the value is %s; expected a function (layer, %s)"):format(layer.class_name, kind, options.describe(fn),
      kind == "forward" and "inputs, output" or "gradient"))
  end
  changed()
  local list = rawget(layer, "hooks")
  if not list then
    list = {}
    rawset(layer, "hooks", list)
  end
  local hook = setmetatable({ layer = layer, kind = kind, fn = fn }, Hook)
  list[#list + 1] = hook
  return hook
end

-- A layer that hands on its input (dropout in inference) gets an output of its own, whose gradient is that of the layer alone.
local function own_output(inputs, result)
  for i = 1, inputs.n do
    if rawequal(inputs[i], result[1]) then
      result[1] = core.ops.reshape(result[1], { shape = result[1]:shape() })
      return
    end
  end
end

--- Runs the hooks of a layer after its forward; may change its results.
---@param layer table
---@param list table
---@param inputs table packed
---@param result table packed
function hooks.run(layer, list, inputs, result)
  for _, hook in ipairs(table.move(list, 1, #list, 1, {})) do
    if hook.kind == "forward" then
      local other = hook.fn(layer, inputs, result[1])
      if other ~= nil then result[1] = other end
    elseif core.is_tensor(result[1]) and result[1].requires_grad and core.grad_enabled() then
      own_output(inputs, result)
      result[1]:on_grad(function(gradient) return hook.fn(layer, gradient) end)
    end
  end
end

return hooks
