--- `bplua list ops` (or `bplua --list ops`): a name per line, for people and for completion in shells.

local lists = {}

function lists.ops()
  for _, row in ipairs(require "bp.core".ops_table()) do print(row.name) end
end

--- Prints one of the lists.
-- @param what string its name
-- @return 0, or nil and a message
return function(what)
  local list = lists[what]
  if not list then return nil, ("list: unknown list '%s'; there is: ops"):format(what or "") end
  list()
  return 0
end
