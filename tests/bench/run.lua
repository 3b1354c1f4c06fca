--- Measures bplua beside the peers that make bench-peers has installed: bplua tests/bench/run.lua [OPTION...] [WORKLOAD...]
---
---     --list            names the workloads and ends
---     --rounds N        rounds of a workload that must count (default 7)
---     --seconds S       of one program's run within a round (default 0.3)
---     --peers A,B       of torch, keras, jax, onnxruntime, kann (default all; "none": bplua alone)
---     --threads 1,2     thread counts of the peers (default 1 and all)
---     --no-learning     skips the check that both sides learn alike
---     --no-extras       skips start-up, memory and replay
---     --write FILE      puts the tables between the marks of a page (docs/speed.md)
---     --sweep           single layers of many shapes instead of the workloads (sweep.lua)
---
--- Ends with 1 when two sides do not learn alike or a replayed step allocates.
local folder = arg[0]:match "^(.*)/" or "."
package.path = folder .. "/?.lua;" .. package.path
local bp = require "bp"
local core = require "bp.core"
local data = require "data"
local extras = require "extras"
local learn = require "learn"
local measure = require "measure"
local programs = require "programs"
local report = require "report"
local workloads = require "workloads"

local function fail(...)
  io.stderr:write("bench: ", string.format(...), "\n")
  os.exit(false)
end

local function split(text)
  local list = {}
  for word in text:gmatch "[^,%s]+" do list[#list + 1] = word end
  return list
end

local FLAGS = { ["--list"] = "list", ["--no-learning"] = "no_learning", ["--no-extras"] = "no_extras", ["--sweep"] = "sweep" }
local NUMBERS = { ["--rounds"] = "rounds", ["--seconds"] = "seconds" }
local TEXTS = { ["--peers"] = "peers", ["--threads"] = "threads", ["--write"] = "write" }

local function read_options(words)
  local o, i = { rounds = 7, seconds = 0.3, names = {} }, 1
  while words[i] do
    local word = words[i]
    if FLAGS[word] then o[FLAGS[word]] = true elseif NUMBERS[word] or TEXTS[word] then
      i = i + 1
      local value = words[i]
      if NUMBERS[word] then value = tonumber(value) end
      if not value or value == 0 then fail("%s needs a %s", word, NUMBERS[word] and "number above 0" or "value") end
      o[NUMBERS[word] or TEXTS[word]] = value
    elseif word:match "^%-" then fail("no option %s; the head of %s lists them", word, arg[0])
    elseif workloads.by_name[word] then table.insert(o.names, word)
    else fail("no workload called %s; --list names them", word) end
    i = i + 1
  end
  o.peers = o.peers == "none" and {} or o.peers and split(o.peers) or programs.PEERS
  for _, peer in ipairs(o.peers) do
    if not table.concat(programs.PEERS, " "):find(peer, 1, true) then
      fail("no peer called %s; there are %s", peer, table.concat(programs.PEERS, ", "))
    end
  end
  local all = bp.threads()
  o.threads = o.threads and split(o.threads) or all > 1 and { all, 1 } or { 1 }
  for k, v in ipairs(o.threads) do o.threads[k] = math.tointeger(tonumber(v)) or fail("--threads: %s is no number", v) end
  measure.one_thread_only = #o.threads == 1 and o.threads[1] == 1
  return o
end

local o = read_options(arg)
if o.list then
  for _, w in ipairs(workloads.list) do print(("%-14s %s"):format(w.name, w.title)) end
  os.exit(true)
end

local started = core.clock()
local function log(...) io.stderr:write(("%5.0f s  "):format(core.clock() - started), string.format(...), "\n") end

local scratch = os.tmpname()
os.remove(scratch)
assert(os.execute(("mkdir -p '%s'"):format(scratch)))
local built = arg[-1]:match "^(.*)/" or "."
local machine_program, c_program = built .. "/tests/bench/machine", built .. "/tests/bench/infer"
if not io.open(machine_program, "rb") then fail("%s is not built; use make bench", machine_program) end

local machine = programs.Program.open("machine", ("'%s'"):format(machine_program), scratch)
local all, missing = programs.open_all{ folder = scratch, bplua = arg[-1], scripts = folder, peers = o.peers, threads = o.threads,
  c_program = io.open(c_program, "rb") and c_program or nil }
for _, peer in ipairs(programs.PEERS) do
  if not missing[peer] and not (table.concat(o.peers, " ") .. " "):find(peer .. " ", 1, true) then missing[peer] = "not asked for" end
end

local function finish(ok)
  for _, p in ipairs(all) do p:close() end
  machine:close()
  os.execute(("rm -rf '%s'"):format(scratch))
  os.exit(ok)
end

local settings = { rounds = o.rounds, seconds = o.seconds, machine = machine, log = log, bplua = arg[-1], folder = scratch }

if o.sweep then
  local text = require("sweep").run(all, settings)
  text = report.head(all, "-sweep") .. "\n" .. text .. report.missing(missing)
  print("\n" .. text)
  if o.write then report.insert(o.write, "sweep", text) end
  finish(true)
end

local names = #o.names > 0 and o.names or {}
if #names == 0 then
  for _, w in ipairs(workloads.list) do names[#names + 1] = w.name end
end
data.write(scratch, names)

local results = {}
for _, name in ipairs(names) do
  local workload = workloads.by_name[name]
  local why = (all[1]:about().missing or {})[name]
  if why then missing[name] = why else
    log("%s", name)
    local r = measure.workload(all, workload, settings)
    r.learning = {}
    local ours, best = measure.ours(r, "captured"), measure.best_peer(r)
    local middle, least, most = measure.median(measure.ratios(r, ours, nil))
    if middle then
      log("  %.2f times the best peer (%.2f .. %.2f): %s; %d rounds, %d dropped", middle, least, most, best.label, #r.rounds, r.dropped)
    end
    measure.forget(r)
    if workload.learn and not o.no_learning and ours then
      for _, peer in ipairs(learn.peers(r, best)) do
        local l = learn.compare(workload, ours, peer)
        log("  learning beside %s: %s", peer.label,
          l.error or ("%.4g and %.4g: %s"):format(l.ours, l.theirs, l.alike and "alike" or "NOT ALIKE"))
        table.insert(r.learning, l)
      end
    end
    results[#results + 1] = r
  end
end

local beside, wrong = nil, nil
if not o.no_extras then
  data.write(scratch, { "cnn_mnist", "mlp_tiny", "mlp_784", "lenet5", "batch_norm", "infer_mlp" })
  beside, wrong = extras.measure(all, settings)
end

local learning, unlike = report.learning(results)
local options = #o.names > 0 and (" BENCH_FLAGS=\"%s\""):format(table.concat(arg, " ")) or ""
local text = table.concat({ report.head(all, options), report.machine(results), report.summary(results),
  beside and report.extras(beside) or "", report.roofline(results), learning, report.everyone(results), report.missing(missing) }, "\n")
print("\n" .. text)
if o.write then report.insert(o.write, "bench", text) end
if unlike > 0 then io.stderr:write(("bench: %d comparisons do not learn alike\n"):format(unlike)) end
if wrong then io.stderr:write(("bench: a replayed step allocates: %s\n"):format(wrong)) end
finish(unlike == 0 and not wrong)
