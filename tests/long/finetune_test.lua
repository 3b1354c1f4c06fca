--- scripts/finetune.lua whole: on a few pictures of new classes, what was learnt from other classes beats starting from nothing. A minute.
local function here(path)
  if path:sub(1, 1) == "/" then return path end
  return io.popen("pwd"):read "l" .. "/" .. path
end
local folder = os.tmpname()
os.remove(folder)
assert(os.execute("mkdir " .. folder))
local out = io.popen(("cd %s && '%s' '%s' 2>&1"):format(folder, here(arg[-1]), here "scripts/finetune.lua"))
local text = out:read "a"
out:close()
os.execute("rm -rf " .. folder)
local scratch, fine = text:match "from nothing%s+([%d.]+)\n%s*from the first five%s+([%d.]+)"
local gain = scratch and tonumber(fine) - tonumber(scratch) or -1
print(text)
print(("gain %.4f; the floor is 0.01 (0.0245 when it was written)"):format(gain))
print(gain >= 0.01 and "1 passed, 0 failed" or "0 passed, 1 failed")
os.exit(gain >= 0.01)
