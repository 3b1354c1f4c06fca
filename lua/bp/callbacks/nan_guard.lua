--- callbacks.nan_guard: finds where a NaN or an infinity came into a training, and stops, leaves the batch out, or goes back.
---
--- Looking costs next to nothing: a NaN stays in the sum of losses or in the weights, so they are read only every few steps, when also a
--- copy of the state is taken. When something is wrong, the state is put back, the steps since are run again one by one up to the one that
--- breaks (they give the same bits), and that one is run a last time eagerly, every op watched.
local columns = require "bp.data.columns"
local core = require "bp.core"
local model = require "bp.model"
local module = require "bp.nn.module"
local options = require "bp.options"
local schedule = require "bp.optim.schedule"
local streams = require "bp.streams"
local tree = require "bp.nn.tree"
local warning = require "bp.warning"

local ops = core.ops

local spec = options.define("nan_guard", "Finds where a NaN or an infinity was born, and acts.", {
  { "on_nan", "choice", choices = { "stop", "skip", "rollback" }, default = "stop",
    help = '"stop" ends the training with the weights before that step; "skip" leaves the batch out, as if it had not been there; '
      .. '"rollback" goes back to the last good state and lowers the learning rate' },
  { "every", "int", min = 1, default = 100, named = true, help = "steps between two looks; when something is wrong, they are run again" },
  { "factor", "number", above = 0, below = 1, default = 0.5, named = true, help = "what the learning rate is multiplied with by rollback" },
  { "max", "int", min = 1, default = 10, named = true, help = "so many events end the training in any case" },
})

local Guard = { __name = "nan_guard", kept = { "events", "reports" } }
Guard.__index = Guard

function Guard:on_train_begin(run)
  if self.options.on_nan == "rollback" and schedule.is_dynamic(run.optimizer.options.lr) then
    core.error("nan_guard: rollback lowers the learning rate, but the optimizer's follows a schedule; make the optimizer with a number, "
      .. "or choose on_nan = \"skip\"")
  end
  self.events, self.reports, self.count, self.good, self.spare = 0, {}, 0, nil, nil
end

-- ---- the state of a training, as tensors -----------------------------------------------------------------------------------------------

-- Weights in their blocks, optimizer, buffers, sums of the metrics, random streams: all that a step changes, by name.
local function live_tensors(run)
  local live, compiled, weights = {}, model.compiled(run.model, "fit"), {}
  for _, group in ipairs(run.optimizer.groups) do
    for _, entry in ipairs(group.blocks) do weights[entry.block.data] = true end
  end
  for i, tensor in ipairs(run.optimizer:live()) do live[(weights[tensor] and "block " or "optimizer ") .. i] = tensor end
  for _, entry in ipairs(tree.buffers(run.model)) do live["buffer " .. entry.name] = entry.tensor end
  for i, metric in ipairs{ compiled.loss_mean, table.unpack(compiled.metrics) } do
    for k, sum in ipairs((metric.of or metric).sums or {}) do live[("metric %d %d"):format(i, k)] = sum end
  end
  for i, tensor in ipairs(streams.tensors()) do live["stream " .. i] = tensor end
  return live
end

-- Changes when parameters come to the optimizer or the model is rebuilt: the tensors of the state are others then.
local function structure(run)
  local blocks = 0
  for _, group in ipairs(run.optimizer.groups) do blocks = blocks + #group.blocks end
  return module.revision() << 16 | blocks
end

-- Copies the state into what an earlier call gave, or into new tensors.
local function take(run, into)
  local now = structure(run)
  if not into or into.structure ~= now then
    into = { structure = now, live = live_tensors(run), copies = {}, watched = {} }
    for name, tensor in pairs(into.live) do
      local floats = tensor.dtype == "f32" or tensor.dtype == "f64"
      if floats and (name:find "^block" or name:find "^buffer") then table.insert(into.watched, tensor) end
    end
  end
  into.batches, into.batch = run.batches:state(), run.batch
  core.pause(core.no_grad, function()
    for name, tensor in pairs(into.live) do
      local old = into.copies[name]
      if old then old:copy_(tensor) else into.copies[name] = ops.copy(tensor:detach()) end
    end
  end)
  return into
