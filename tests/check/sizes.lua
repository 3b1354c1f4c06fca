--- Fails for source files of more than 600 lines and lines of more than 140 characters: lua5.4 tests/check/sizes.lua
local MOST_LINES, MOST_COLUMNS = 600, 140
local bad = 0

local function complain(format, ...)
  bad = bad + 1
  io.stderr:write("sizes: ", format:format(...), "\n")
end

local files = io.popen "find core bindings lua scripts tests -name '*.[ch]' -o -name '*.lua' -o -name '*.def'"
local count = 0
for path in files:lines() do
  count = count + 1
  local n = 0
  for line in io.lines(path) do
    n = n + 1
    local columns = utf8.len(line) or #line
    if columns > MOST_COLUMNS and not path:match "%.def$" then
      complain("%s:%d: %d columns; at most %d", path, n, columns, MOST_COLUMNS)
    end
  end
  if n > MOST_LINES then complain("%s: %d lines; at most %d. Which of its concepts wants a file of its own?", path, n, MOST_LINES) end
end
files:close()
if bad > 0 then os.exit(1) end
print(("sizes: %d files"):format(count))
