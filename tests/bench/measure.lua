--- Measures one workload: finds the peers' best configurations, then goes round all of them, A B C A B C, so that a slow minute of the
--- machine meets everyone. What counts is the median over rounds of a ratio within one round.
---
--- The rule for dropping a round, fixed before anything is measured: the multiply-add rate of all cores is taken before and after the
--- round; where the two differ by more than 5 %, the round does not count and another is run, at most as many again as were asked for.
--- Where fewer than three are left, all count and the workload is marked noisy.
local MOVED, FEWEST = 0.05, 3
-- Peers that enter the rounds: the best in scouting, and who comes near it.
local FINALISTS, NEAR = 3, 1.35
local SCOUT_SECONDS = 0.15
-- Who is so many times slower than the best at first sight is not looked at again.
local HOPELESS = 3

local measure = {}

--- The middle of a list, and its ends.
function measure.median(list)
  local sorted = table.move(list, 1, #list, 1, {})
  table.sort(sorted)
  local n = #sorted
  if n == 0 then return nil end
  local middle = n % 2 == 1 and sorted[(n + 1) // 2] or (sorted[n // 2] + sorted[n // 2 + 1]) / 2
  return middle, sorted[1], sorted[n]
end

-- Steps a second in a run of about so many seconds; the number of steps adapts.
local function speed(entry, name, seconds)
  local answer = entry.program:ask("run %s %s %d", name, entry.word, entry.steps)
  if answer.error then return nil, answer.error end
  local each = answer.seconds / answer.steps
  entry.steps = math.max(1, math.min(math.floor(seconds / math.max(each, 1e-9) + 0.5), entry.steps * 50))
  entry.loss, entry.setup = answer.loss, entry.setup or answer.setup_seconds
  return 1 / each
end

-- Everything that can run this workload, as { program, variant, label, ours }.
local function candidates(programs, workload)
  local list = {}
  for _, p in ipairs(programs) do
    for _, variant in ipairs(p:about().workloads[workload.name] or {}) do
      local ours = p.framework:match "^bplua" ~= nil
      local compiles = variant:match "compiled" or variant:match "xla"
      -- Nets that fill both cores are not compiled once more for one.
      if not (compiles and p.threads == 1 and not workload.small and not measure.one_thread_only) then
        list[#list + 1] = { program = p, variant = variant, word = variant:gsub(" ", "_"), ours = ours, steps = 1,
          aside = variant == "inside", -- many steps in one call: shown, and no peer of a loop that is fed from outside
          label = ("%s, %s, %d thread%s"):format((p.framework:gsub(" eager$", "")), variant, p.threads, p.threads > 1 and "s" or "") }
      end
    end
  end
  return list
end

-- Runs each once; keeps ours and the best peers. Returns those, and all that were tried.
local function scout(list, workload, log)
  local tried, kept, best = {}, {}, 0
  for _, entry in ipairs(list) do
    local rate, why = speed(entry, workload.name, SCOUT_SECONDS)
    local hopeless = rate and rate * HOPELESS < best
    for _ = 1, hopeless and 0 or 2 do rate = rate and math.max(rate, speed(entry, workload.name, SCOUT_SECONDS) or 0) end
    entry.scouted, entry.why = rate, why
    tried[#tried + 1] = entry
    if rate and not entry.ours and not entry.aside then best = math.max(best, rate) end
    log("  %-44s %s", entry.label, rate and ("%.4g steps/s"):format(rate) or "failed: " .. why)
  end
  table.sort(tried, function(a, b) return (a.scouted or 0) > (b.scouted or 0) end)
  local finalists = 0
  for _, entry in ipairs(tried) do
    local near = entry.scouted and (entry.ours or entry.aside or entry.scouted * NEAR >= best and finalists < FINALISTS)
    if near and not entry.ours and not entry.aside then finalists = finalists + 1 end
    if near then
      kept[#kept + 1] = entry
      entry.speeds = {}
    else entry.program:ask("drop %s %s", workload.name, entry.word) end
  end
  table.sort(kept, function(a, b)
    if a.ours ~= b.ours then return a.ours end
    return a.label < b.label
  end)
  return kept, tried
end

-- One round; nil when a program failed in it.
local function round(entries, workload, seconds, machine)
  local before = machine:ask "peak"
  local speeds = {}
  for _, entry in ipairs(entries) do
    machine:ask("rest %g", 0.005)
    speeds[entry] = speed(entry, workload.name, workload.seconds or seconds)
    if not speeds[entry] then entry.failed = true end
  end
  local after = machine:ask "peak"
  return { speeds = speeds, p1 = (before.p1 + after.p1) / 2, p = (before.p + after.p) / 2,
    kept = math.abs(after.p / before.p - 1) <= MOVED }
end

--- Measures a workload.
---@param programs table list of programs
---@param workload table of workloads.lua
---@param o table { rounds =, seconds =, machine = the program machine.c, log = function }
---@return table result { entries =, tried =, rounds = kept rounds, dropped =, noisy = }
function measure.workload(programs, workload, o)
  local entries, tried = scout(candidates(programs, workload), workload, o.log)
  local kept, all = {}, {}
  while #entries > 0 and #kept < o.rounds and #all < 2 * o.rounds do
    local r = round(entries, workload, o.seconds, o.machine)
    all[#all + 1] = r
    if r.kept then kept[#kept + 1] = r end
  end
  local noisy = #kept < math.min(FEWEST, o.rounds)
  local counted = noisy and all or kept
  for _, entry in ipairs(entries) do
    for _, r in ipairs(counted) do entry.speeds[#entry.speeds + 1] = r.speeds[entry] end
  end
  return { workload = workload, entries = entries, tried = tried, rounds = counted, dropped = #all - #kept, noisy = noisy,
    cache = o.machine:ask("bandwidth 2").b, memory = o.machine:ask("bandwidth 64").b }
end

--- Lets go of what a workload built in every program.
function measure.forget(result)
  for _, entry in ipairs(result.entries) do entry.program:ask("drop %s %s", result.workload.name, entry.word) end
end

-- ---- what comes out ------------------------------------------------------------------------------------------------------------------

--- Our entry of that kind, or nil: variant "captured", "into", "eager" or "c", with all threads or with one.
function measure.ours(result, variant, one_thread)
  for _, entry in ipairs(result.entries) do
    if entry.ours and entry.variant == variant and (entry.program.threads == 1) == (one_thread or false) then return entry end
  end
  if not one_thread then return measure.ours(result, variant, true) end
end

--- Per counted round a's speed over b's; b is an entry, or nil for the fastest peer of the round.
function measure.ratios(result, a, b)
  local list = {}
  for _, r in ipairs(result.rounds) do
    local than = b and r.speeds[b]
    if not b then
      for _, entry in ipairs(result.entries) do
        if not entry.ours and not entry.aside and r.speeds[entry] then than = math.max(than or 0, r.speeds[entry]) end
      end
    end
    if than and a and r.speeds[a] then list[#list + 1] = r.speeds[a] / than end
  end
  return list
end

--- The peer with the greatest median, or nil.
function measure.best_peer(result)
  local best, most
  for _, entry in ipairs(result.entries) do
    local middle = not entry.ours and not entry.aside and measure.median(entry.speeds)
    if middle and (not most or middle > most) then best, most = entry, middle end
  end
  return best
end

return measure
