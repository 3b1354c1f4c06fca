--- Measures bplua beside the peers that are installed: bplua tests/bench/run.lua [--rounds 7] [--seconds 0.5] [--table FILE] [WORKLOAD...]
-- Every program stays open and answers one JSON line per command (tests/bench/peers/protocol.py). Runs are interleaved, A B C A B C, so
-- that a slow
-- minute of the machine meets everyone; what counts is the median over rounds of the ratio to the fastest peer of the same round. The
-- peers' Python
-- is $BP_PEERS/bin/python (make bench-peers builds it); without it bplua is measured alone and the peers are named as not measured.
local bp = require "bp"

local rounds, seconds, table_file, only = 7, 0.5, nil, {}
do
  local i = 1
  while arg[i] do
    if arg[i] == "--rounds" then rounds, i = tonumber(arg[i + 1]), i + 1
    elseif arg[i] == "--seconds" then seconds, i = tonumber(arg[i + 1]), i + 1
    elseif arg[i] == "--table" then table_file, i = arg[i + 1], i + 1
    else only[#only + 1] = arg[i] end
    i = i + 1
  end
end

local WORKLOADS = { "mlp_tiny", "mlp_784", "cnn_mnist", "lenet5", "resnet20", "infer_mlp", "infer_cnn" }
-- Multiply-adds times two of one sample, forward and backward; the first layer has no gradient of its input. For the share of the limit.
local MFLOP = { mlp_tiny = 0.001472, mlp_784 = 3.209, cnn_mnist = 71.56, lenet5 = 2.26, resnet20 = 242.4, infer_mlp = 0.000704,
  infer_cnn = 23.98 }

local folder = arg[0]:match "^(.*)/" or "."
local python = (os.getenv "BP_PEERS" or (os.getenv "HOME" or "") .. "/.cache/bplua/peers") .. "/bin/python"
local CONFIGURATIONS = {
  { "bplua", ("'%s' %s/peers/bplua_peer.lua"):format(arg[-1], folder) },
  { "bplua eager", ("'%s' %s/peers/bplua_peer.lua --eager"):format(arg[-1], folder) },
}
local peers_found = io.open(python, "rb")
if peers_found then
  peers_found:close()
  for _, threads in ipairs{ 1, 2 } do
    for _, peer in ipairs{ "torch --layout channels_last", "torch --layout channels_last --optimizer foreach",
      "torch --engine compile --layout channels_last", "jax --loop step", "onnx --call binding" } do
      CONFIGURATIONS[#CONFIGURATIONS + 1] = { ("%s, %d thread%s"):format(peer, threads, threads > 1 and "s" or ""),
        ("'%s' %s/peers/%s --threads %d"):format(python, folder, peer:gsub("^%w+", "%0_peer.py"), threads) }
    end
  end
else print("not measured: PyTorch, JAX, onnxruntime (" .. python .. " is not there; make bench-peers builds it)") end

-- ---- a program that answers ----------------------------------------------------------------------------------------------------------

local Program = {}
Program.__index = Program

function Program.open(name, command)
  local pipe = os.tmpname()
  os.remove(pipe)
  assert(os.execute("mkfifo " .. pipe))
  local self = setmetatable({ name = name, pipe = pipe }, Program)
  self.answers = assert(io.popen(("PYTHONDONTWRITEBYTECODE=1 %s < %s 2>/dev/null"):format(command, pipe)))
  self.commands = assert(io.open(pipe, "w"))
  self.commands:setvbuf "no"
  os.remove(pipe)
  local about = self:ask "list"
  self.workloads = {}
  for _, workload in ipairs(about and about.workloads or {}) do self.workloads[workload] = true end
  self.versions = about and about.versions or {}
  return self
end

function Program:ask(command)
  self.commands:write(command, "\n")
  local line = self.answers:read "l"
  return line and bp.json.decode(line)
end

function Program:close()
  self.commands:close()
  self.answers:close()
end

-- ---- the machine ---------------------------------------------------------------------------------------------------------------------

-- Multiply-add rate of this machine as our matrix product reaches it on a shape that suits it: a stand-in for the peak, measured in the
-- same minute.
local function gflops(threads)
  local before = bp.threads()
  bp.threads(threads)
  local a, b = bp.randn(768, 512), bp.randn(512, 768)
  local best = 0
  for _ = 1, 8 do
    local start = os.clock()
    local wall = require("bp.core").clock()
    for _ = 1, 4 do
      local c <close> = a:matmul(b) -- luacheck: ignore 211
    end
    wall = require("bp.core").clock() - wall
    if os.clock() >= start then best = math.max(best, 4 * 2 * 768 * 512 * 768 / wall / 1e9) end
  end
  bp.threads(before)
  return best
end

-- ---- measuring -----------------------------------------------------------------------------------------------------------------------

local function median(list)
  table.sort(list)
  local n = #list
  return n % 2 == 1 and list[(n + 1) // 2] or (list[n // 2] + list[n // 2 + 1]) / 2
end

local function steps_for(program, workload)
  local answer = program:ask(("run %s 3"):format(workload))
  if not answer or answer.error then return nil, answer and answer.error or "ended" end
  answer = program:ask(("run %s %d"):format(workload, math.max(3, math.floor(0.3 / answer.seconds))))
  return math.max(1, math.floor(seconds * answer.steps / answer.seconds + 0.5))
end

local function measure(workload, programs)
  local steps, runs = {}, {}
  for _, p in ipairs(programs) do
    if p.workloads[workload] then
      local n, message = steps_for(p, workload)
      if n then steps[p], runs[p] = n, {} else io.stderr:write(("%s: %s: %s\n"):format(p.name, workload, message)) end
    end
  end
  local ratios = {}
  for round = 1, rounds do
    local ours, best = nil, 0
    for _, p in ipairs(programs) do
      if steps[p] then
        local answer = p:ask(("run %s %d"):format(workload, steps[p]))
        runs[p][round] = answer.samples_per_second
        if p.name == "bplua" then ours = answer.samples_per_second
        elseif not p.name:match "^bplua" then best = math.max(best, answer.samples_per_second) end
        p.loss = answer.loss
      end
    end
    if best > 0 then ratios[#ratios + 1] = ours / best end
  end
  return runs, ratios
end

local wanted = {}
for _, name in ipairs(#only > 0 and only or WORKLOADS) do wanted[#wanted + 1] = name end
local programs = {}
for _, c in ipairs(CONFIGURATIONS) do programs[#programs + 1] = Program.open(c[1], c[2]) end

local lines = {}
local function say(...)
  lines[#lines + 1] = string.format(...)
  print(lines[#lines])
end

local one, all = gflops(1), gflops(bp.threads())
say("bplua %s, kernels %s, %d threads; matrix product: %.0f GFLOP/s on one thread, %.0f on %d", bp.version, bp.isa(), bp.threads(),
  one, all, bp.threads())
for _, p in ipairs(programs) do
  for name, version in pairs(p.versions) do
    if name ~= "bplua" then say("%s: %s %s", p.name, name, version) end
  end
end
say("")
say("| workload | program | samples/s, median | least | most | last loss | share of P |")
say("|--|--|--|--|--|--|--|")
local summary = {}
for _, workload in ipairs(wanted) do
  local runs, ratios = measure(workload, programs)
  for _, p in ipairs(programs) do
    local speeds = runs[p]
    if speeds and #speeds > 0 then
      local mid = median(speeds)
      local loss = type(p.loss) == "number" and ("%.4f"):format(p.loss) or ""
      say("| %s | %s | %.0f | %.0f | %.0f | %s | %.0f %% |", workload, p.name, mid, speeds[1], speeds[#speeds], loss,
        100 * mid * MFLOP[workload] / 1000 / all)
    end
  end
  if #ratios > 0 then
    local mid = median(ratios)
    summary[#summary + 1] = ("| %s | %.2f | %.2f .. %.2f |"):format(workload, mid, ratios[1], ratios[#ratios])
  end
end
if #summary > 0 then
  say("")
  say("| workload | times the best peer of the same round, median | range |")
  say("|--|--|--|")
  for _, line in ipairs(summary) do say("%s", line) end
end
for _, p in ipairs(programs) do p:close() end
if table_file then
  local f <close> = assert(io.open(table_file, "w"))
  f:write(table.concat(lines, "\n"), "\n")
end
