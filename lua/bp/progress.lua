--- What fit shows while it runs: a bar on stderr where that is a terminal, else one plain line per epoch on stdout.
---@internal
local core = require "bp.core"
local logs = require "bp.logs"

local progress = {}

local BAR = 20           -- characters
local INTERVAL = 0.1     -- seconds between two drawings

local Bar = {}
Bar.__index = Bar

-- Time as a reader wants it: 12ms, 3.4s, 2m05s.
local function duration(seconds)
  if seconds < 1e-3 then return ("%.0fus"):format(seconds * 1e6) end
  if seconds < 1 then return ("%.0fms"):format(seconds * 1e3) end
  if seconds < 60 then return ("%.1fs"):format(seconds) end
  if seconds < 3600 then return ("%dm%02ds"):format(seconds // 60, math.floor(seconds % 60)) end
  return ("%dh%02dm"):format(seconds // 3600, math.floor(seconds % 3600 // 60))
end
progress.duration = duration

local function numbers(values)
  local parts = {}
  for i, key in ipairs(logs.keys(values)) do parts[i] = ("%s: %s"):format(key, logs.format(values[key])) end
  return table.concat(parts, " - ")
end

-- "bar", "lines" or nothing.
local function style(verbose)
  local io = package.loaded.io
  if not io or verbose == 0 then return nil end
  if verbose == 2 then return "lines" end
  return (verbose == 1 or core.isatty(2)) and "bar" or "lines"
end

--- The display of one fit.
---@param verbose integer|string as in fit
---@param epochs integer
---@param steps integer per epoch
---@return table bar
function progress.new(verbose, epochs, steps)
  return setmetatable({ style = style(verbose), epochs = epochs, steps = steps, drawn = -math.huge, width = 0 }, Bar)
end

function Bar:begin_epoch(epoch)
  self.start = core.clock()
  self.epoch = epoch
end

-- Overwrites the line; what was longer before is blanked out.
function Bar:line(text, finished)
  local columns = core.columns(2) or 100
  if not finished and #text >= columns then text = text:sub(1, columns - 1) end
  local blank = (" "):rep(math.max(0, self.width - #text))
  package.loaded.io.stderr:write("\r", text, blank, finished and "\n" or "")
  self.width = finished and 0 or #text
end

--- Whether steps are shown at all.
---@return boolean
function Bar:draws_steps() return self.style == "bar" end

--- Shows a step when the last drawing is long enough ago; read() gives the logs.
---@param step integer
---@param read function
function Bar:step(step, read)
  local now = core.clock()
  if now - self.drawn < INTERVAL then return end
  self.drawn = now
  local full = BAR * step // self.steps
  local each = (now - self.start) / step
  self:line(("epoch %d/%d %d/%d [%s%s] eta %s - %s/step - %s")
    :format(self.epoch, self.epochs, step, self.steps, ("="):rep(full), ("."):rep(BAR - full),
    duration(each * (self.steps - step)), duration(each), numbers(read())))
end

--- The line of a finished epoch.
---@param epoch integer
---@param values table logs
---@param notes string|nil
function Bar:end_epoch(epoch, values, notes)
  if not self.style then return end
  local taken = core.clock() - self.start
  local text = ("epoch %d/%d - %s - %s/step - %s%s")
    :format(epoch, self.epochs, duration(taken), duration(taken / self.steps), numbers(values),
    notes and " - " .. notes or "")
  if self.style == "bar" then self:line(text, true) else print(text) end
end

--- A line of its own.
---@param text string
function Bar:say(text)
  if not self.style then return end
  if self.style == "bar" then self:line(text, true) else print(text) end
end

--- Says why a training ended early.
---@param run table
function Bar:finish(run)
  if run.stopped then self:say(("stopped after epoch %d: %s"):format(run.epoch, run.stopped)) end
  if run.restored then self:say(run.restored) end
end

return progress
