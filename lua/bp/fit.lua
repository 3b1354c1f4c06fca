--- model:fit: a loop over one captured step.
local adapt = require "bp.adapt"
local batches = require "bp.data.batches"
local core = require "bp.core"
local feed = require "bp.feed"
local history = require "bp.history"
local interrupt = require "bp.interrupt"
local logs = require "bp.logs"
local losses = require "bp.nn.loss"
local model = require "bp.model"
local module = require "bp.nn.module"
local options = require "bp.options"
local progress = require "bp.progress"
local resume = require "bp.resume"
local run_callbacks = require "bp.callbacks.list"
local warning = require "bp.warning"

local fit_spec = options.define("fit", "Trains a compiled model.", {
  { "data", "any", alias = "x", required = true, help = "a dataset, { x, y }, or the tensor x" },
  { "y", "tensor|table", help = "targets, when data is x" },
  { "batch_size", "int", min = 1, default = 32, named = true, help = "samples of a step; the last batch of an epoch may be smaller" },
  { "epochs", "int", min = 0, default = 1, named = true, help = "number of the last epoch" },
  { "initial_epoch", "int", min = 0, default = 0, named = true, help = "epochs that are already done" },
  { "validation", "any", alias = "validation_data", named = true, help = "a dataset or { x, y } that is evaluated after every epoch" },
  { "validation_split", "number", min = 0, below = 1, default = 0,
    named = true, help = "share of the data that is set aside for validation, drawn at random, in every class alike" },
  { "validation_freq", "int", min = 1, default = 1, named = true, help = "epochs between two validations" },
  { "shuffle", "boolean", default = true, named = true, help = "a new order in every epoch" },
  { "class_weight", "table|tensor", named = true, help = "a weight for each class, in order" },
  { "sample_weight", "tensor", named = true, help = "a weight for each sample" },
  { "transform", "function", named = true,
    help = "function (x, y) -> x, y, called with every training batch, for augmentation; without y, the targets stay" },
  { "callbacks", "any", named = true, help = "list of callbacks, or one alone" },
  { "steps_per_epoch", "int", min = 1, named = true, help = "stop an epoch after so many steps" },
  { "resume", "boolean|string", named = true,
    help = "go on from the newest sound checkpoint that callbacks.checkpoint wrote, with the same bits as if the training had never ended; "
      .. "a string is another folder or file; default what bplua --resume says" },
  { "verbose", "choice|int", choices = { "auto" }, min = 0, max = 2, default = "auto", named = true,
    help = '0 silent, 1 a bar, 2 a line per epoch; "auto": a bar on stderr when that is a terminal, lines on stdout otherwise' },
  { "capture", "boolean", default = true, named = true, help = "replay a captured step; false gives the same bits" },
})

-- Training and validation data.
local function datasets(self, o)
  local train = feed.dataset("fit", o.data, o.y, o.sample_weight, self)
  if train.y == nil then fit_spec:fail("there are no targets; expected a dataset with y, { x, y }, or x and y") end
  if o.validation ~= nil then return train, feed.dataset("fit", o.validation, nil, nil, self) end
  if o.validation_split == 0 then return train, nil end
  local share = o.validation_split
  if #train < 2 then fit_spec:fail("validation_split of %d sample; expected at least 2", #train) end
  return train:split{ 1 - share, share, shuffle = true, stratify = feed.has_labels(train) }
end

-- The loss of training: with class_weight, a loss that weighs classes.
local function weighted(loss, class_weight)
  if not class_weight then return loss end
  if not (loss.spec and loss.spec.by_name.class_weights) then
    fit_spec:fail("class_weight needs a loss over classes; this one is %s; use sample_weight", loss.name)
  end
  local given = {}
  for key, value in pairs(loss.options) do given[key] = value end
  given.class_weights = class_weight
  return losses[loss.name](given)
end

-- One step: forward, loss, backward, update, and the numbers for the logs.
local function train_step(self, compiled, loss)
  return function(x, y, weight)
    local value, prediction = model.loss_of(self, loss, x, y, weight)
    compiled.optimizer:zero_grad()
    value:backward()
    compiled.optimizer:step()
    self:constrain()
    core.no_grad(model.gather, compiled, value, prediction, y, weight)
  end
end

