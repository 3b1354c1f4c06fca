--- compile, evaluate and predict, for every module. fit is in bp.fit, save in bp.serialize.
local batches = require "bp.data.batches"
local columns = require "bp.data.columns"
local core = require "bp.core"
local capture = require "bp.capture"
local feed = require "bp.feed"
local logs = require "bp.logs"
local losses = require "bp.nn.loss"
local metrics = require "bp.metrics"
local module = require "bp.nn.module"
local optim = require "bp.optim"
local options = require "bp.options"
local outputs = require "bp.outputs"
local tree = require "bp.nn.tree"
local warning = require "bp.warning"

local model = {}

-- ---- compile -------------------------------------------------------------------------------------------------------------------------

local compile_spec = options.define("compile", "Says how a model is trained.", {
  { "optimizer", "string|table", default = "rmsprop", help = "optim.adam{...}, or a name with its defaults" },
  { "loss", "string|table|function", required = true,
    help = "a name, nn.loss.NAME{...}, or a function (prediction, target) -> number or one per sample; for several outputs also one for "
      .. "each, in a list or by name" },
  { "metrics", "table", named = true, help = "list of names, bp.metrics.NAME{...}, or functions (prediction, target) -> values, or "
    .. "total, count; for several outputs also a list for each, in a list or by name" },
  { "weighted_metrics", "table", named = true, help = "the same, with the samples weighted by sample_weight" },
  { "loss_weights", "table", named = true, help = "factors on the losses of several outputs, in a list or by name; default 1" },
})

--- The activation at the very end of a model, where that can be seen: what decides whether a loss gets logits or probabilities.
---@param self table
---@return string|nil name
local function last_activation(self)
  local children = tree.children(self)
  if self.class_name == "sequential" and #children > 0 then return last_activation(self.layers[#self.layers]) end
  local steps = rawget(self, "steps")
  if steps and #self.output_names == 1 and #steps > 0 then return last_activation(steps[#steps].layer) end
  local own = rawget(self, "options")
  if own and type(own.activation) == "string" then return own.activation end
  if self.class_name == "softmax" or self.class_name == "sigmoid" then return self.class_name end
end

model.last_activation = last_activation

-- A loss by name takes probabilities where the model (or an output of it) ends in what makes them.
local function loss_for(self, what)
  local made = losses.get("compile", what)
  if made.options.reduction == "none" then
    core.error("compile: the loss has reduction \"none\"; training needs one number: \"mean\" or \"sum\"")
  end
  if made.options.from_logits == nil then return made end
  local last = last_activation(self)
  local probabilities = last == "softmax" and made.kind ~= "binary" or last == "sigmoid" and made.kind == "binary"
  if probabilities and made.options.from_logits then
    if type(what) == "string" then return losses.get("compile", what, { from_logits = false }) end
    warning.give("compile: the model ends in %s, but %s expects logits; take the %s away or say from_logits = false", last, made.name, last)
  end
  return made
end

local function check_metric(loss, metric)
  metrics.need_number("compile", metric)
  if loss.kind == "regression" and metric.name == "accuracy" then
    warning.give("compile: accuracy counts predictions that equal the target exactly, which numbers trained with %s hardly ever do, "
      .. "so it says nothing here; \"mae\" or \"r2\" tell how close they are", loss.name)
  end
end

