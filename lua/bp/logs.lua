--- Named numbers in a fixed order, { loss = 0.25, accuracy = 0.91 }: what evaluate returns and callbacks receive. print shows them in that
--- order.
---@internal
local logs = {}

local order_of = setmetatable({}, { __mode = "k" })

local Logs = { __name = "logs" }

function Logs:__tostring()
  local parts = {}
  for i, key in ipairs(logs.keys(self)) do parts[i] = ("%s = %s"):format(key, logs.format(self[key])) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

--- An empty set.
---@return table logs
function logs.new()
  local self = setmetatable({}, Logs)
  order_of[self] = {}
  return self
end

--- Whether a value is such a set.
---@param value any
---@return boolean
function logs.is_logs(value) return getmetatable(value) == Logs end

--- Adds a number, or replaces it in its place.
---@param self table
---@param key string
---@param value number
function logs.set(self, key, value)
  if rawget(self, key) == nil then table.insert(order_of[self], key) end
  rawset(self, key, value)
end

--- The keys in order; keys that a program assigned by itself come last, sorted.
---@param self table
---@return string[] keys
function logs.keys(self)
  local keys, known = {}, {}
  for _, key in ipairs(order_of[self] or {}) do
    if rawget(self, key) ~= nil then
      keys[#keys + 1], known[key] = key, true
    end
  end
  local more = {}
  for key in pairs(self) do
    if not known[key] then more[#more + 1] = key end
  end
  table.sort(more)
  return table.move(more, 1, #more, #keys + 1, keys)
end

--- A number as progress lines show it: four decimals, or scientific below 1e-3.
---@param value any
---@return string text
function logs.format(value)
  if type(value) ~= "number" then return tostring(value) end
  if math.type(value) == "integer" then return tostring(value) end
  if value ~= 0 and math.abs(value) < 1e-3 then return ("%.4e"):format(value) end
  return ("%.4f"):format(value)
end

return logs
