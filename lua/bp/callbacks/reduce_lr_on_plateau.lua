--- callbacks.reduce_lr_on_plateau: lowers the learning rate when a number has not become better for some epochs.
local core = require "bp.core"
local logs = require "bp.logs"
local monitor = require "bp.callbacks.monitor"
local options = require "bp.options"
local schedule = require "bp.optim.schedule"

local fields = monitor.fields()
table.move({
  { "factor", "number", above = 0, below = 1, default = 0.1, named = true, help = "what the rate is multiplied with" },
  { "patience", "int", min = 0, default = 10, named = true, help = "epochs without becoming better before the rate falls" },
  { "min_delta", "number", min = 0, default = 1e-4, named = true, help = "a smaller change does not count as better" },
  { "threshold_mode", "choice", choices = { "abs", "rel" }, default = "abs",
    named = true, help = '"rel": min_delta is a share of the best value, as in PyTorch' },
  { "cooldown", "int", min = 0, default = 0, named = true, help = "epochs after a change that are not counted" },
  { "min_lr", "number", min = 0, default = 0, named = true, help = "the rate falls no lower" },
}, 1, 6, #fields + 1, fields)
local spec = options.define("reduce_lr_on_plateau", "Lowers the learning rate when a number stops becoming better.", fields)

local Reduce = { __name = "reduce_lr_on_plateau", kept = { "best", "wait", "cooldown" } }
Reduce.__index = Reduce

function Reduce:on_train_begin(run)
  if schedule.is_dynamic(run.optimizer.options.lr) then
    core.error("reduce_lr_on_plateau: the optimizer's learning rate follows a schedule; make the optimizer with a number, "
      .. "or leave one of them out")
  end
  self.best, self.wait, self.cooldown = nil, 0, 0
end

local function is_better(self, value)
  if value ~= value then return false end
  if self.best == nil then return true end
  local o = self.options
  local delta = o.threshold_mode == "rel" and o.min_delta * math.abs(self.best) or o.min_delta
  return self.sign * (value - self.best) > delta
end

function Reduce:on_epoch_end(_, values, run)
  local o = self.options
  if monitor.skipped(run, values, o.monitor) then return end
  local value = monitor.value("reduce_lr_on_plateau", values, o.monitor)
  if self.cooldown > 0 then
    self.cooldown, self.wait = self.cooldown - 1, 0
  end
  if is_better(self, value) then
    self.best, self.wait = value, 0
  elseif self.cooldown == 0 then
    self.wait = self.wait + 1
    local old = run.optimizer:get_lr()
    if self.wait >= o.patience and old > o.min_lr then
      local new = math.max(o.min_lr, old * o.factor)
      for g, group in ipairs(run.optimizer.groups) do
        run.optimizer:set_lr(math.max(o.min_lr, group.options.lr * o.factor), g)
      end
      self.wait, self.cooldown = 0, o.cooldown
      run.notes = ("lr %s"):format(logs.format(new))
    end
  end
  logs.set(values, "lr", run.optimizer:get_lr())
end

--- Lowers the learning rate when a number has not become better for `patience` epochs.
---@param given table|nil { monitor = "val_loss", factor = 0.1, patience = 10, min_delta = 1e-4, mode = "auto", cooldown = 0, min_lr = 0 }
---@return table callback
return function(given, ...)
  local o = spec:read(given, ...)
  return setmetatable({ options = o, sign = monitor.sign(o.monitor, o.mode) }, Reduce)
end