--- Says how the model is trained: optimizer, loss and metrics.
---@param given table { optimizer = "rmsprop", loss =, metrics = {}, weighted_metrics = {}, loss_weights = }
---@return table self
function model.compile(self, given, ...)
  local o = compile_spec:read(given, ...)
  local names, list, loss = outputs.names(self), {}
  if names then
    loss = outputs.loss(names, o.loss, o.loss_weights, function(what, i)
      local application = self.ends.outputs.nodes[i].application
      return loss_for(application and application.layer or self, what)
    end)
    list = outputs.metrics(loss, o.metrics, check_metric)
    if o.weighted_metrics then compile_spec:fail("weighted_metrics are for models with one output; this one has %d", #names) end
  else
    if o.loss_weights then compile_spec:fail("loss_weights are for models with several outputs, made with nn.model; this one has one") end
    loss = loss_for(self, o.loss)
    local used = {}
    local function add(what, weighted)
      local metric = metrics.get("compile", what, loss)
      check_metric(loss, metric)
      metric.weighted = weighted
      if weighted and used[metric.name] then metric.name = "weighted_" .. metric.name end
      list[#list + 1], used[metric.name] = metric, true
    end
    for _, what in ipairs(o.metrics or {}) do add(what, false) end
    for _, what in ipairs(o.weighted_metrics or {}) do add(what, true) end
  end
  rawset(self, "compiled", { optimizer = optim.get("compile", o.optimizer), loss = loss, metrics = list, loss_mean = metrics.mean("loss"),
    steps = {} })
  return self
end

--- What compile was given; raises when it was not called.
---@param self table
---@param who string for the message
---@return table compiled { optimizer, loss, metrics, loss_mean, steps }
function model.compiled(self, who)
  local compiled = rawget(self, "compiled")
  if not compiled then
    core.error(who .. ": the model is not compiled; first model:compile{ optimizer = \"adam\", loss = \"mse\" }")
  end
  return compiled
end

-- ---- steps ---------------------------------------------------------------------------------------------------------------------------
-- A step is one function of tensors, captured or run eagerly; both give the same bits.

--- Runs fn(tensors...) as a captured step, or eagerly with its temporaries freed.
---@param fn function
---@param captured boolean
---@return function step
function model.step(fn, captured)
  if captured then return capture.capture(fn) end
  return function(...) return core.scope(fn, ...) end
end

--- What a step is given of a batch.
---@param batch table
---@return any ... x, y, and the weights where there are any
local function arguments(batch)
  if batch.weight ~= nil then return batch.x, batch.y, batch.weight end
  return batch.x, batch.y
end

model.arguments = arguments

-- Whether a captured step could gather from a dataset's tensors as they are: none is a view with gaps.
local function replayable(dataset)
  local list = {}
  for _, column in pairs(dataset.columns) do columns.map(column, function(tensor) list[#list + 1] = tensor end) end
  return core.replayable(table.unpack(list))
end

--- Runs fn(x, y, weight) on batches. Captured, the step gathers scattered samples itself: a whole step is one replay.
---@param fn function
---@param captured boolean
---@return function step
function model.batch_step(fn, captured)
  local plain, dataset, fits = model.step(fn, captured), nil, nil
  local gathering = captured and capture.capture(function(rows, x, y, weight)
    return fn(columns.take(x, rows), columns.take(y, rows), weight and columns.take(weight, rows))
  end)
  return function(batch)
    local rows = gathering and batches.rows(batch)
    if not rows then return plain(arguments(batch)) end
    if dataset ~= batch.dataset then dataset, fits = batch.dataset, replayable(batch.dataset) end
    if not fits then return plain(arguments(batch)) end
    local c = dataset.columns
    return gathering(rows, c.x, c.y, c.weight)
  end
end

-- A step made before is good as long as the model's structure is the same.
local function cached(steps, key, make)
  local entry = steps[key]
  if not entry or entry.revision ~= module.revision() then
    entry = { revision = module.revision(), run = make() }
    steps[key] = entry
  end
  return entry.run
end
model.cached = cached

-- Puts a model into inference until the value is closed.
local function inference(self)
  local training = self.training
  self:eval()
  return setmetatable({}, { __close = function() self:train(training) end })
end

--- Gives layers that were never called their parameters, by running the first sample through the model.
---@param self table
---@param x any tensor, or tables of tensors, samples along the first dimension
function model.build(self, x)
  local restore <close> = inference(self) -- luacheck: ignore 211
  core.pause(core.no_grad, function() core.scope(function() self(columns.range(x, 1, 1)) end) end)
end

--- Adds a batch to the loss and the metrics. value is the mean over the batch.
---@param compiled table
---@param value table
---@param prediction table
---@param y table
---@param weight table|nil of the samples, for weighted metrics
function model.gather(compiled, value, prediction, y, weight)
  compiled.loss_mean:add(value:detach(), outputs.rows(prediction))
  for _, metric in ipairs(compiled.metrics) do metric:update(outputs.detach(prediction), y, metric.weighted and weight or nil) end
end

--- Starts loss and metrics anew.
---@param compiled table
function model.reset(compiled)
  compiled.loss_mean:reset()
  for _, metric in ipairs(compiled.metrics) do metric:reset() end
end

--- The loss and the metrics gathered so far.
---@param compiled table
---@return table logs
function model.results(compiled)
  local result = logs.new()
  logs.set(result, "loss", compiled.loss_mean:result())
  for _, metric in ipairs(compiled.metrics) do logs.set(result, metric.name, metric:result()) end
  return result
end

--- The loss of a batch with the layers' penalties, and the prediction.
---@param self table
---@param loss table
---@param x table
---@param y table
---@param weight table|nil
---@return table value, table prediction
function model.loss_of(self, loss, x, y, weight)
  local prediction, activity = module.with_activity(self, x)
  local value = loss(prediction, y, weight)
  if activity then value = value + activity end
  local penalty = self:penalty()
  return penalty and value + penalty or value, prediction
end

-- ---- evaluate ------------------------------------------------------------------------------------------------------------------------

local evaluate_spec = options.define("evaluate", "Loss and metrics over data.", {
  { "data", "any", alias = "x", required = true, help = "a dataset, { x, y }, or the tensor x" },
  { "y", "tensor|table", help = "targets, when data is x" },
  { "batch_size", "int", min = 1, default = 32, named = true, help = "samples at a time" },
  { "sample_weight", "tensor", named = true, help = "one weight per sample" },
  { "capture", "boolean", default = true, named = true, help = "replay a captured step; false gives the same bits" },
})

--- Gathers loss and metrics over a dataset, the model in inference.
---@param self table
---@param dataset table
---@param o table { batch_size, capture, stop = }: stop() is asked after every batch whether to give up
---@return table|nil logs nil when stopped
function model.evaluate_dataset(self, dataset, o)
  local compiled = model.compiled(self, "evaluate")
  local restore <close> = inference(self) -- luacheck: ignore 211
  local step = cached(compiled.steps, o.capture and "evaluate" or "evaluate eager", function()
    return model.step(function(x, y, weight)
      core.no_grad(function()
        local value, prediction = model.loss_of(self, compiled.loss, x, y, weight)
        model.gather(compiled, value, prediction, y, weight)
      end)
    end, o.capture)
  end)
  model.reset(compiled)
  for batch in batches.iterate(dataset, { o.batch_size }, "reused") do
    step(arguments(batch))
    if o.stop and o.stop() then return nil end
  end
  return model.results(compiled)
end

--- Loss and metrics over data, in inference.
---@param given any a dataset, or { data, y, batch_size = 32, sample_weight = }
---@return table logs { loss =, ... }; print shows it
function model.evaluate(self, given, ...)
  local o = evaluate_spec:read(given, ...)
  model.compiled(self, "evaluate")
  return model.evaluate_dataset(self, feed.dataset("evaluate", o.data, o.y, o.sample_weight, self), o)
end

-- ---- predict -------------------------------------------------------------------------------------------------------------------------

local predict_spec = options.define("predict", "The model's outputs for many inputs.", {
  { "data", "any", alias = "x", required = true, help = "the tensor x, or a dataset" },
  { "batch_size", "int", min = 1, default = 32, named = true, help = "samples at a time" },
  { "capture", "boolean", default = true, named = true, help = "replay a captured step; false gives the same bits" },
})

--- The model's outputs, in inference and without gradients, computed batch by batch.
---@param given any the tensor x, a dataset, or { data, batch_size = 32 }; for several inputs { { a, b } } or { data = { name = a, ... } }
---@return tensor outputs one tensor, samples along the first dimension; a table of them for a model with several outputs
function model.predict(self, given, ...)
  local o = predict_spec:read(feed.inputs(self, given), ...)
  local steps = rawget(self, "predict_steps")
  if not steps then
    steps = {}
    rawset(self, "predict_steps", steps)
  end
  local dataset = feed.dataset("predict", o.data, nil, nil, self)
  local restore <close> = inference(self) -- luacheck: ignore 211
  local step = cached(steps, o.capture and "captured" or "eager", function()
    return model.step(function(x)
      return core.no_grad(function() return self(x) end)
    end, o.capture)
  end)
  local parts = {}
  for batch in batches.iterate(dataset, { o.batch_size }, "reused") do parts[#parts + 1] = step(batch.x) end
  return core.no_grad(outputs.join, parts)
end

return model
