--- callbacks.checkpoint: saves the whole state of a training, so that fit can go on from it with the same bits (see bp.checkpoint).
---
---     model:fit{ train, epochs = 50, resume = true, callbacks = { callbacks.checkpoint{ "run/ckpt", every = "500 batches" } } }
---
--- The files are folder/epoch-00012.safetensors, after that epoch, and folder/epoch-00012-batch-000500.safetensors, within it. Each is also
--- a model that bp.load reads. A file is written whole or not at all; when that fails, what was there before is intact.
local checkpoint = require "bp.checkpoint"
local core = require "bp.core"
local monitor = require "bp.callbacks.monitor"
local options = require "bp.options"
local resume = require "bp.resume"
local warning = require "bp.warning"

local spec = options.define("checkpoint", "Saves the whole state of a training.", {
  { "path", "string", required = true, help = "folder for the files; it is made when missing" },
  { "every", "int|string", min = 1, default = 1, named = true,
    help = 'epochs between two files, or "500 batches", "90 seconds", "10 minutes", "1 hour"; there is one at the end in any case' },
  { "keep", "int", min = 1, default = 2, named = true, help = "how many of the newest files stay" },
  { "best", "string", named = true, help = "name of a number in the logs: also keeps best.safetensors, from the epoch where it was best" },
  { "mode", "choice", choices = { "auto", "min", "max" }, default = "auto", named = true,
    help = 'which values of `best` are better; "auto": higher for accuracies and r2' },
  { "on_error", "choice", choices = { "stop", "warn" }, default = "stop", named = true,
    help = 'when a file cannot be written: "stop" raises an error, "warn" trains on and tries again the next time' },
})

local Checkpoint = { __name = "checkpoint", kept = { "best" } }
Checkpoint.__index = Checkpoint

local SECONDS = { second = 1, minute = 60, hour = 3600 }

-- "500 batches" to 500, "batches"; 3 to 3, "epochs".
local function read_every(every)
  if math.type(every) == "integer" then return every, "epochs" end
  local count, unit = every:match "^%s*(%d+%.?%d*)%s*(%a+)%s*$"
  count, unit = tonumber(count), unit and unit:gsub("e?s$", "")
  if unit == "minut" then unit = "minute" end
  if count and count > 0 then
    if unit == "batch" or unit == "step" then return math.max(1, math.tointeger(count) or 1), "batches" end
    if unit == "epoch" then return math.max(1, math.tointeger(count) or 1), "epochs" end
    if SECONDS[unit] then return count * SECONDS[unit], "seconds" end
  end
  spec:fail("option 'every' is %q; expected a number of epochs, \"500 batches\", \"90 seconds\", \"10 minutes\" or \"1 hour\"", every)
end

-- What cannot be written is said at once, and clearly.
local function check(self, ok, message)
  if ok then return true end
  if self.options.on_error == "stop" then core.error("checkpoint: " .. tostring(message)) end
  warning.give("checkpoint: %s; the training goes on without", tostring(message))
  return false
end

-- Checkpoints of an earlier training that this one does not go on from are moved aside, one generation of them.
local function set_aside(self, run)
  local folder = self.options.path
  local list = checkpoint.files(folder) or {}
  if #list == 0 then return end
  local aside = folder .. "/previous"
  core.make_folder(aside)
  for _, old in ipairs(checkpoint.files(aside) or {}) do core.remove_file(old.path) end
  for _, file in ipairs(list) do check(self, core.rename_file(file.path, aside .. "/" .. file.name)) end
  warning.give("checkpoint: %s held checkpoints of an earlier training up to epoch %d, which are now in %s; resume = true would go on from "
    .. "them", folder, list[#list].epoch, aside)
  return run
end

--- Makes sure that the folder can be written before the training begins.
---@private
function Checkpoint:on_train_begin(run)
  local folder = self.options.path
  self.best, self.saved_at, self.last = nil, core.clock(), nil
  local ok, message = core.make_folder(folder)
  if ok then ok, message = core.write_file(folder .. "/.writable", "") end
  if not check(self, ok, message) then return end
  core.remove_file(folder .. "/.writable")
  checkpoint.sweep(folder)
  if not run.resuming then set_aside(self, run) end
end

-- Weights that went wrong never take the place of good ones.
local function finite_weights(run)
  return core.pause(core.scope, core.no_grad, function()
    for _, group in ipairs(run.optimizer.groups) do
      for _, entry in ipairs(group.blocks) do
        if not core.ops.all(core.ops.isfinite(entry.block.data)):item() then return false end
      end
    end
    return true
  end)
end

--- Saves now.
---@param run table
---@return string|nil path nil when that failed and on_error is "warn"
function Checkpoint:save(run)
  local o = self.options
  run.callbacks:after("steps", run) -- a guard looks first: what is saved is good
  if run.failed or not finite_weights(run) then
    warning.give("checkpoint: the weights are not finite any more; the checkpoint before stays the newest")
    return nil
  end
  local path = o.path .. "/" .. checkpoint.name(run.epoch, run.batches and run.batch or nil)
  if not check(self, resume.save(run, path)) then return nil end
  checkpoint.prune(o.path, o.keep)
  self.saved_at, self.last = core.clock(), run.total
  return path
end

local function finite(value) return value == value and math.abs(value) < math.huge end

--- Within an epoch, once everybody has seen the batch.
---@private
function Checkpoint:after_batch(run, read)
  if self.unit == "epochs" then return end
  local due
  if self.unit == "batches" then due = run.total % self.count == 0 else due = core.clock() - self.saved_at >= self.count end
  if due and finite(read().loss) then self:save(run) end
end

local function is_best(self, run, values)
  local o = self.options
  if not o.best or monitor.skipped(run, values, o.best) then return false end
  local value = monitor.value("checkpoint", values, o.best)
  local better = value == value and (self.best == nil or monitor.sign(o.best, o.mode) * (value - self.best) > 0)
  if better then self.best = value end
  return better
end

--- After an epoch, once everybody has seen it.
---@private
function Checkpoint:after_epoch(run, values)
  if not finite(values.loss) or run.failed then return end
  if is_best(self, run, values) then check(self, resume.save(run, self.options.path .. "/best.safetensors")) end
  local last = run.stopped or run.epoch >= run.options.epochs
  if last or self.unit == "epochs" and run.epoch % self.count == 0
    or self.unit == "seconds" and core.clock() - self.saved_at >= self.count then
    self:save(run)
  end
end

--- Saves the whole state of a training, from which fit{ resume = true } goes on.
---@param given string|table the folder, or { path, every = 1, keep = 2, best = "val_loss", on_error = "stop" }
---@return table callback
return function(given, ...)
  local o = spec:read(given, ...)
  local count, unit = read_every(o.every)
  return setmetatable({ options = o, count = count, unit = unit }, Checkpoint)
end
