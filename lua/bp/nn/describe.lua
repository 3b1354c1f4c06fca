--- What print shows of a module: one line for a layer with the options that are not defaults, an indented tree for what has children.
---@internal
local core = require "bp.core"
local options = require "bp.options"
local tree = require "bp.nn.tree"

local function value_text(value)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) == "function" then return "function" end
  if core.is_tensor(value) then return "tensor" end
  if options.is_plain(value) then
    local parts, shown = {}, #value > 20 and 3 or #value
    for i = 1, shown do parts[i] = value_text(value[i]) end
    if shown < #value then parts[shown + 1] = ("... (%d in all)"):format(#value) end
    return "{ " .. table.concat(parts, ", ") .. " }"
  end
  return tostring(value)
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

-- dense{ units = 32, activation = "relu" }
local function layer_text(self)
  local given, spec, parts = rawget(self, "options"), self.spec, {}
  for _, field in ipairs(spec and spec.fields or {}) do
    local value = given[field.name]
    if field.name ~= "name" and value ~= nil and not same(value, field.default) then
      parts[#parts + 1] = ("%s = %s"):format(field.name, value_text(value))
    end
  end
  return self.class_name .. (#parts > 0 and "{ " .. table.concat(parts, ", ") .. " }" or "")
end

local function lines_of(self, name, indent, lines)
  local children = tree.children(self)
  lines[#lines + 1] = ("%s%s%s%s"):format(indent, name and name .. ": " or "", layer_text(self), #children > 0 and " {" or "")
  for _, child in ipairs(children) do lines_of(child.module, child.name, indent .. "  ", lines) end
  if #children > 0 then lines[#lines + 1] = indent .. "}" end
  return lines
end

--- The module as text, as print shows it.
---@param self table a module
---@return string text
return function(self)
  return table.concat(lines_of(self, nil, "", {}), "\n")
end
