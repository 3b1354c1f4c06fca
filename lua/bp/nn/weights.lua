--- Parameters of one's own, and all values of a model at once.
local core = require "bp.core"
local options = require "bp.options"
local tree = require "bp.nn.tree"

local weights = {}

--- Makes a tensor a parameter: assigned to a module, it is trained, saved and counted.
---@param value table tensor, or numbers in nested tables
---@return table tensor that wants a gradient
function weights.parameter(value)
  if not core.is_tensor(value) then value = core.tensor(value) end
  if value.dtype ~= "f32" and value.dtype ~= "f64" then
    core.error(("nn.parameter: the tensor is %s; expected f32 or f64: only those have gradients"):format(value.dtype))
  end
  return core.pause(function() return value:detach():requires_grad_(true) end)
end

-- Every tensor of the state by name.
local function state(self)
  local all = {}
  for _, list in ipairs{ tree.parameters(self), tree.buffers(self) } do
    for _, entry in ipairs(list) do all[#all + 1] = entry end
  end
  return all
end
weights.state = state

--- Copies of all parameters and buffers, by name.
---@param self table
---@param into table|nil an earlier result, to be overwritten
---@return table tensors
function weights.get(self, into)
  tree.require_built(self)
  local copies = into or {}
  core.pause(core.no_grad, function()
    for _, entry in ipairs(state(self)) do
      if copies[entry.name] then copies[entry.name]:copy_(entry.tensor) else copies[entry.name] = core.ops.copy(entry.tensor:detach()) end
    end
  end)
  return copies
end

--- Writes values into all parameters and buffers.
---@param self table
---@param tensors table by name, as get_weights gives; every name of the model has to be there
function weights.set(self, tensors)
  if type(tensors) ~= "table" then
    core.error("set_weights: the tensors are " .. options.describe(tensors) .. "; expected a table by name")
  end
  tree.require_built(self)
  local names, all = {}, state(self)
  for i, entry in ipairs(all) do names[i] = entry.name end
  for name in pairs(tensors) do
    local known = false
    for _, mine in ipairs(names) do known = known or mine == name end
    if not known then core.error(("set_weights: the model has no tensor '%s'%s"):format(tostring(name), options.hint(name, names))) end
  end
  for _, entry in ipairs(all) do
    local value, shape = tensors[entry.name], entry.tensor:shape()
    if not value then core.error(("set_weights: '%s' is missing"):format(entry.name)) end
    local theirs = core.is_tensor(value) and table.concat(value:shape(), "][") or options.describe(value)
    if theirs ~= table.concat(shape, "][") then
      core.error(("set_weights: '%s' is [%s]; expected [%s]"):format(entry.name, theirs, table.concat(shape, "][")))
    end
  end
  core.pause(core.no_grad, function()
    for _, entry in ipairs(all) do entry.tensor:copy_(tensors[entry.name]) end
  end)
end

return weights
