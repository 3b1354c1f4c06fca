--- bp.grad and bp.checkgrad: gradients of functions.
local core = require "bp.core"
local options = require "bp.options"

local grad = {}

-- All tensors of a tensor or nested table, in a fixed order, as { path, tensor }.
local function collect(value, path, list)
  if core.is_tensor(value) then
    list[#list + 1] = { path, value }
  elseif type(value) == "table" then
    local keys = {}
    for key in pairs(value) do keys[#keys + 1] = key end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    for _, key in ipairs(keys) do collect(value[key], path == "" and tostring(key) or path .. "." .. tostring(key), list) end
  end
  return list
end

-- A copy of the structure with each tensor t replaced by fn(t); other values stay.
local function map(value, fn)
  if core.is_tensor(value) then return fn(value) end
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, item in pairs(value) do copy[key] = map(item, fn) end
  return copy
end

local function scalar(who, value)
  if not core.is_tensor(value) or value:numel() ~= 1 then
    core.error(("%s: the function returned %s; expected a tensor of one number: sum() or mean() it"):format(who, options.describe(value)))
  end
  return value
end

-- The structure with tensors that want gradients, those tensors as a list.
local function leaves(who, params)
  local list = {}
  local copy = map(params, function(t)
    if t.dtype ~= "f32" and t.dtype ~= "f64" then return t end
    -- A tensor with a history keeps it: so grad of grad goes through.
    local leaf = t.requires_grad and t or t:detach():requires_grad_(true)
    list[#list + 1] = leaf
    return leaf
  end)
  if #list == 0 then core.error(who .. ": the first argument holds no f32 or f64 tensor; expected a tensor or a table of tensors") end
  return copy, list
end

--- The gradient of a function with respect to its first argument.
---@param fn function (params, ...) -> tensor of one number; params is a tensor or a table of tensors, nested as one likes
---@return function gradient (params, ...) -> the same structure with gradients in place of tensors, and the value
function grad.grad(fn)
  if type(fn) ~= "function" then core.error("bp.grad: the value is " .. options.describe(fn) .. "; expected a function") end
  return function(params, ...)
    local inputs = table.pack(...)
    return core.enable_grad(function()
      local copy, list = leaves("bp.grad", params)
      local nested = false
      for _, entry in ipairs(collect(params, "", {})) do nested = nested or entry[2].requires_grad end
      local value = scalar("bp.grad", fn(copy, table.unpack(inputs, 1, inputs.n)))
      local found = core.gradients(value, list, { create_graph = nested, retain_graph = nested })
      local by_leaf = {}
      for i, leaf in ipairs(list) do by_leaf[leaf] = found[i] or core.ops.full{ shape = leaf:shape(), value = 0, dtype = leaf.dtype } end
      return map(copy, function(t) return by_leaf[t] end), nested and value or value:detach()
    end)
  end
end

--- Compares a function's gradient with differences, in f64.
---@param fn function (params, ...) -> tensor of one number; it has to give the same value each time it is called
---@param params table tensor or table of tensors
---@param ... any what else fn takes; f32 tensors among them are converted too
---@return number error the largest |gradient - difference| / max(1, |gradient|)
---@return string where the tensor and element with the largest error
function grad.checkgrad(fn, params, ...)
  local function to64(t) return t.dtype == "f32" and core.ops.cast(t:detach(), { dtype = "f64" }) or t:detach() end
  local point = map(params, function(t) return core.ops.copy(to64(t)) end)
  local inputs = table.pack(...)
  for i = 1, inputs.n do inputs[i] = map(inputs[i], to64) end
  local gradient = grad.grad(fn)(point, table.unpack(inputs, 1, inputs.n))
  local function value()
    return core.no_grad(function() return scalar("bp.checkgrad", fn(point, table.unpack(inputs, 1, inputs.n))):item() end)
  end
  local exact, worst, where = collect(gradient, "", {}), 0, ""
  for i, entry in ipairs(collect(point, "", {})) do
    if entry[2].dtype == "f64" then
      local flat, analytic = core.ops.reshape(entry[2], { shape = { -1 } }),
        core.ops.reshape(core.ops.contiguous(exact[i][2]), { shape = { -1 } }):totable()
      for k = 1, flat:numel() do
        local x = flat[k]:item()
        local h = 1e-3 * math.max(1, math.abs(x))
        -- Five points: error of order h^4.
        local sum = 0
        for step, factor in pairs{ [-2] = 1, [-1] = -8, [1] = 8, [2] = -1 } do
          flat[k] = x + step * h
          sum = sum + factor * value()
        end
        flat[k] = x
        local numeric = sum / (12 * h)
        local difference = math.abs(analytic[k] - numeric) / math.max(1, math.abs(analytic[k]))
        if difference ~= difference then difference = math.huge end
        if difference > worst then worst, where = difference, ("%s[%d]: gradient %.10g, difference %.10g")
          :format(entry[1], k, analytic[k], numeric) end
      end
    end
  end
  return worst, where
end

return grad
