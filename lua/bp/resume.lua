--- What a fit has to remember to be gone on with, and how it takes that up again: see bp.checkpoint for the file.
---@internal
local checkpoint = require "bp.checkpoint"
local core = require "bp.core"
local interrupt = require "bp.interrupt"
local model = require "bp.model"
local streams = require "bp.streams"
local warning = require "bp.warning"

local resume = {}

-- The sums that loss and metrics have gathered so far in this epoch.
local function sums(compiled)
  local list = { compiled.loss_mean.sums }
  for i, metric in ipairs(compiled.metrics) do list[i + 1] = (metric.of or metric).sums or {} end
  return list
end

--- What a run has to remember. Within an epoch run.batches tells the position; run.result the numbers of training, once they are known.
---@param run table
---@return table state
function resume.state(run)
  return {
    entry = run.entry, history = run.history.rows, epochs = run.history.epochs, stopped = not run.unfinished and run.stopped or nil,
    batches = run.batches and run.batches:state(), result = run.result,
    sums = run.batches and sums(model.compiled(run.model, "fit")) or nil,
    samples = run.samples, callbacks = run.callbacks:state(), total = run.total,
  }
end

--- Writes a checkpoint of a run.
---@param run table
---@param path string
---@return boolean|nil ok
---@return string|nil message
---@return string|nil code
function resume.save(run, path)
  return checkpoint.write(path, { model = run.model, optimizer = run.optimizer, state = resume.state(run),
    extra = { epoch = run.epoch, batch = run.batches and run.batch or nil } })
end

local function say(run, text)
  if run.options.verbose ~= 0 and package.loaded.io then print(text) end
end

--- The checkpoint that fit shall go on from, or nil. From where the random streams stood when that training began, so that a split of the
--- data falls the same.
---@param run table
---@param callbacks table list
---@return table|nil saved
function resume.find(run, callbacks)
  local wanted, folder = run.options.resume, callbacks:folder()
  if wanted == nil then wanted = folder ~= nil and interrupt.wants_resume() end
  local saved
  if type(wanted) == "string" then
    local message
    if wanted:find "%.safetensors$" then saved, message = checkpoint.read(wanted) else saved = checkpoint.newest(wanted) end
    if not saved then core.error("fit: resume: " .. (message or "there is no checkpoint in " .. wanted)) end
  elseif wanted then
    if not folder then
      core.error("fit: resume needs to know from where; give fit callbacks.checkpoint{ \"folder\" }, or resume = \"folder\"")
    end
    saved = checkpoint.newest(folder)
    if not saved then say(run, ("%s has no checkpoint yet: starting from the beginning"):format(folder)) end
  end
  if not saved then
    run.entry = streams.get()
    return nil
  end
  if type(saved.state) ~= "table" or not saved.state.epochs then
    core.error(("fit: resume: %s was not written by fit; bp.checkpoint.load reads it"):format(saved.path))
  end
  run.entry = saved.state.entry
  streams.set(run.entry)
  return saved
end

local function same_samples(a, b) return a.train == b.train and a.validation == b.validation end

local function check_data(run, saved)
  local there, here = saved.state.samples, run.samples
  if same_samples(there, here) then return end
  local text = ("%s was written with %d samples to train with and %d for validation; here are %d and %d")
    :format(saved.path, there.train, there.validation, here.train, here.validation)
  if saved.state.batches then core.error(("fit: resume: %s, so the place within epoch %d is lost"):format(text, saved.training.epoch)) end
  warning.give("resume: %s", text)
end

--- Puts everything back as it was when the checkpoint was written.
---@param run table
---@param saved table
function resume.restore(run, saved)
  local state, training, compiled = saved.state, saved.training, model.compiled(run.model, "fit")
  check_data(run, saved)
  checkpoint.report(saved)
  checkpoint.restore(saved, { model = run.model, optimizer = run.optimizer })
  run.callbacks:load_state(state.callbacks)
  for i, row in ipairs(state.history) do run.history:add(state.epochs[i], row) end
  run.stopped, run.total = state.stopped, state.total
  run.epoch = training.epoch
  if not state.batches then
    run.done = training.epoch
    say(run, ("resuming after epoch %d, from %s"):format(run.done, saved.path))
    return
  end
  run.done, run.partial = training.epoch - 1, { batches = state.batches, batch = training.batch, result = state.result }
  core.pause(core.no_grad, function()
    for i, list in ipairs(sums(compiled)) do
      local theirs = state.sums[i]
      -- a metric whose sums take their shape from the first batch has none yet
      local fits = theirs and (#list == 0 or #theirs == #list)
      for k, sum in ipairs(fits and list or {}) do fits = fits and sum:numel() == theirs[k]:numel() end
      if not fits then core.error("fit: resume: the metrics are not those of " .. saved.path) end
      for k, sum in ipairs(theirs) do
        if list[k] then list[k]:copy_(sum) else list[k] = core.ops.copy(sum) end
      end
    end
  end)
  say(run, ("resuming in epoch %d after batch %d, from %s"):format(training.epoch, training.batch, saved.path))
end

return resume
