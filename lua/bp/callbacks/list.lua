--- Runs the callbacks of a fit. A callback is a table with any of the functions
---   on_train_begin(self, run), on_train_end(self, run)
---   on_epoch_begin(self, epoch, run), on_epoch_end(self, epoch, logs, run)
---   on_batch_begin(self, batch, run), on_batch_end(self, batch, logs, run)
--- run has model, optimizer, history, epoch, options, and run:stop(reason), which ends the training after the step at hand. run.notes may
--- be set to a text that the line of the epoch ends with.
---
--- A checkpoint keeps the fields of a callback that hold numbers, strings, booleans, tensors and tables of them, so far as they have
--- changed since the training began; of a callback with a metatable, those that its field `kept` lists.
local core = require "bp.core"
local json = require "bp.json"
local options = require "bp.options"
local pack = require "bp.state"
local warning = require "bp.warning"

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
  if callbacks ~= nil and type(callbacks) ~= "table" then
    core.error(("fit: option 'callbacks' is %s; expected a list of tables with functions, as in "
      .. "callbacks = { { on_epoch_end = function(self, epoch, logs, run) ... end } }"):format(options.describe(callbacks)))
  end
  if callbacks and callbacks[1] == nil and next(callbacks) ~= nil then callbacks = { callbacks } end
  for i, callback in ipairs(callbacks or {}) do
    check(callback, i)
    self[i] = callback
  end
  self.wants_batches = false
  self.hooks = { before_batch = {}, before_step = {}, after_step = {} }
  self.begun = {}
  for _, callback in ipairs(self) do
    if callback.on_batch_begin or callback.on_batch_end then self.wants_batches = true end
    for when, listeners in pairs(self.hooks) do
      if callback[when] then listeners[#listeners + 1] = callback end
    end
  end
  return self
end

local function each(self, name, ...)
  for _, callback in ipairs(self) do
    local fn = callback[name]
    if fn then fn(callback, ...) end
  end
end

-- A field of a plain callback as text, nil when a file cannot hold it.
local function text_of(value)
  if type(value) == "function" then return nil end
  local tensors = {}
  local ok, packed = pcall(pack.pack, value, tensors, "field")
  return ok and next(tensors) == nil and json.encode{ packed } or nil, ok
end

local function plain_fields(callback)
  local fields = {}
  for key, value in pairs(callback) do
    if type(key) == "string" then
      local text, ok = text_of(value)
      if ok then fields[key] = text or "tensors" end
    end
  end
  return fields
end

--- Calls on_train_begin or on_train_end.
---@private
function List:train(when, run)
  if when == "begin" then
    for i, callback in ipairs(self) do
      if getmetatable(callback) == nil then self.begun[i] = plain_fields(callback) end
    end
  end
  each(self, "on_train_" .. when, run)
end

local function kind(callback)
  local meta = getmetatable(callback)
  return type(meta) == "table" and meta.__name or "callback"
end

--- What the callbacks have to remember.
---@private
function List:state()
  local all = {}
  for i, callback in ipairs(self) do
    local fields = {}
    if getmetatable(callback) ~= nil then
      for _, key in ipairs(callback.kept or {}) do fields[key] = callback[key] end
    else
      local before = self.begun[i] or {}
      for key, text in pairs(plain_fields(callback)) do
        if text == "tensors" or text ~= before[key] then fields[key] = callback[key] end
      end
    end
    all[i] = { kind = kind(callback), fields = fields }
  end
  return all
end

--- Gives the callbacks back what they had to remember.
---@private
function List:load_state(saved)
  for i, callback in ipairs(self) do
    local theirs = saved[i]
    if theirs and theirs.kind == kind(callback) then
      for _, key in ipairs(getmetatable(callback) ~= nil and callback.kept or {}) do callback[key] = nil end
      for key, value in pairs(theirs.fields) do callback[key] = value end
    elseif kind(callback) ~= "checkpoint" then
      warning.give("resume: callback %d is %s, in the checkpoint it was %s; it starts anew", i, kind(callback),
        theirs and theirs.kind or "not there")
    end
    if callback.on_resume then callback:on_resume() end
  end
end

--- The folder of the first callback that writes checkpoints, or nil.
---@private
function List:folder()
  for _, callback in ipairs(self) do
    if kind(callback) == "checkpoint" then return callback.options.path end
  end
end

--- Calls those that look at a step right before or after it: before_batch, before_step, after_step.
---@private
function List:step(when, run)
  local listeners = self.hooks[when]
  for i = 1, #listeners do listeners[i][when](listeners[i], run) end
end

--- Has the checkpoints saved now; returns where.
---@private
function List:save(run)
  local path
  for _, callback in ipairs(self) do
    if kind(callback) == "checkpoint" then path = callback:save(run) or path end
  end
  return path
end

--- Calls those that come after all others have seen a batch or an epoch: what they save is complete.
---@private
function List:after(what, run, values) each(self, "after_" .. what, run, values) end

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