end

local function put_back(taken)
  core.pause(core.no_grad, function()
    for name, tensor in pairs(taken.live) do tensor:copy_(taken.copies[name]) end
  end)
end

local function is_finite(tensor)
  return core.pause(core.scope, function() return ops.all(ops.isfinite(tensor:detach())):item() end)
end

-- Whether nothing went wrong so far. Once an infinity or NaN is in the sum of losses it stays there.
local function is_healthy(self, run)
  local total = model.compiled(run.model, "fit").loss_mean.sums[1]:item()
  if total ~= total or math.abs(total) == math.huge then return false end
  for _, tensor in ipairs(self.good.watched) do
    if not is_finite(tensor) then return false end
  end
  return true
end

-- ---- words ---------------------------------------------------------------------------------------------------------------------------

local function shape(seen) return #seen.shape == 0 and "(one number)" or "[" .. table.concat(seen.shape, "][") .. "]" end

local function range(seen)
  if not seen.min then return "nothing finite" end
  return ("%.6g to %.6g"):format(seen.min, seen.max)
end

local function kind(seen) return seen.nans > 0 and "nan" or "inf" end

-- A place in the batch where the data itself is not finite.
local function bad_data(entry)
  local names, found = { "x", "y", "the sample weight" }, nil
  for i = 1, entry.arguments.n do
    columns.map(entry.arguments[i], function(tensor)
      if found or tensor.dtype ~= "f32" and tensor.dtype ~= "f64" then return tensor end
      local seen = core.look(tensor)
      if seen.first then
        local row = (seen.first - 1) // math.max(1, tensor:numel() // tensor:shape(1)) + 1
        found = ("%s in the data: %s of the batch holds it in sample %d, row %d of the training data"):format(kind(seen), names[i], row,
          math.tointeger(entry.index[row]:item()))
      end
      return tensor
    end)
  end
  return found
end

local function place(birth)
  local name = "op '" .. birth.op .. "'"
  if birth.gradient_of and birth.gradient_of ~= birth.op then name = ("%s in the gradient of '%s'"):format(name, birth.gradient_of) end
  if birth.where ~= "" then return ("%s of layer '%s'"):format(name, birth.where) end
  return name .. " outside of any layer (loss, penalty or optimizer)"
end

local function describe(birth)
  local inputs = {}
  for i, seen in ipairs(birth.inputs) do inputs[i] = ("%s %s %s from %s"):format(seen.name, seen.dtype, shape(seen), range(seen)) end
  return ("%s is born in %s: result %s %s, %d of its elements not finite; inputs: %s"):format(kind(birth.result), place(birth),
    birth.result.dtype, shape(birth.result), birth.result.nans + birth.result.infinities, table.concat(inputs, ", "))
end

-- ---- finding -------------------------------------------------------------------------------------------------------------------------

local function key(birth) return ("%s\0%s\0%s"):format(birth.op, birth.where, birth.gradient_of or "") end

local function watch(run, state, entry)
  put_back(state)
  return core.watch(run.eager, table.unpack(entry.arguments, 1, entry.arguments.n))
end

-- Where it was born. What is born in a good step as well (a logarithm of zero that a mask covers) is not it, if there is anything else.
local function locate(run, state, entry, before)
  local data = bad_data(entry)
  if data then return data, nil end
  local births, harmless = watch(run, state, entry), {}
  for _, birth in ipairs(before and watch(run, state, before) or {}) do harmless[key(birth)] = true end
  put_back(state)
  for _, birth in ipairs(births) do
    if not harmless[key(birth)] then return describe(birth), birth end
  end
  if births[1] then return describe(births[1]), births[1] end
  return "it grew in a sum over batches, no op by itself", nil
