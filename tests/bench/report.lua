--- Tables of a run, as text for the terminal and as markdown for docs/speed.md.
local bp = require "bp"
local learn = require "learn"
local measure = require "measure"
local workloads = require "workloads"

local report = {}

local function number(x)
  if x >= 1000 then
    local text = ("%.0f"):format(x)
    local grouped = text:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", "")
    return grouped
  end
  return ("%.3g"):format(x)
end

local function seconds(x)
  if x >= 1 then return ("%.3g s"):format(x) end
  if x >= 1e-3 then return ("%.3g ms"):format(1e3 * x) end
  return ("%.3g us"):format(1e6 * x)
end

--- "2.31 (2.21 .. 2.66)", or "" of an empty list.
local function ratio(list)
  local middle, least, most = measure.median(list)
  return middle and ("%.2f (%.2f .. %.2f)"):format(middle, least, most) or ""
end

--- Markdown of a table.
---@param head table names of columns
---@param rows table lists of text
function report.table(head, rows)
  local lines = { "| " .. table.concat(head, " | ") .. " |", ("|--"):rep(#head) .. "|" }
  for _, row in ipairs(rows) do lines[#lines + 1] = "| " .. table.concat(row, " | ") .. " |" end
  return table.concat(lines, "\n") .. "\n"
end

-- ---- the machine and the programs ----------------------------------------------------------------------------------------------------

local function first_line(command)
  local p = io.popen(command .. " 2>/dev/null")
  local text = p and p:read "l"
  if p then p:close() end
  return text
end

--- Processor, system, date, versions.
function report.head(all, options)
  local cpu = first_line "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo" or first_line "uname -m"
  local system = first_line "sed -n 's/^PRETTY_NAME=\"\\(.*\\)\"/\\1/p' /etc/os-release" or first_line "uname -sr"
  local versions, seen = {}, {}
  for _, p in ipairs(all) do
    for name, version in pairs(p:about().versions) do
      if not seen[name] then versions[#versions + 1] = name .. " " .. version end
      seen[name] = true
    end
  end
  table.sort(versions)
  local commit = first_line "git rev-parse --short HEAD"
  return ("Measured on %s by `make bench%s`: %s, %s, kernels %s, %d threads%s. %s.\n"):format(os.date "!%Y-%m-%d", options, cpu, system,
    bp.isa(), bp.threads(), commit and ", commit " .. commit or "", table.concat(versions, ", "))
end

function report.machine(results)
  local p1, p, cache, memory = {}, {}, {}, {}
  for _, r in ipairs(results) do
    for _, each in ipairs(r.rounds) do p1[#p1 + 1], p[#p + 1] = each.p1, each.p end
    cache[#cache + 1], memory[#memory + 1] = r.cache, r.memory
  end
  local function row(name, unit, list)
    local middle, least, most = measure.median(list)
    return { name, ("%.1f %s"):format(middle or 0, unit), ("%.1f .. %.1f"):format(least or 0, most or 0) }
  end
  return report.table({ "the machine in this run", "median", "range" }, { row("P1, multiply-adds of one core", "GFLOP/s", p1),
    row("P, of all cores at once", "GFLOP/s", p), row("B in the caches (triad over 6 MB)", "GB/s", cache),
    row("B in main memory (triad over 192 MB)", "GB/s", memory) })
end

-- ---- workloads -----------------------------------------------------------------------------------------------------------------------

-- Seconds of the limit of a result, from the machine of its own rounds.
local function limit(r)
  local p = {}
  for _, each in ipairs(r.rounds) do p[#p + 1] = each.p end
  return workloads.limit(r.workload, { p = measure.median(p) or 1, cache = r.cache, memory = r.memory })
end

--- One line per workload: against the best peer of the same round, and against the limit.
function report.summary(results)
  local rows = {}
  for _, r in ipairs(results) do
    local ours, peer, w = measure.ours(r, "captured"), measure.best_peer(r), r.workload
    local speed = ours and measure.median(ours.speeds)
    if speed then
      local compute, traffic = limit(r)
      local single = measure.ours(r, "captured", true)
      local c = measure.ours(r, "c")
      rows[#rows + 1] = { w.title .. (r.noisy and " (noisy)" or ""), number(speed * w.batch) .. (w.unit and " " .. w.unit or ""),
        peer and ("%s, %s"):format(number(measure.median(peer.speeds) * w.batch), peer.label) or "not measured",
        ratio(measure.ratios(r, ours, nil)), ("%.3g %%"):format(100 * (compute + traffic) * speed),
        single and single ~= ours and ratio(measure.ratios(r, ours, single)) or "", ("%d, %d"):format(#r.rounds, r.dropped) }
      local into = measure.ours(r, "into")
      if into and into.speeds[1] then
        local alone = measure.ours(r, "into", true)
        rows[#rows + 1] = { w.title .. ", into a tensor given", number(measure.median(into.speeds)), "the same",
          ratio(measure.ratios(r, into, nil)), ("%.3g %%"):format(100 * (compute + traffic) * measure.median(into.speeds)),
          alone and alone ~= into and ratio(measure.ratios(r, into, alone)) or "", "" }
      end
      if c and c.speeds[1] then
        rows[#rows + 1] = { w.title .. ", from C", number(measure.median(c.speeds)), "the same", ratio(measure.ratios(r, c, nil)),
          ("%.3g %%"):format(100 * (compute + traffic) * measure.median(c.speeds)), "", "" }
      end
    end
  end
  return report.table({ "workload", "bplua, captured, samples/s", "best peer", "times the best peer of the same round", "of the limit",
    "two threads over one", "rounds, dropped" }, rows)
end

--- The arithmetic behind the limit.
function report.roofline(results)
  local rows = {}
  for _, r in ipairs(results) do
    local ours, w = measure.ours(r, "captured"), r.workload
    local speed = ours and measure.median(ours.speeds)
    if speed then
      local compute, traffic = limit(r)
      rows[#rows + 1] = { w.name, ("%.4g"):format(1e-6 * w.flops), ("%.3g"):format(1e-6 * w.moved), seconds(compute), seconds(traffic),
        seconds(1 / speed), w.bound }
    end
  end
  return report.table({ "workload", "MFLOP a step", "MB the optimizer moves", "F/P", "Q/B", "a step takes", "what bounds it" }, rows)
end

--- Every program of the rounds.
function report.everyone(results)
  local rows = {}
  for _, r in ipairs(results) do
    for _, entry in ipairs(r.entries) do
      local middle, least, most = measure.median(entry.speeds)
      if middle then
        local b = r.workload.batch
        rows[#rows + 1] = { r.workload.name, entry.label .. (entry.aside and " (all steps in one call)" or ""), number(middle * b),
          ("%s .. %s"):format(number(least * b), number(most * b)), entry.setup and seconds(entry.setup) or "" }
      end
    end
  end
  return report.table({ "workload", "program", "samples/s, median", "range", "first step, compiling and warming up" }, rows)
end

--- Returns the table, and how many were unlike.
function report.learning(results)
  local rows, unlike = {}, 0
  for _, r in ipairs(results) do
    for _, l in ipairs(r.learning or {}) do
      if not l.alike then unlike = unlike + 1 end
      rows[#rows + 1] = { r.workload.name, tostring(r.workload.learn[1]), l.ours and ("%.4g"):format(l.ours) or "", l.peer,
        l.theirs and ("%.4g"):format(l.theirs) or "", l.allowed and ("%.2g"):format(l.allowed) or "",
        l.error or (l.alike and "alike" or "NOT ALIKE") }
    end
  end
  return #rows > 0 and report.table({ "workload", "steps", "our loss", "peer", "its loss", "difference allowed", "" }, rows) or "", unlike
end

function report.extras(list)
  local rows = {}
  for _, l in ipairs(list) do rows[#rows + 1] = { l[1], l[2], l[3] or "not measured", l[4] and ("%.3g"):format(l[4]) or "" } end
  return report.table({ "beside the workloads", "bplua", "PyTorch", "ratio" }, rows)
end

--- What was not measured, with the reason.
function report.missing(missing)
  local lines = {}
  for name, why in pairs(missing) do lines[#lines + 1] = ("- not measured: %s: %s\n"):format(name, why) end
  table.sort(lines)
  return table.concat(lines)
end

-- ---- into a page ---------------------------------------------------------------------------------------------------------------------

--- Puts text between <!-- NAME: begin --> and <!-- NAME: end --> of a file.
function report.insert(path, name, text)
  local f = assert(io.open(path, "r"))
  local page = f:read "a"
  f:close()
  local first, last = ("<!-- %s: begin -->"):format(name), ("<!-- %s: end -->"):format(name)
  local _, from = page:find(first, 1, true)
  local to = from and page:find(last, from, true)
  if not to then error(("%s has no place for it: %s and %s"):format(path, first, last)) end
  f = assert(io.open(path, "w"))
  f:write(page:sub(1, from), "\n", text, page:sub(to))
  f:close()
end

report.number, report.ratio, report.learn = number, ratio, learn
return report
