--- Writes the Lua part of bp as a C file: lua5.4 embed.lua OUT.c lua/bp/init.lua lua/bp/nn.lua ...
-- The table and its fields are declared in embedded.h.

local out_path = assert(arg[1], "usage: lua5.4 embed.lua OUT.c FILE.lua...")

local function read(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end

--- "lua/bp/nn/init.lua" is the module "bp.nn", kept under the path "bp/nn/init.lua".
local function identify(file)
  local path = assert(file:match "^lua/(.+%.lua)$", file .. ": expected a path that begins with lua/ and ends in .lua")
  return (path:gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")), path
end

--- The bytes as decimal numbers, 24 to a line.
local function numbers(text)
  local lines = {}
  for first = 1, #text, 24 do
    lines[#lines + 1] = table.concat({ text:byte(first, math.min(first + 23, #text)) }, ",")
  end
  return table.concat(lines, ",\n")
end

local modules, seen = {}, {}
for i = 2, #arg do
  local name, path = identify(arg[i])
  assert(not seen[name], ("%s and %s are both module %s"):format(seen[name], path, name))
  seen[name] = path
  local text = read(arg[i])
  assert(load(text, "@" .. arg[i], "t"))
  modules[#modules + 1] = { name = name, path = path, text = text }
end
table.sort(modules, function(a, b) return a.name < b.name end)

local c = { '/* Written by bindings/embed.lua. */\n#include "embedded.h"\n' }
local rows = {}
for i, m in ipairs(modules) do
  c[#c + 1] = ("static const unsigned char data_%d[] = {\n%s\n};\n"):format(i, m.text == "" and "0" or numbers(m.text))
  rows[i] = ('    { "%s", "%s", data_%d, %d },\n'):format(m.name, m.path, i, #m.text)
end
-- C has no empty arrays: a row of nulls, not counted, ends the table.
c[#c + 1] = "const bplua_module bplua_modules[] = {\n" .. table.concat(rows) .. "    { NULL, NULL, NULL, 0 },\n};\n"
c[#c + 1] = ("const size_t bplua_module_count = %d;\n"):format(#modules)

local f = assert(io.open(out_path, "wb"))
assert(f:write(table.concat(c, "\n")))
assert(f:close())
