--- callbacks.lr_schedule: sets the learning rate at the beginning of every epoch. (optim.adam{ lr = schedule } follows one step by step.)
local core = require "bp.core"
local logs = require "bp.logs"
local options = require "bp.options"

local spec = options.define("lr_schedule", "Sets the learning rate at the beginning of every epoch.", {
  { "schedule", "function", required = true,
    help = "a function (epoch, rate) -> rate, or a schedule of optim.schedule, whose steps are epochs" },
})

local Schedule = { __name = "lr_schedule" }
Schedule.__index = Schedule

function Schedule:on_epoch_begin(epoch, run)
  local rate = self.options.schedule(epoch, run.optimizer:get_lr())
  if type(rate) ~= "number" or rate ~= rate or rate < 0 then
    core.error(("lr_schedule: the schedule returned %s for epoch %d; expected a number at least 0"):format(options.describe(rate), epoch))
  end
  run.optimizer:set_lr(rate)
end

function Schedule.on_epoch_end(_, _, values, run) logs.set(values, "lr", run.optimizer:get_lr()) end

--- Sets the learning rate at the beginning of every epoch.
---@param given function|table function (epoch, rate) -> rate, or a schedule
---@return table callback
return function(given, ...)
  return setmetatable({ options = spec:read(given, ...) }, Schedule)
end
