--- Checks the layout of C sources against .clang-format, or mends it: lua5.4 tests/check/format.lua [--fix] FILE...
-- Tables keep the layout that they were written in: a row is read across, and clang-format would stand it on end. A table is what
-- lies between a line that begins with a declaration and ends in "= {" and the line "};", or a macro of several lines.

local fix = arg[1] == "--fix"
local first = fix and 2 or 1

for i = first, #arg do -- clang-format would take any other language for C, and ruin it
  if not arg[i]:match "%.[ch]$" then
    io.stderr:write(("format: %s is no C source; only .c and .h are formatted, and no file was touched\n"):format(arg[i]))
    os.exit(2)
  end
end

--- The ranges of lines outside tables, as options for clang-format.
local function ranges(path)
  local options, n, from, table_ends = {}, 0, 1, nil
  local function close(last)
    if from and from <= last then options[#options + 1] = ("--lines=%d:%d"):format(from, last) end
    from = nil
  end
  for line in io.lines(path) do
    n = n + 1
    if table_ends then
      if line:match(table_ends) then table_ends, from = nil, n + 1 end
    elseif line:match "^[%a_].*= {$" then
      close(n - 1)
      table_ends = "^};"
    elseif line:match "^#define.*\\$" then
      close(n - 1)
      table_ends = "[^\\]$"
    elseif line:match "^#define" then
      close(n - 1)
      from = n + 1
    end
  end
  close(n)
  return table.concat(options, " ")
end

local bad = 0
for i = first, #arg do
  local lines = ranges(arg[i])
  if lines ~= "" then
    local ok = os.execute(("clang-format %s %s '%s'"):format(fix and "-i" or "--dry-run -Werror", lines, arg[i]))
    if not ok then bad = bad + 1 end
  end
end
if bad > 0 then
  io.stderr:write(("format: %d of %d files; run `make format`\n"):format(bad, #arg - first + 1))
  os.exit(1)
end
print(("format: %d files"):format(#arg - first + 1))
