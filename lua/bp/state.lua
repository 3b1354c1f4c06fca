--- What a checkpoint keeps of a program's values: numbers, strings, booleans, tables of them and tensors, taken apart into JSON and named
--- tensors, and put together again. Numbers come back with the same bits, nan and infinities too.
---
--- Things that JSON lacks are objects with one key that begins with "$": {"$number": "nan"}, {"$tensor": name}, {"$pairs": [[key, value]]}
--- for tables whose keys are no plain list and no names, {"$logs": pairs}, {"$bytes": hexadecimal digits}.
---@internal
local core = require "bp.core"
local json = require "bp.json"
local logs = require "bp.logs"
local options = require "bp.options"

local state = {}

local DEPTH = 24

local pack

local function pack_number(value)
  if math.type(value) == "integer" then return value end
  if value ~= value then return { ["$number"] = "nan" } end
  if math.abs(value) == math.huge then return { ["$number"] = value > 0 and "inf" or "-inf" } end
  return value
end

local function pack_string(value)
  if utf8.len(value) and not value:find "%z" then return value end
  return { ["$bytes"] = (value:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) }
end

local function is_list(value)
  local count = 0
  for key in pairs(value) do
    if math.type(key) ~= "integer" then return false end
    count = count + 1
  end
  return count > 0 and #value == count
end

local function has_names(value)
  for key in pairs(value) do
    if type(key) ~= "string" or key:find "^%$" or not utf8.len(key) or key:find "%z" then return false end
  end
  return true
end

local function pack_table(value, tensors, path, depth)
  if depth > DEPTH then core.error(("checkpoint: %s is nested more than %d deep; does it contain itself?"):format(path, DEPTH)) end
  local copy = {}
  if logs.is_logs(value) then
    for i, key in ipairs(logs.keys(value)) do copy[i] = { key, pack(value[key], tensors, path .. "." .. key, depth + 1) } end
    return { ["$logs"] = json.array(copy) }
  end
  if is_list(value) or has_names(value) then
    for key, item in pairs(value) do copy[key] = pack(item, tensors, path .. "." .. tostring(key), depth + 1) end
    return copy
  end
  for key, item in pairs(value) do
    if type(key) ~= "string" and type(key) ~= "number" and type(key) ~= "boolean" then
      core.error(("checkpoint: %s has %s for a key; expected strings and numbers"):format(path, options.describe(key)))
    end
    copy[#copy + 1] = { pack_number(key), pack(item, tensors, path .. "." .. tostring(key), depth + 1) }
  end
  return { ["$pairs"] = json.array(copy) }
end

function pack(value, tensors, path, depth)
  local kind = type(value)
  if kind == "number" then return pack_number(value) end
  if kind == "boolean" then return value end
  if kind == "string" then return pack_string(value) end
  if core.is_tensor(value) then
    if tensors[path] and tensors[path] ~= value then core.error(("checkpoint: two tensors would be called %s"):format(path)) end
    tensors[path] = value:detach()
    return { ["$tensor"] = path }
  end
  if kind == "table" then
    local meta = getmetatable(value)
    if type(meta) == "table" and type(value.checkpoint_state) == "function" then
      return pack(value:checkpoint_state(), tensors, path, depth + 1)
    end
    if meta == nil or logs.is_logs(value) then return pack_table(value, tensors, path, depth) end
  end
  core.error(("checkpoint: %s is %s, which a file cannot hold; expected numbers, strings, booleans, tensors and tables of them")
    :format(path, options.describe(value)))
end

--- A value as JSON can hold it; its tensors are added to a table by the path that leads to them.
---@param value any
---@param tensors table receives the tensors
---@param path string how the value is called
---@return any packed
function state.pack(value, tensors, path) return pack(value, tensors, path, 0) end

--- The value that was packed.
---@param packed any
---@param tensors table by name
---@return any value
function state.unpack(packed, tensors)
  if type(packed) ~= "table" then return packed end
  if packed["$number"] then return ({ nan = 0 / 0, inf = math.huge, ["-inf"] = -math.huge })[packed["$number"]] end
  if packed["$bytes"] then return (packed["$bytes"]:gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end)) end
  if packed["$tensor"] then return tensors[packed["$tensor"]] end
  local value = {}
  if packed["$pairs"] then
    for _, pair in ipairs(packed["$pairs"]) do value[state.unpack(pair[1], tensors)] = state.unpack(pair[2], tensors) end
    return value
  end
  if packed["$logs"] then
    local made = logs.new()
    for _, pair in ipairs(packed["$logs"]) do logs.set(made, pair[1], state.unpack(pair[2], tensors)) end
    return made
  end
  for key, item in pairs(packed) do value[key] = state.unpack(item, tensors) end
  return value
end

return state
