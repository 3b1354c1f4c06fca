--- Runs the Lua code of README.md and of the pages in docs/: all blocks of a page as one program, in an empty folder, on a small part of
--- the data.
-- Lines keep their numbers, so that an error names the line of the page.
local function here(path)
  if path:sub(1, 1) == "/" then return path end
  return io.popen("pwd"):read "l" .. "/" .. path
end
local bplua = here(arg[-1])

-- Everything a page does is done, on 600 and 200 pictures instead of 60,000 and 10,000, and for two epochs.
local small = [[
local bp = require "bp"
local full = bp.data.fashion_mnist
bp.data.fashion_mnist = function(...)
  local train, test, code = full(...)
  if not train then return train, test, code end
  return train:subset(bp.arange(1, 600)), test:subset(bp.arange(1, 200))
end
]]

local function program(path)
  local lines, inside, any = {}, false, false
  for line in io.lines(path) do
    local code = false
    if line:match "^```" then
      inside = line:match "^```lua%s*$" ~= nil
      any = any or inside
    else code = inside end
    lines[#lines + 1] = code and line:gsub("epochs = %d+", "epochs = 2") or ""
  end
  return any and table.concat(lines, "\n") .. "\n"
end

local function write(path, text)
  local f <close> = assert(io.open(path, "w"))
  f:write(text)
end

local passed, failed = 0, 0
local pages = io.popen("ls README.md docs/*.md")
for path in pages:lines() do
  local text = program(path)
  if text then
    local folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder))
    write(folder .. "/small.lua", small)
    write(folder .. "/page.lua", text)
    print("running the code of " .. path)
    if os.execute(("cd %s && '%s' -l small page.lua > out.txt 2>&1 < /dev/null"):format(folder, bplua)) then passed = passed + 1
    else
      failed = failed + 1
      for line in io.lines(folder .. "/out.txt") do print((line:gsub("page%.lua", path))) end
    end
    os.execute("rm -rf " .. folder)
  end
end
print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0)
