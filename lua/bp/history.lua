--- What a training logged, epoch by epoch.
---
---     history.val_loss[3]                 -- a column is a list, one value per epoch
---     history:plot(); history:svg "run/history.svg"; history:csv "run/history.csv"
local check_self = require "bp.methods"
local core = require "bp.core"
local logs = require "bp.logs"
local options = require "bp.options"

local history = {}

local History = { __name = "history" }

-- Methods, then columns by name.
function History:__index(key)
  if History[key] ~= nil then return History[key] end
  if type(key) == "string" then return History.column(self, key) end
end

function History:__len() return #rawget(self, "rows") end

--- An empty history.
---@return table history
function history.new()
  return setmetatable({ rows = {}, epochs = {} }, History)
end

--- Adds what an epoch logged.
---@param epoch integer
---@param values table logs
function History:add(epoch, values)
  table.insert(self.rows, values)
  table.insert(self.epochs, epoch)
end

--- The names of all numbers logged, in order of first appearance.
---@return string[] names
function History:keys()
  local keys, known = {}, {}
  for _, row in ipairs(self.rows) do
    for _, key in ipairs(logs.keys(row)) do
      if not known[key] and type(row[key]) == "number" then keys[#keys + 1], known[key] = key, true end
    end
  end
  return keys
end

--- The values of one name, nan in epochs without it; nil when no epoch has it.
---@param key string
---@return number[]|nil values
function History:column(key)
  local values, found = {}, false
  for i, row in ipairs(self.rows) do
    found = found or row[key] ~= nil
    values[i] = row[key] or 0 / 0
  end
  return found and values or nil
end

--- The best value of a name and the epoch it was reached in.
---@param key string "val_loss"
---@param mode string|nil "min", "max", or "auto" (default): by the name
---@return number|nil value
---@return integer|nil epoch
function History:best(key, mode)
  local sign = require("bp.callbacks.monitor").sign(key, mode or "auto")
  local best, epoch
  for i, row in ipairs(self.rows) do
    local value = row[key]
    if value and value == value and (best == nil or sign * (value - best) > 0) then best, epoch = value, self.epochs[i] end
  end
  return best, epoch
end

-- The names asked for, or all; and one chart per kind: loss with val_loss, accuracy with val_accuracy.
local function charts(self, names)
  if names == nil then names = self:keys() end
  if type(names) == "string" then names = { names } end
  local known, list, by_kind = self:keys(), {}, {}
  for _, name in ipairs(names) do
    local column = self:column(name)
    if not column then core.error(("history: nothing is called '%s'%s"):format(tostring(name), options.hint(name, known))) end
    local kind = name:gsub("^val_", "")
    if not by_kind[kind] then
      by_kind[kind] = { title = kind, x = self.epochs, series = {} }
      list[#list + 1] = by_kind[kind]
    end
    table.insert(by_kind[kind].series, { name = name, values = column })
  end
  return list
end

local plot_spec = options.define("history:plot", "Draws the history in the terminal; positional entries are names.", {
  { "width", "int", min = 20, named = true, help = "columns; default those of the terminal" },
  { "height", "int", min = 4, default = 12, named = true, help = "lines of each chart" },
  { "ascii", "boolean", named = true, help = "draw with letters instead of braille dots; default where the locale is not UTF-8" },
})

-- Splits { "loss", "val_loss", width = 60 } into names and options.
local function split(given)
  if type(given) ~= "table" then return given, nil end
  local names, rest = {}, {}
  for key, value in pairs(given) do
    if math.type(key) == "integer" then names[key] = value else rest[key] = value end
  end
  return #names > 0 and names or nil, rest
end

--- The charts as text.
---@param given table|string|nil names, and { width =, height = 12, ascii = }
---@return string text
function History:chart(given)
  local names, rest = split(given)
  local o = plot_spec:read(rest)
  local plot = require "bp.plot"
  local parts = {}
  for _, chart in ipairs(charts(self, names)) do parts[#parts + 1] = plot.lines(chart, o) end
  return table.concat(parts, "\n")
end

--- Draws the charts in the terminal: a name and its val_ twin together.
---@param given table|string|nil as in chart
function History:plot(given)
  print(self:chart(given))
end

--- Writes the charts as an SVG picture.
---@param path string
---@param names table|nil which names (default all)
---@return boolean|nil ok
---@return string|nil message
---@return string|nil code
function History:svg(path, names)
  return core.write_file(path, require("bp.svg").lines(charts(self, names)))
end

-- RFC 4180: quotes where needed.
local function field(value)
  local text = type(value) == "number" and (math.type(value) == "integer" and "%d" or "%.9g"):format(value) or tostring(value)
  return text:find('[",\r\n]') and '"' .. text:gsub('"', '""') .. '"' or text
end

--- The history as CSV text: a line per epoch, empty where an epoch lacks a number.
---@return string text
function History:to_csv()
  local keys = self:keys()
  local lines = { "epoch" }
  for _, key in ipairs(keys) do lines[1] = lines[1] .. "," .. field(key) end
  for i, row in ipairs(self.rows) do
    local cells = { field(self.epochs[i]) }
    for k, key in ipairs(keys) do cells[k + 1] = row[key] and field(row[key]) or "" end
    lines[#lines + 1] = table.concat(cells, ",")
  end
  return table.concat(lines, "\n") .. "\n"
end

--- Writes the history as CSV.
---@param path string
---@return boolean|nil ok
---@return string|nil message
---@return string|nil code
function History:csv(path)
  return core.write_file(path, self:to_csv())
end

History.diagnose = require "bp.diagnose"

function History:__tostring()
  local last = self.rows[#self.rows]
  return ("history of %d epochs%s"):format(#self.rows, last and ", the last " .. tostring(last) or "")
end

check_self(History, "history", function(value) return getmetatable(value) == History end)

return history
