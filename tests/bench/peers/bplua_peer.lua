--- bplua behind the protocol of peers/protocol.py, one line of JSON per command: bplua tests/bench/peers/bplua_peer.lua [--threads N]
--- [--eager]: that mode alone, which leaves garbage and a heap in pieces to whoever runs after it in the same process.
local folder = arg[0]:match "^(.*)/peers/" or "tests/bench"
package.path = folder .. "/?.lua;" .. package.path
local bp = require "bp"
local core = require "bp.core"
local nets = require "nets"
local workloads = require "workloads"

local files = os.getenv "BP_BENCH_DATA"
local eager = false
for i, word in ipairs(arg) do
  if word == "--threads" then bp.threads(tonumber(arg[i + 1])) end
  eager = eager or word == "--eager"
end

local built = {}
local WARM_SECONDS = 0.3

local function make(name, variant, seed)
  local known = workloads.by_name[name]
  local maker = assert(nets.maker(name, known and known.needs))
  return maker{ name = name, folder = files, eager = variant == "eager", into = variant == "into", seed = seed }
end

local function get(name, variant, answer)
  local key = name .. "/" .. variant
  if not built[key] then
    local start = core.clock()
    built[key] = make(name, variant, 1)
    built[key](1)
    local known = workloads.by_name[name]
    local warm, n = core.clock(), 2
    while not (known and known.seconds) and core.clock() - warm < WARM_SECONDS do
      built[key](n)
      n = math.min(n * 2, 1000)
    end
    answer.setup_seconds = core.clock() - start
  end
  return built[key]
end

-- Resident bytes of this process now, and the most since the last call with reset.
local function resident(reset)
  if reset then
    local f = io.open("/proc/self/clear_refs", "w")
    if f then
      f:write "5"
      f:close()
    end
  end
  local f <close> = assert(io.open "/proc/self/status")
  local text = f:read "a"
  return 1024 * text:match "VmRSS:%s*(%d+)", 1024 * text:match "VmHWM:%s*(%d+)"
end

local commands = {}

function commands.run(name, variant, steps)
  local answer = { workload = name, variant = variant, steps = steps }
  local step = get(name, variant, answer)
  local start = core.clock()
  answer.loss = step(steps)
  answer.seconds = core.clock() - start
  return answer
end

--- The mean loss of the last `tail` of `steps` steps from a fresh start.
function commands.learn(name, variant, seed, steps, tail)
  local step, sum = make(name, variant, seed), 0
  if steps > tail then step(steps - tail) end
  for _ = 1, tail do sum = sum + step(1) end
  collectgarbage()
  return { loss = sum / tail }
end

function commands.drop(name, variant)
  built[name .. "/" .. variant] = nil
  collectgarbage()
  collectgarbage()
  return {}
end

--- What a few steps add to the memory of this process at their peak.
function commands.memory(name, variant)
  local step, captured = make(name, variant, 1)
  collectgarbage()
  local before = resident(true)
  step(3)
  local _, peak = resident(false)
  local answer = { added = peak - before }
  if variant == "captured" then answer.arena = captured:plans()[1].arena_bytes end
  return answer
end

--- Allocator calls of the core that so many more replays need.
function commands.allocations(name, steps)
  local step = make(name, "captured", 1)
  local function calls(n)
    local before = bp.memory().calls
    step(n)
    return bp.memory().calls - before
  end
  calls(2)
  local few = calls(2)
  return { calls = calls(2 + steps) - few, steps = steps }
end

--- Seconds of a replayed op that has next to nothing to do.
function commands.op_overhead(steps)
  local x = bp.rand(1)
  local captured = bp.capture(function(v)
    for _ = 1, 1000 do v = v:abs() end
    return v
  end)
  captured(x):free()
  local ops, best = captured:plans()[1].ops, math.huge
  for _ = 1, steps do
    local start = core.clock()
    captured(x):free()
    best = math.min(best, core.clock() - start)
  end
  return { ops = ops, seconds = best / ops }
end

function commands.list()
  local list, missing = {}, {}
  for _, w in ipairs(workloads.list) do
    local maker, why = nets.maker(w.name, w.needs)
    if maker then list[w.name] = eager and { "eager" } or { "captured", w.forward and "into" or nil } else missing[w.name] = why end
  end
  return { peer = "bplua", threads = bp.threads(), versions = { bplua = bp.version }, isa = bp.isa(), workloads = list, missing = missing }
end

io.stdout:setvbuf "line"
for line in io.lines() do
  local words = {}
  for word in line:gmatch "%S+" do words[#words + 1] = math.tointeger(tonumber(word)) or word end
  if words[1] == "quit" then break end
  local command = commands[words[1]] or function() error("unknown command: " .. line, 0) end
  local ok, result = pcall(command, table.unpack(words, 2))
  print(bp.json.encode(ok and result or { error = tostring(result) }))
end
