--- What the layers of a sequential or functional model are called, and finding them by that.
---@internal
local core = require "bp.core"
local options = require "bp.options"

local names = {}

--- "dense_1", "dense_2": a kind and the how manieth of it, unless the layer brought a name.
---@param spec table the declaration that words the error
---@param layers table[] a layer may come more than once
---@return table names by layer
function names.assign(spec, layers)
  local counts, by_layer, taken = {}, {}, {}
  for i, one in ipairs(layers) do
    local given = rawget(one, "options") and one.options.name
    local name = by_layer[one] or given
    if not name then
      counts[one.class_name] = (counts[one.class_name] or 0) + 1
      name = one.class_name .. "_" .. counts[one.class_name]
    end
    if taken[name] and taken[name] ~= one then spec:fail("layers %d and %d are both called '%s'", taken[taken[name]], i, name) end
    taken[name], taken[one], by_layer[one] = one, taken[one] or i, name
    if not rawget(one, "given_name") then rawset(one, "given_name", name) end
  end
  return by_layer
end

--- A layer by place or name.
---@param who string for the message
---@param layers table[]
---@param by_layer table names by layer
---@param which integer|string from 1, negative from the end, or a name
---@return table layer
function names.find(who, layers, by_layer, which)
  if math.tointeger(which) then
    local one = layers[which < 0 and #layers + 1 + which or which]
    if one then return one end
    core.error(("%s: there is no layer %d; there are %d"):format(who, which, #layers))
  end
  local known = {}
  for i, one in ipairs(layers) do
    known[i] = by_layer[one]
    if known[i] == which then return one end
  end
  core.error(("%s: there is no layer '%s'%s"):format(who, tostring(which), options.hint(which, known)))
end

return names
