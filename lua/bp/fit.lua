--- model:fit: a loop over one captured step.
local columns = require "bp.data.columns"
local core = require "bp.core"
local feed = require "bp.feed"
local history = require "bp.history"
local logs = require "bp.logs"
local losses = require "bp.nn.loss"
local model = require "bp.model"
local options = require "bp.options"
local progress = require "bp.progress"
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
  { "callbacks", "table", named = true, help = "list of callbacks" },
  { "steps_per_epoch", "int", min = 1, named = true, help = "stop an epoch after so many steps" },
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
  if loss.kind ~= "sparse" and loss.kind ~= "categorical" and loss.kind ~= "binary" then
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
    core.no_grad(model.gather, compiled, value, prediction, y)
  end
end

-- The parameters come into being with the first input; the optimizer takes them then.
local function bind(self, compiled, batch)
  if #compiled.optimizer.groups == 0 then
    self:eval()
    core.pause(core.no_grad, function() core.scope(function() self(columns.range(batch.x, 1, 1)) end) end)
    self:train()
    local params = self:parameters()
    if #params == 0 then fit_spec:fail("the model has no parameter to train; give it a layer with weights") end
    compiled.optimizer:bind(params)
  end
  if #self:parameters{ trainable = true } == 0 then fit_spec:fail("all parameters are frozen; model:unfreeze() some before training") end
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
  local run = { model = self, optimizer = compiled.optimizer, options = o, history = history.new(), steps = {} }
  function run.stop(_, reason) run.stopped = reason or "stopped by a callback" end
  return run
end

local function one_epoch(self, run, train, callbacks, bar)
  local o, compiled, count = run.options, model.compiled(self, "fit"), 0
  local captured = o.capture and "fit" or "fit eager"
  local steps = o.class_weight and run.steps or compiled.steps -- weights of its own: a step of its own
  self:train()
  model.reset(compiled)
  for batch in train:batches{ o.batch_size, shuffle = o.shuffle } do
    count = count + 1
    callbacks:batch("begin", count, run)
    if o.transform then transform(o, batch) end
    if count == 1 then bind(self, compiled, batch) end
    local step = model.cached(steps, captured, function()
      return model.step(train_step(self, compiled, weighted(compiled.loss, o.class_weight)), o.capture)
    end)
    step(model.arguments(batch))
    bar:step(count, function() return model.results(compiled) end)
    callbacks:batch("end", count, run, function() return model.results(compiled) end)
    if run.stopped or count == o.steps_per_epoch then break end
  end
  return model.results(compiled)
end

local function validate(self, run, validation, result)
  local values = model.evaluate_dataset(self, validation, { batch_size = run.options.batch_size, capture = run.options.capture })
  for _, key in ipairs(logs.keys(values)) do logs.set(result, "val_" .. key, values[key]) end
end

local function check_finite(run, epoch, result)
  if result.loss == result.loss and math.abs(result.loss) < math.huge then return end
  warning.give("fit: the loss became %s in epoch %d and the weights are of no use any more; lower the learning rate, "
    .. "set clip_norm in the optimizer, or look for such values in the data", tostring(result.loss), epoch)
  run:stop("the loss is no number")
end

--- Trains the model, which has to be compiled.
---@param self table
---@param given table { data, y, batch_size = 32, epochs = 1, validation =, validation_split = 0, shuffle = true, callbacks = {}, ... }
---@return table history what was logged in every epoch: history:plot(), :svg(path), :csv(path), history.val_loss
local function fit(self, given, ...)
  local o = fit_spec:read(given, ...)
  local compiled = model.compiled(self, "fit")
  local run = new_run(self, compiled, o)
  local train, validation = datasets(self, o)
  local steps = math.min(o.steps_per_epoch or math.maxinteger, (#train + o.batch_size - 1) // o.batch_size)
  local bar = progress.new(o.verbose, o.epochs, steps)
  local callbacks = run_callbacks.new(o.callbacks)

  callbacks:train("begin", run)
  for epoch = o.initial_epoch + 1, o.epochs do
    run.epoch = epoch
    callbacks:epoch("begin", epoch, run)
    bar:begin_epoch(epoch)
    local result = one_epoch(self, run, train, callbacks, bar)
    if validation and epoch % o.validation_freq == 0 then validate(self, run, validation, result) end
    run.history:add(epoch, result)
    check_finite(run, epoch, result)
    callbacks:epoch("end", epoch, run, result)
    bar:end_epoch(epoch, result, run.notes)
    run.notes = nil
    if run.stopped then break end
  end
  callbacks:train("end", run)
  bar:finish(run)
  self:eval()
  return run.history
end

return fit
