--- Half-written files that a killed program left beside the whole ones: ".name.<process>-<time>.tmp", see core/base/posix.c.
---@internal
local core = require "bp.core"

local leftovers = {}

--- Removes those of files whose names begin so.
---@param folder string
---@param beginnings string[]
function leftovers.remove(folder, beginnings)
  for _, name in ipairs(core.list_folder(folder) or {}) do
    for _, beginning in ipairs(beginnings) do
      if name:sub(2, #beginning + 1) == beginning and name:find "^%..*%.%d+%-%x+%.tmp$" then
        core.remove_file(folder .. "/" .. name)
        break
      end
    end
  end
end

return leftovers
