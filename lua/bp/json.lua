--- bp.json: JSON text to Lua values and back.
---
--- Objects become tables by name, arrays lists, whole numbers integers, null json.null. Writing sorts names, so that equal tables give
--- equal text; floating-point numbers come back with the same bits.
local core = require "bp.core"

local json = {}

--- What JSON's null becomes, and what is written as null.
json.null = core.json_null

local Array = { __jsontype = "array", __name = "json array" }

--- Marks a list as an array, which matters when it is empty: an empty table is written as {}.
---@param list table|nil default: a new one
---@return table list the same
function json.array(list) return setmetatable(list or {}, Array) end

--- Reads one JSON value. Keys that stand twice, comments, trailing commas and more than 64 levels are refused.
---@param text string
---@param where string|nil begins the message of an error, such as the file's name; default "json"
---@return any|nil value
---@return string|nil message with line and column
---@return string|nil code "eformat" or "elimit"
function json.decode(text, where) return core.json_decode(text, where) end

--- Writes a value as JSON: strings, finite numbers, booleans, json.null, lists without holes, tables with string keys.
---@param value any
---@param given table|nil { empty = "object": what an empty table is, or "array"; indent = 0: spaces for a level }
---@return string text
function json.encode(value, given) return core.json_encode(value, given) end

--- Reads a file of JSON.
---@param path string
---@return any|nil value
---@return string|nil message
---@return string|nil code
function json.load(path)
  local text, message, code = core.read_file(path)
  if not text then return nil, message, code end
  return core.json_decode(text, path)
end

--- Writes a value into a file, which is the old one or the whole new one.
---@param path string
---@param value any
---@param given table|nil as for json.encode; indent is 2 by default
---@return boolean|nil ok
---@return string|nil message
---@return string|nil code
function json.save(path, value, given)
  return core.write_file(path, core.json_encode(value, given or { indent = 2 }) .. "\n")
end

return json