-- The parameters come into being with the first input; the optimizer takes them then. run.trained is one that is trained.
local function bind(self, run, compiled, batch)
  if #compiled.optimizer.groups == 0 then
    model.build(self, batches.first(batch))
    local params = self:parameters()
    if #params == 0 then fit_spec:fail("the model has no parameter to train; give it a layer with weights") end
    compiled.optimizer:bind(params)
  elseif run.bound == module.revision() and run.trained.requires_grad then
    return
  end
  run.bound, run.trained = module.revision(), self:parameters{ trainable = true }[1]
  if not run.trained then fit_spec:fail("all parameters are frozen; model:unfreeze() some before training") end
end

-- A transform may leave y out.
local function transform(o, batch)
  local x, y = o.transform(batch.x, batch.y)
  if x == nil then fit_spec:fail("transform returned nil; expected x, or x and y") end
  batch.x = x
  if y ~= nil then batch.y = y end
end

-- What callbacks see and stop.
local function new_run(self, compiled, o)
  local run = { model = self, optimizer = compiled.optimizer, options = o, history = history.new(), steps = {}, total = 0, batch = 0,
    done = o.initial_epoch, pending = interrupt.poll(), callbacks = run_callbacks.new(o.callbacks) }
  function run.stop(_, reason) run.stopped = reason or "stopped by a callback" end
  return run
end

-- The batches of an epoch: all, or those that are left when a checkpoint was taken up within it.
local function batches_of(run, train, compiled)
  local o, partial = run.options, run.partial
  run.partial = nil
  if not partial then model.reset(compiled) end
  run.batch, run.result = partial and partial.batch or 0, partial and partial.result
  run.batches = batches.iterate(train, { o.batch_size, shuffle = o.shuffle, resume = partial and partial.batches },
    #run.callbacks > 0 and "kept" or "reused", -- a callback may keep a batch,
    o.transform ~= nil) -- and a transform write into it
end

-- What a callback may go through once more: a step without a plan, and the batches from where an iterator stood.
local function offer_repeats(self, run, train, compiled)
  local o = run.options
  run.eager = function(...) core.scope(train_step(self, compiled, weighted(compiled.loss, o.class_weight)), ...) end
  function run.batches_from(state)
    local from = batches.iterate(train, { o.batch_size, shuffle = o.shuffle, resume = state }, nil, o.transform ~= nil)
    return function()
      local batch = from()
      if o.transform then transform(o, batch) end
      return batch
    end
  end
end

-- Has run.step fit the model as it is: made once, and again after its structure changed.
local function take_step(self, run, compiled, batch)
  local o = run.options
  if #compiled.optimizer.groups == 0 or run.batch == 1 then bind(self, run, compiled, batch) end
  local steps = o.class_weight and run.steps or compiled.steps -- weights of its own: a step of its own
  run.step = model.cached(steps, o.capture and "fit" or "fit eager", function()
    return model.batch_step(train_step(self, compiled, weighted(compiled.loss, o.class_weight)), o.capture)
  end)
  return module.revision()
end

-- The numbers of an epoch, or nil when it was interrupted.
local function one_epoch(self, run, train, bar)
  local o, compiled, callbacks = run.options, model.compiled(self, "fit"), run.callbacks
  local function read() return model.results(compiled) end
  self:train()
  compiled.optimizer:swap_average(false)
  batches_of(run, train, compiled)
  local last, revision = o.steps_per_epoch or math.maxinteger, nil
  local watched, drawn, next_batch = #callbacks > 0, bar:draws_steps(), run.batches.next
  if watched then offer_repeats(self, run, train, compiled) end
  while run.batch < last and not run.stopped do
    if watched then callbacks:step("before_batch", run) end
    local batch = next_batch()
    if not batch then break end
    run.batch = run.batch + 1
    if watched then callbacks:batch("begin", run.batch, run) end
    if o.transform then transform(o, batch) end
    if revision ~= module.revision() then revision = take_step(self, run, compiled, batch) end
    run.current = batch
    if watched then callbacks:step("before_step", run) end
    run.step(batch)
    run.total = run.total + 1
    if watched then callbacks:step("after_step", run) end
    if drawn then bar:step(run.batch, read) end
    if watched then
      callbacks:batch("end", run.batch, run, read)
      callbacks:after("batch", run, read)
    end
    if run.pending() or run.unfinished and callbacks:folder() then return nil end
  end
  compiled.optimizer:swap_average(true) -- for validation, callbacks at the epoch's end and the trained model
  callbacks:after("steps", run)
  return read()
