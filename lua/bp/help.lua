--- bp.help(name): what the option declarations, the op table and the comments in the sources say of a name, as text for the terminal.
local core = require "bp.core"
local options = require "bp.options"

--- The value that a dotted name leads to, from bp on, without calling anything but bp's own loaders; nil if there is none.
local function resolve(name)
  local value = require "bp"
  for part in name:gsub("^bp%f[%W]%.?", ""):gmatch "[^.:]+" do
    if type(value) ~= "table" then return nil end
    local ok, found = pcall(function() return value[part] end) -- bp's own tables refuse what they do not have
    if not ok then return nil end
    value = found
  end
  return value
end

--- A name and its explanation, in two columns; further lines of the explanation stand below its first.
local function entry(name, text)
  return ("  %-16s %s"):format(name, (text:gsub("\n", "\n" .. (" "):rep(19))))
end

local function default_text(value)
  if value == nil then return "" end
  if type(value) == "table" then return getmetatable(value) == nil and "; default {" .. table.concat(value, ", ") .. "}" or "" end
  return "; default " .. (type(value) == "string" and ("%q"):format(value) or tostring(value))
end

--- A declaration made with options.define.
local function describe_spec(spec)
  local lines = { ("%s: %s"):format(spec.name, spec.summary), "options" }
  for _, field in ipairs(spec.fields) do
    local what = options.expected(field) .. (field.required and "; required" or default_text(field.default))
    lines[#lines + 1] = entry(field.name, (field.help or "") .. "\n" .. what)
  end
  return table.concat(lines, "\n")
end

--- A row of the op table.
local function describe_op(row)
  local names, lines = {}, {}
  for i, input in ipairs(row.inputs) do
    names[i] = input.optional and "[" .. input.name .. "]" or input.name .. (input.variadic and ", ..." or "")
    lines[i] = entry(input.name, input.help or "")
  end
  if #row.options > 0 then names[#names + 1] = "{options}" end
  table.insert(lines, 1, ("bp.ops.%s(%s): %s"):format(row.name, table.concat(names, ", "), row.summary))
  if row.detail and row.detail ~= "" then table.insert(lines, 2, row.detail) end
  if #row.options > 0 then lines[#lines + 1] = "options" end
  for _, option in ipairs(row.options) do
    lines[#lines + 1] = entry(option.name, ("%s\n%s%s"):format(option.help or "", option.kind,
      option.required and "; required" or default_text(option.default)))
  end
  if row.outputs and row.outputs ~= "" then lines[#lines + 1] = "result\n  " .. row.outputs end
  return table.concat(lines, "\n")
end

--- The `---` comment above a Lua function, if its source is at hand.
local function comment_of(fn)
  local info = debug.getinfo(fn, "S")
  local file = info.source:sub(1, 1) == "@" and io.open(info.source:sub(2))
  if not file then return nil end
  local block, n = {}, 0
  for line in file:lines() do
    n = n + 1
    if n >= info.linedefined then break end
    local text = line:match "^%s*%-%-%-?%s?(.*)$"
    if not text then
      block = {}
    else
      block[#block + 1] = text:gsub("^@param%s+(%S+)%s+(%S+)", "  %1 (%2)"):gsub("^@return", "  returns"):gsub("^@%w+%s*", "")
    end
  end
  file:close()
  return #block > 0 and table.concat(block, "\n") or nil
end

--- The parameters of a Lua function, as it is called.
local function signature(name, fn)
  local info, names = debug.getinfo(fn, "u"), {}
  for i = 1, info.nparams do names[i] = debug.getlocal(fn, i) end
  if info.isvararg then names[#names + 1] = "..." end
  return ("%s(%s)"):format(name, table.concat(names, ", "))
end

--- The names in a table, in columns.
local function describe_table(name, value)
  local names = {}
  for key in pairs(value) do
    if type(key) == "string" and not key:match "^_" then names[#names + 1] = key end
  end
  table.sort(names)
  local lines = { name .. " holds" }
  for i = 1, #names, 4 do
    local row = {}
    for k = i, math.min(i + 3, #names) do row[#row + 1] = ("%-19s"):format(names[k]) end
    lines[#lines + 1] = "  " .. table.concat(row):gsub("%s+$", "")
  end
  return table.concat(lines, "\n")
end

local function find(list, name)
  for _, row in ipairs(list) do
    if row.name == name then return row end
  end
end

--- What is known of a name, as text.
---@param name string such as "nn.dense", "bp.ops.softmax", "x:sum" or "bp"
---@return string|nil text
---@return string|nil message when nothing is known
local function help(name)
  if type(name) ~= "string" then core.error("help: the name is " .. options.describe(name) .. "; expected a string") end
  local last = name:match "([%w_]+)$" or ""
  local value = resolve(name)
  local spec = type(value) == "table" and rawget(value, "spec") or find(options.declared, last)
  if spec then return describe_spec(spec) end
  local row = find(core.ops_table(), (last:gsub("_$", "")))
  if row then return describe_op(row) end
  if type(value) == "function" then
    if debug.getinfo(value, "S").what == "C" then return name .. ": a function written in C; see docs/reference/tensors.md" end
    return signature(name, value) .. "\n" .. (comment_of(value) or "")
  end
  if type(value) == "table" then return describe_table(name, value) end
  local known = {}
  for i, r in ipairs(core.ops_table()) do known[i] = r.name end
  for _, s in ipairs(options.declared) do known[#known + 1] = s.name end
  return nil, ("no help for '%s'%s"):format(name, options.nearest(last, known) and options.hint(last, known) or "")
end

return help
