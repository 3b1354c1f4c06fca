--- Who may include what: lua5.4 tests/check/includes.lua
-- Dependencies point down only (docs/architecture). An include with a slash or of a file beside the includer is ours and is looked up;
-- everything else is a library's header.

--- Folder of core -> folders (or single headers) it may include from, besides itself and core/bp*.h.
-- What lies in core/ itself puts the folders together.
local below = {
  base = {},
  tensor = { "base" },
  kernels = { "base/random.h" }, -- arithmetic alone: kernels know no context
  ops = { "base", "tensor", "kernels" },
  autodiff = { "base", "tensor", "kernels", "ops" },
  plan = { "base", "tensor", "kernels", "ops", "autodiff" },
  io = { "base", "tensor" },
}

--- Outside library -> pattern of its headers, and who alone may see them.
local libraries = {
  { name = "Lua", header = "^lua", folder = "^bindings/" },
  { name = "Lua", header = "^lauxlib", folder = "^bindings/" },
  { name = "jansson", header = "^jansson" },
  { name = "zlib", header = "^zlib" },
  { name = "stb", header = "^stb" },
  { name = "libedit", header = "^editline" },
  { name = "BLAS", header = "^cblas" },
}

local bad = 0
local function complain(...)
  bad = bad + 1
  io.stderr:write("includes: ", string.format(...), "\n")
end

local function exists(path)
  local f = io.open(path)
  if f then f:close() end
  return f ~= nil
end

--- "core/ops/../tensor/shape.h" -> "core/tensor/shape.h"
local function normalize(path)
  local n
  repeat path, n = path:gsub("[^/]+/%.%./", "", 1) until n == 0
  return path
end

local function contains(list, x)
  for _, v in ipairs(list) do if v == x then return true end end
  return false
end

--- An include of one of our own headers.
local function check_own(file, line, target)
  local from, to = file:match "^core/(%w+)/", target:match "^core/(%w+)/"
  if file:match "^core/" and not target:match "^core/" then
    complain("%s:%d: core includes %s, which stands above it", file, line, target)
  elseif from and to and from ~= to and not (contains(below[from], to) or contains(below[from], target:sub(6))) then
    complain("%s:%d: %s/ may not include %s", file, line, from, target)
  end
end

local seen_by = {} -- library name -> the file that includes it

local function check_library(file, line, header)
  for _, library in ipairs(libraries) do
    if header:match(library.header) then
      if library.folder then
        if not file:match(library.folder) then complain("%s:%d: only %s may see %s", file, line, library.folder:sub(2), header) end
      elseif seen_by[library.name] and seen_by[library.name] ~= file then
        complain("%s:%d: %s is seen by %s already; one file per library", file, line, library.name, seen_by[library.name])
      else
        seen_by[library.name] = file
      end
    end
  end
end

local count = 0
local files = io.popen "find core bindings -name '*.[ch]' -o -name '*.def' | sort"
for file in files:lines() do
  count = count + 1
  local folder, n = file:match "^(.*/)", 0
  for text in io.lines(file) do
    n = n + 1
    local header = text:match '^%s*#%s*include%s+[<"]([^>"]+)[>"]'
    if header then
      local beside, in_core = normalize(folder .. header), "core/" .. header
      if exists(beside) then
        check_own(file, n, beside)
      elseif exists(in_core) then
        check_own(file, n, in_core)
      else
        check_library(file, n, header)
      end
    end
  end
end
files:close()
if bad > 0 then os.exit(1) end
print(("includes: %d files"):format(count))
