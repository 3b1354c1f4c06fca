--- What the specs about files share: a folder that goes away, and files in it.
local core = require "bp.core"

local files = {}

--- A new folder; everything made through it is removed at its end.
function files.folder()
  local path = os.tmpname()
  os.remove(path)
  assert(core.make_folder(path))
  return setmetatable({ path = path }, { __index = files, __close = files.remove })
end

function files.at(self, name) return self.path .. "/" .. name end

--- Writes a file below the folder and returns its path.
function files.put(self, name, text)
  local path = self:at(name)
  assert(core.make_folder(path:match "^(.*)/"))
  assert(core.write_file(path, text))
  return path
end

function files.remove(self) os.execute(("rm -r '%s'"):format(self.path)) end

--- n as a big-endian number of four bytes, for IDX files.
function files.idx(code, shape, bytes)
  local head = string.pack(">I2BB", 0, code, #shape)
  for _, size in ipairs(shape) do head = head .. string.pack(">I4", size) end
  return head .. bytes
end

return files
