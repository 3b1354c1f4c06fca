--- model:groups: parameters sorted by patterns, for an optimizer with options of its own for each group.
local core = require "bp.core"
local options = require "bp.options"
local tree = require "bp.nn.tree"

--- Groups of parameters, each with options of an optimizer:
---
---     optim.adam(model:groups{ { "conv*", lr = 1e-4 }, { "dense_2", lr = 1e-2 } }, { lr = 1e-3 })
---
--- A parameter belongs to the first pattern that names it; those that none names are the last group, with the optimizer's own options.
---@param self table a model whose layers have their parameters
---@param given table list of { pattern, option = value, ... }
---@return table groups list of { params =, option = value, ... }
return function(self, given)
  if not options.is_plain(given) or not options.is_plain(given[1]) then
    core.error("groups: the value is " .. options.describe(given) .. "; expected a list whose entries are { \"pattern\", lr = 1e-4 }")
  end
  tree.require_built(self)
  local list, taken = {}, {}
  local function take(pattern, more)
    local group, matches = { params = {} }, tree.matcher(pattern)
    for key, value in pairs(more) do
      if key ~= 1 then group[key] = value end
    end
    for _, entry in ipairs(tree.parameters(self)) do
      if not taken[entry.tensor] and matches(entry.name) then
        taken[entry.tensor] = true
        table.insert(group.params, entry.tensor)
      end
    end
    if #group.params > 0 then list[#list + 1] = group end
    return #group.params
  end
  for i, one in ipairs(given) do
    if not options.is_plain(one) or type(one[1]) ~= "string" then
      core.error(("groups: entry %d is %s; expected { \"pattern\", lr = 1e-4 }"):format(i, options.describe(one)))
    end
    if take(one[1], one) == 0 then
      core.error(("groups: no parameter that is not in an earlier group is called '%s'; named_parameters() shows the names"):format(one[1]))
    end
  end
  take(nil, {})
  return list
end
