--- Which program on what machine: kept in checkpoints, so that resuming elsewhere can say what is different.
---@internal
local core = require "bp.core"

local environment = {}

-- The script as it was when the program began; nil in a host.
local script

local function own_script()
  if script ~= nil then return script or nil end
  script = false
  local words = rawget(_G, "arg")
  local path = type(words) == "table" and words[0]
  local text = type(path) == "string" and core.read_file(path)
  if not text then return nil end
  script = { name = path:match "[^/]*$", crc = core.crc32(text), arguments = {} }
  for i = 1, #words do script.arguments[i] = tostring(words[i]) end
  return script
end

own_script()

--- What may make a difference.
---@return table description plain data
function environment.describe()
  return { version = core.version, isa = core.isa(), threads = core.threads(), script = own_script() }
end

--- Sentences on what is otherwise than in a description.
---@param there table
---@return string[] lines
function environment.differences(there)
  local here, lines = environment.describe(), {}
  local function add(text, ...) lines[#lines + 1] = text:format(...) end
  if there.version ~= here.version then
    add("the checkpoint was written by bp %s, this is %s; the results may differ", tostring(there.version), here.version)
  end
  if there.isa ~= here.isa then
    add("the checkpoint was written with the kernels %s, these are %s; the results may differ in their last bits", tostring(there.isa),
      here.isa)
  end
  if there.threads ~= here.threads then
    add("the checkpoint was written with %s threads, now there are %d; the results do not depend on that", tostring(there.threads),
      here.threads)
  end
  local a, b = there.script, here.script
  if a and b then
    if a.name ~= b.name then
      add("the checkpoint was written by the script %s, this is %s", a.name, b.name)
    elseif a.crc ~= b.crc then
      add("the script %s was changed since the checkpoint was written", b.name)
    end
    if table.concat(a.arguments or {}, "\0") ~= table.concat(b.arguments, "\0") then
      add("the script's arguments were '%s', now they are '%s'", table.concat(a.arguments or {}, " "), table.concat(b.arguments, " "))
    end
  end
  return lines
end

return environment
