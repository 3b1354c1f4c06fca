--- What the text programs reach when they are run whole: the share of descriptions in the right section, and bits per character of a
-- licence that was never seen. Some minutes.
local bplua = arg[-1]
if bplua:sub(1, 1) ~= "/" then bplua = io.popen("pwd"):read "l" .. "/" .. bplua end
local root = io.popen("pwd"):read "l"

-- What a program prints, run in an empty folder; nil when it fails.
local function run(name)
  local folder = os.tmpname()
  os.remove(folder)
  assert(os.execute("mkdir " .. folder))
  local pipe = io.popen(("cd %s && '%s' '%s/scripts/%s.lua' 2>&1 < /dev/null"):format(folder, bplua, root, name))
  local out = pipe:read "a"
  local ok = pipe:close()
  os.execute("rm -rf " .. folder)
  return ok and out or nil, out
end

local passed, failed = 0, 0
local function check(name, pattern, good)
  local out, all = run(name)
  local found = out and tonumber(out:match(pattern))
  local fine = found and good(found)
  print(("%s: %s"):format(name, found or "failed"))
  if not fine then print(all) end
  passed, failed = passed + (fine and 1 or 0), failed + (fine and 0 or 1)
end

check("char_lm", "unseen licence: ([%d.]+) bits", function(bits) return bits < 2.2 end)
if os.execute "test $(apt-cache dumpavail 2>/dev/null | grep -c '^Description:') -gt 20000" then
  check("text_sections", "test: {.-accuracy = ([%d.]+)}", function(accuracy) return accuracy > 0.7 end)
else
  print "text_sections: SKIPPED, apt has no lists of packages here (apt-get update)"
end
print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0)
