--- Trains a program to its end, and again while it is killed at random instants and started again; both have to end with the same bits.
local shell = require "support.shell"

local kills = {}

local function command(program, folder, env)
  return ("%s %s %s %s"):format(env or "", shell.quote(shell.bplua), shell.quote(program), shell.quote(folder))
end

local function results(folder)
  return { result = shell.read(folder .. "/result"), log = shell.read(folder .. "/log.csv") }
end

--- Runs a program without disturbing it.
-- @return table { result =, log = }, number of seconds it took
function kills.undisturbed(program)
  local folder = shell.folder()
  local start = os.time()
  local r = shell.run(command(program, folder))
  assert(r.code == 0, r.out .. r.err)
  local out = results(folder)
  shell.remove(folder)
  return out, os.time() - start
end

--- Kills and restarts a program until so many kills have hit.
-- @param program string path of the script; it gets a folder of its own
-- @param count integer
-- @param longest number seconds at most until a kill
-- @param signal string "KILL", "INT", "TERM"
-- @param expected table what kills.undisturbed gave
-- @return hits, rounds, list of failures (texts), codes seen
function kills.run(program, count, longest, signal, expected)
  local hits, rounds, failures, codes = 0, 0, {}, {}
  while hits < count do
    local folder, started = shell.folder(), hits
    while true do
      local wait = hits < count and ("timeout --preserve-status -s %s %.4f"):format(signal, 0.02 + longest * math.random()) or ""
      local r = shell.run(command(program, folder, wait))
      if r.code == 0 then break end
      codes[r.code] = (codes[r.code] or 0) + 1
      if r.code ~= 137 and r.code ~= 130 and r.code ~= 143 then
        failures[#failures + 1] = ("ended with %d: %s%s"):format(r.code, r.out:sub(-300), r.err:sub(-600))
        break
      end
      hits = hits + 1
    end
    rounds = rounds + 1
    local ok, got = pcall(results, folder)
    if not ok then
      failures[#failures + 1] = "no result: " .. tostring(got)
    elseif got.result ~= expected.result then
      failures[#failures + 1] = ("after kills %d to %d other bits than undisturbed:\n%s\ninstead of\n%s")
        :format(started + 1, hits, got.result, expected.result)
    elseif got.log ~= expected.log then
      failures[#failures + 1] = "the csv log differs:\n" .. got.log .. "\ninstead of\n" .. expected.log
    end
    local left = shell.run(("ls -a %s %s/ckpt"):format(folder, folder)).out
    if left:find "%.tmp" then failures[#failures + 1] = "half-written files are left: " .. left end
    shell.remove(folder)
    if #failures > 3 then break end
  end
  return hits, rounds, failures, codes
end

return kills
