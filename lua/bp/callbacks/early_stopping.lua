--- callbacks.early_stopping: ends the training when a number has not become better for some epochs, and goes back to the best weights.
local logs = require "bp.logs"
local monitor = require "bp.callbacks.monitor"
local options = require "bp.options"

local fields = monitor.fields()
table.move({
  { "patience", "int", min = 0, default = 0, named = true, help = "epochs without becoming better that are put up with" },
  { "relative_patience", "number", min = 1, named = true,
    help = "instead of patience: stop when the epochs are more than so many times the best epoch, as 1.5 or 2" },
  { "min_delta", "number", min = 0, default = 0, named = true, help = "a smaller change does not count as better" },
  { "baseline", "number", named = true, help = "a value that has to be beaten before anything counts as better" },
  { "start_from_epoch", "int", min = 0, default = 0, named = true, help = "epochs at the start that are not looked at" },
  { "restore_best_weights", "boolean", default = true,
    named = true, help = "end with the weights of the best epoch, also when the training was not cut short" },
}, 1, 6, #fields + 1, fields)
local spec = options.define("early_stopping", "Ends the training when a number stops becoming better.", fields)

local EarlyStopping = { __name = "early_stopping", kept = { "best", "best_epoch", "wait", "weights" } }
EarlyStopping.__index = EarlyStopping

function EarlyStopping:on_train_begin()
  self.best, self.best_epoch, self.wait, self.weights = self.options.baseline, nil, 0, nil
end

local function is_better(self, value)
  if value ~= value then return false end
  if self.best == nil then return true end
  return self.sign * (value - self.best) > self.options.min_delta
end

function EarlyStopping:on_epoch_end(epoch, values, run)
  local o = self.options
  if epoch <= o.start_from_epoch then return end
  if monitor.skipped(run, values, o.monitor) then return end
  local value = monitor.value("early_stopping", values, o.monitor)
  if is_better(self, value) then
    self.best, self.best_epoch, self.wait = value, epoch, 0
    if o.restore_best_weights then self.weights = run.model:get_weights(self.weights) end
    return
  end
  self.wait = self.wait + 1
  local over = self.wait >= math.max(1, o.patience)
  if o.relative_patience then over = epoch > o.relative_patience * math.max(self.best_epoch or 1, o.start_from_epoch) end
  if over then
    run:stop(("early stopping: %s did not become better than %s of epoch %s in %d epochs")
      :format(o.monitor, logs.format(self.best), self.best_epoch or "none", self.wait))
  end
end

function EarlyStopping:on_train_end(run)
  if self.weights and self.best_epoch ~= run.epoch then
    run.model:set_weights(self.weights)
    run.restored = ("the weights are those of epoch %d, the best: %s %s")
      :format(self.best_epoch, self.options.monitor, logs.format(self.best))
  end
  self.weights = nil
end

--- Ends the training when a number has not become better for `patience` epochs; ends with the weights of the best epoch.
---@param given table|nil { monitor = "val_loss", patience = 0, relative_patience =, min_delta = 0, mode = "auto", baseline =,
--- start_from_epoch = 0, restore_best_weights = true }
---@return table callback after the training: best, best_epoch
return function(given, ...)
  local o = spec:read(given, ...)
  return setmetatable({ options = o, sign = monitor.sign(o.monitor, o.mode) }, EarlyStopping)
end
