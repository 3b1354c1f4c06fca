--- callbacks.time_limit: ends a training after some time, after the batch at hand. With callbacks.checkpoint the state is saved, and a
--- later fit{ resume = true } goes on from there, with a time of its own: for jobs that a scheduler cuts into pieces.
local core = require "bp.core"
local options = require "bp.options"

local spec = options.define("time_limit", "Ends a training after some time.", {
  { "seconds", "number", min = 0, default = 0, help = "seconds since this fit began" },
  { "minutes", "number", min = 0, default = 0, named = true, help = "added to them" },
  { "hours", "number", min = 0, default = 0, named = true, help = "added to them" },
})

local Limit = { __name = "time_limit" }
Limit.__index = Limit

function Limit:on_train_begin() self.start = core.clock() end

local function look(self, run)
  if run.stopped or core.clock() - self.start < self.limit then return end
  run.unfinished = true -- a resumed training goes on
  run:stop(("time_limit: %g seconds are over"):format(self.limit))
end

--- Within an epoch.
---@private
function Limit:after_step(run) look(self, run) end
function Limit:on_epoch_end(_, _, run) look(self, run) end

--- Ends a training after some time.
---@param given number|table seconds, or { seconds, minutes =, hours = }
---@return table callback
return function(given, ...)
  local o = spec:read(given, ...)
  local limit = o.seconds + 60 * o.minutes + 3600 * o.hours
  if limit == 0 then spec:fail("the time is 0; expected seconds, minutes or hours") end
  return setmetatable({ options = o, limit = limit }, Limit)
end
