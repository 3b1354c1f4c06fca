--- Runs the callbacks of a fit. A callback is a table with any of the functions
---   on_train_begin(self, run), on_train_end(self, run)
---   on_epoch_begin(self, epoch, run), on_epoch_end(self, epoch, logs, run)
---   on_batch_begin(self, batch, run), on_batch_end(self, batch, logs, run)
--- run has model, optimizer, history, epoch, options, and run:stop(reason), which ends the training after the step at hand. run.notes may
--- be set to a text that the line of the epoch ends with.
local core = require "bp.core"
local options = require "bp.options"

local list = {}

local known = { "on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end" }
local is_known = {}
for _, name in ipairs(known) do is_known[name] = true end

local List = {}
List.__index = List

local function check(callback, i)
  if type(callback) ~= "table" then
    core.error(("fit: callback %d is %s; expected a table with functions on_..."):format(i, options.describe(callback)))
  end
  for key in pairs(callback) do
    if type(key) == "string" and key:find("^on_") and not is_known[key] then
      core.error(("fit: callback %d has '%s', which is never called%s"):format(i, key, options.hint(key, known)))
    end
  end
end

--- A list of callbacks ready to run.
---@param callbacks table|nil what fit was given: a list, or one callback alone
---@return table list
function list.new(callbacks)
  local self = setmetatable({}, List)
  if callbacks and callbacks[1] == nil and next(callbacks) ~= nil then callbacks = { callbacks } end
  for i, callback in ipairs(callbacks or {}) do
    check(callback, i)
    self[i] = callback
  end
  self.wants_batches = false
  for _, callback in ipairs(self) do
    if callback.on_batch_begin or callback.on_batch_end then self.wants_batches = true end
  end
  return self
end

local function each(self, name, ...)
  for _, callback in ipairs(self) do
    local fn = callback[name]
    if fn then fn(callback, ...) end
  end
end

--- Calls on_train_begin or on_train_end.
---@private
function List:train(when, run) each(self, "on_train_" .. when, run) end

--- Calls on_epoch_begin or on_epoch_end.
---@private
function List:epoch(when, epoch, run, logs)
  if when == "begin" then each(self, "on_epoch_begin", epoch, run) else each(self, "on_epoch_end", epoch, logs, run) end
end

--- Calls on_batch_begin or on_batch_end; read() gives the logs, and runs only when somebody listens.
---@private
function List:batch(when, batch, run, read)
  if not self.wants_batches then return end
  if when == "begin" then each(self, "on_batch_begin", batch, run) else each(self, "on_batch_end", batch, read(), run) end
end

return list