end

-- Adds what validation gives to the numbers of an epoch; false when it was interrupted.
local function validate(self, run, validation, result)
  run.result = result -- of training, should validation be interrupted: evaluation overwrites the sums
  local values = model.evaluate_dataset(self, validation,
    { batch_size = run.options.batch_size, capture = run.options.capture, stop = run.pending })
  if not values then return false end
  for _, key in ipairs(logs.keys(values)) do logs.set(result, "val_" .. key, values[key]) end
  return true
end

local function check_finite(run, epoch, result)
  if result.loss == result.loss and math.abs(result.loss) < math.huge then return end
  warning.give("fit: the loss became %s in epoch %d and the weights are of no use any more; lower the learning rate, "
    .. "set clip_norm in the optimizer, or look for such values in the data", tostring(result.loss), epoch)
  run:stop("the loss is no number")
end

-- An end within an epoch: the batch at hand is done and what can be saved is saved. After Ctrl-C or SIGTERM the process ends, as its user
-- wanted.
local function interrupted(self, run, bar)
  local signal = run.pending()
  local path = run.callbacks:save(run)
  bar:say(("%s in epoch %d after batch %d: %s"):format(signal and interrupt.name(signal) or run.stopped, run.epoch, run.batch,
    path and ("saved %s; bplua --resume, or resume = true, goes on from there"):format(path)
    or "nothing is saved, as fit has no callbacks.checkpoint"))
  if signal then interrupt.leave(signal) end
  run.callbacks:train("end", run)
  self:eval()
end

-- An epoch from its beginning, or from the checkpoint within it; false when it was interrupted.
local function whole_epoch(self, run, train, validation, bar)
  local epoch, o = run.epoch, run.options
  if not run.partial then run.callbacks:epoch("begin", epoch, run) end
  bar:begin_epoch(epoch)
  local result = run.partial and run.partial.result
  if result then batches_of(run, train, model.compiled(self, "fit")) else result = one_epoch(self, run, train, bar) end
  if not result then return false end
  if validation and epoch % o.validation_freq == 0 and not validate(self, run, validation, result) then return false end
  run.batches, run.result = nil, nil
  run.history:add(epoch, result)
  check_finite(run, epoch, result)
  run.callbacks:epoch("end", epoch, run, result)
  run.callbacks:after("epoch", run, result)
  bar:end_epoch(epoch, result, run.notes)
  run.notes = nil
  return not run.pending() or run.stopped or epoch >= o.epochs
end

--- Trains the model, which has to be compiled.
---@param self table
---@param given table { data, y, batch_size = 32, epochs = 1, validation =, validation_split = 0, shuffle = true, callbacks = {},
--- resume = false, ... }
---@return table history what was logged in every epoch: history:plot(), :svg(path), :csv(path), history.val_loss
local function fit(self, given, ...)
  local o = fit_spec:read(given, ...)
  local compiled = model.compiled(self, "fit")
  local run = new_run(self, compiled, o)
  local saved = resume.find(run, run.callbacks)
  local train, validation = datasets(self, o)
  adapt(self, train, o.batch_size)
  run.samples = { train = #train, validation = validation and #validation or 0 }
  run.resuming = saved ~= nil
  run.steps_per_epoch = math.min(o.steps_per_epoch or math.maxinteger, (#train + o.batch_size - 1) // o.batch_size)
  local bar = progress.new(o.verbose, o.epochs, run.steps_per_epoch)

  local held <close> = interrupt.hold() -- luacheck: ignore 211
  run.callbacks:train("begin", run)
  if saved then resume.restore(run, saved) end
  for epoch = run.done + 1, run.stopped and 0 or o.epochs do
    run.epoch = epoch
    if not whole_epoch(self, run, train, validation, bar) then
      interrupted(self, run, bar)
      return run.history
    end
    if run.stopped then break end
  end
  run.callbacks:train("end", run)
  bar:finish(run)
  self:eval()
  return run.history
end

return fit