end

-- Notes what was found; true when the training is to end.
local function report(self, run, entry, text, birth)
  self.events = self.events + 1
  local step = run.optimizer:steps() + 1
  local line = ("step %d (epoch %d, batch %d): %s"):format(step, run.epoch, entry.batch, text)
  self.reports[#self.reports + 1] = { step = step, epoch = run.epoch, batch = entry.batch, text = text, op = birth and birth.op,
    where = birth and birth.where, gradient_of = birth and birth.gradient_of }
  local stops = self.options.on_nan == "stop" or self.events >= self.options.max
  if stops then
    run.failed = true
    run:stop("nan_guard: " .. line .. "; the weights are those before that step")
  end
  warning.give("nan_guard: %s; %s", line, stops and "the training ends with the weights before that step"
    or self.options.on_nan == "skip" and "this batch is left out" or "going back and lowering the learning rate")
  return stops
end

-- Back to the last good state and lower the rate; what came since is not done again.
local function roll_back(self, run)
  put_back(self.good)
  for g, group in ipairs(run.optimizer.groups) do run.optimizer:set_lr(group.rate:item() * self.options.factor, g) end
end

-- Runs the steps since the last good state again, one by one: the same batches, gathered and transformed anew with the same draws.
local function repair(self, run)
  local before
  put_back(self.good)
  local fetch = run.batches_from(self.good.batches)
  for i = 1, self.count do
    local batch = fetch()
    local entry = { arguments = table.pack(model.arguments(batch)), index = batch.index, batch = self.good.batch + i }
    self.spare = take(run, self.spare)
    run.step(batch)
    if is_healthy(self, run) then
      before = entry
    else
      put_back(self.spare)
      local text, birth = locate(run, self.spare, entry, before)
      put_back(self.spare)
      if report(self, run, entry, text, birth) then return end
      if self.options.on_nan == "rollback" then return roll_back(self, run) end
    end
  end
end

-- Looks whether all is well, and starts the next stretch.
local function inspect(self, run)
  if self.count == 0 then return end
  if not is_healthy(self, run) then repair(self, run) end
  self.count = 0
  self.good = take(run, self.good)
end

--- Before the batch of a step is gathered: where the data and its draws stand.
---@private
function Guard:before_batch(run)
  if self.good and not self.fresh then return end
  self.begin = { batches = run.batches:state(), batch = run.batch, streams = core.pause(streams.copies) }
end

--- Before the step of a batch; the first one has its parameters only now.
---@private
function Guard:before_step(run)
  if not self.begin then return end
  self.good = take(run, self.good)
  self.good.batches, self.good.batch = self.begin.batches, self.begin.batch
  for i = 2, #self.begin.streams do self.good.copies["stream " .. i] = self.begin.streams[i] end -- all but "init", which made parameters
  self.begin, self.fresh = nil, false
end

--- After it.
---@private
function Guard:after_step(run)
  self.count = self.count + 1
  if self.count >= self.options.every then inspect(self, run) end
end

--- When an epoch's steps are done, or a checkpoint is due: what follows sees good weights.
---@private
function Guard:after_steps(run) inspect(self, run) end

--- The sums of the metrics start anew with each epoch, so a stretch does, too.
---@private
function Guard:on_epoch_begin() self.count, self.fresh = 0, true end

function Guard:on_train_end() self.good, self.spare = nil, nil end

--- Finds where a NaN or an infinity was born: layer, op, step and what the op read; then stops, leaves the batch out or goes back.
---@param given string|table|nil { on_nan = "stop", every =, factor = 0.5, max = 10 }
---@return table callback after the training: events, and reports, a list of { step, epoch, batch, text, op, where }
return function(given, ...)
  return setmetatable({ options = spec:read(given, ...), events = 0, reports = {} }, Guard)
end
