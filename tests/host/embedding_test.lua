--- Compiles and runs the first program of docs/embedding.md, against the library of this build.
local build = os.getenv "BUILD" or "build/release"

local function output(command)
  local p = io.popen(command .. " 2>&1")
  local text = p:read "a"
  return p:close(), text
end

local file <close> = assert(io.open("docs/embedding.md"))
local program = file:read("a"):match "```c\n(#include.-)```"
local folder = os.tmpname()
os.remove(folder)
assert(program and os.execute("mkdir " .. folder))
local source <close> = assert(io.open(folder .. "/host.c", "w"))
source:write(program)
source:flush()

local sanitizer = build:match "asan" and "-fsanitize=address" or build:match "ubsan" and "-fsanitize=undefined" or ""
local ok, text = output(("cc -Wall -Wextra -Werror %s -Icore -Ibindings $(pkg-config --cflags lua5.4) -o %s/host %s/host.c %s/libbplua.a "
  .. "$(pkg-config --libs lua5.4 jansson zlib) -lm -pthread"):format(sanitizer, folder, folder, build))
if ok then ok, text = output(folder .. "/host") end
local answer = tonumber(text:match "is about (%S+)")
local good = ok and answer and math.abs(answer - 3) < 0.3
if not good then print(text) end
os.execute("rm -rf " .. folder)
print(good and "1 passed, 0 failed" or "0 passed, 1 failed")
os.exit(good == true)
