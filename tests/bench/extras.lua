--- What is measured beside the workloads: start-up, memory of a training step, overhead of a replayed op, allocations of a replayed step.
local measure = require "measure"
local programs = require "programs"

local extras = {}

local function line(list, what, ours, theirs, ratio) list[#list + 1] = { what, ours, theirs, ratio } end

-- Seconds and peak memory of a command, the medians of several starts taken in turns with another's.
local function starts(machine, commands, rounds)
  local seconds, bytes = {}, {}
  for i in ipairs(commands) do seconds[i], bytes[i] = {}, {} end
  for _ = 0, rounds do -- the first one warms the caches of the file system
    for i, command in ipairs(commands) do
      local answer = machine:ask("start exec %s >/dev/null 2>&1", command)
      if answer.error or answer.status ~= 0 then return nil end
      table.insert(seconds[i], answer.seconds)
      table.insert(bytes[i], answer.peak_bytes)
    end
  end
  local result = {}
  for i in ipairs(commands) do
    table.remove(seconds[i], 1)
    result[i] = { seconds = measure.median(seconds[i]), bytes = measure.median(bytes[i]) }
  end
  return result
end

local function start_up(list, o, python)
  local commands = { ("'%s' -e ''"):format(o.bplua), python and ("'%s' -c 'import torch'"):format(python) }
  local r = starts(o.machine, commands, o.rounds)
  if not r and python then r, python = starts(o.machine, { commands[1] }, o.rounds), nil end
  if not r then return end
  local ours, torch = r[1], python and r[2]
  line(list, "start of `bplua -e ''`, beside `python -c 'import torch'`", ("%.1f ms"):format(1e3 * ours.seconds),
    torch and ("%.0f ms"):format(1e3 * torch.seconds), torch and torch.seconds / ours.seconds)
  line(list, "most memory of the two", ("%.1f MB"):format(1e-6 * ours.bytes), torch and ("%.0f MB"):format(1e-6 * torch.bytes),
    torch and torch.bytes / ours.bytes)
end

-- In fresh processes, so that nothing is warm.
local function memory(list, o, ours, torch)
  local function added(p, variant)
    local fresh = programs.Program.open(p.name .. " memory", p.command, o.folder)
    local answer = fresh:ask("memory cnn_mnist %s", variant)
    fresh:close()
    return not answer.error and answer or nil
  end
  local mine = added(ours, "captured")
  local theirs
  for _, variant in ipairs(torch and { "eager_last_default", "eager_last_fused" } or {}) do
    local answer = added(torch, variant)
    if answer and (not theirs or answer.added < theirs.added) then theirs = answer end
  end
  if not mine then return end
  local megabytes = function(n) return ("%.1f MB"):format(1e-6 * n) end
  line(list, "arena of the convolutional net at batch 128, beside what a step of PyTorch adds at its peak", megabytes(mine.arena),
    theirs and megabytes(theirs.added), theirs and theirs.added / mine.arena)
  line(list, "what a step adds to the process at its peak, moments of Adam and gradients included", megabytes(mine.added),
    theirs and megabytes(theirs.added), theirs and theirs.added / mine.added)
end

local function replay(list, ours)
  local answer = ours:ask "op_overhead 200"
  if not answer.error then
    line(list, ("a replayed op of one element (abs, %d in a row)"):format(answer.ops), ("%.0f ns"):format(1e9 * answer.seconds))
  end
  local failed
  for _, name in ipairs{ "mlp_tiny", "mlp_784", "lenet5", "batch_norm", "infer_mlp" } do
    answer = ours:ask("allocations %s 10", name)
    if answer.error or answer.calls ~= 0 then
      failed = ("%s: %s"):format(name, answer.error or answer.calls .. " allocations in 10 steps")
    end
  end
  line(list, "allocations of a replayed step (five workloads)", failed or "0")
  return failed
end

--- Everything, as { what, ours, theirs or nil, ratio or nil }; second result: what must not be, or nil.
---@param all table list of programs
---@param o table { bplua =, machine =, rounds =, folder =, log = }
function extras.measure(all, o)
  local list, ours, torch = {}, all[1], nil
  for _, p in ipairs(all) do
    if p.framework == "torch" and (not torch or p.threads > torch.threads) then torch = p end
  end
  o.log "start-up, memory, replay"
  start_up(list, o, torch and programs.environment() .. "/bin/python")
  memory(list, o, ours, torch)
  return list, replay(list, ours)
end

return extras
