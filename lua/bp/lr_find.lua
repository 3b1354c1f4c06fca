--- model:lr_find: a range test of the learning rate (Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3). The
--- rate grows by the same factor from step to step while the loss is watched; where it falls fastest is a good rate to train with. The
--- model, its optimizer and the random streams are afterwards as before.
local core = require "bp.core"
local feed = require "bp.feed"
local model = require "bp.model"
local optim = require "bp.optim"
local options = require "bp.options"
local streams = require "bp.streams"

local spec = options.define("lr_find", "Tries learning rates from small to large.", {
  { "data", "any", alias = "x", required = true, help = "a dataset, { x, y }, or the tensor x" },
  { "y", "tensor|table", help = "targets, when data is x" },
  { "from", "number", above = 0, default = 1e-6, named = true, help = "the first rate" },
  { "to", "number", above = 0, default = 10, named = true, help = "the last rate" },
  { "steps", "int", min = 10, default = 100, named = true, help = "steps between them" },
  { "batch_size", "int", min = 1, default = 32, named = true, help = "samples of a step" },
  { "smooth", "number", min = 0, below = 1, default = 0.9, named = true, help = "weight of the earlier losses in the running mean" },
  { "stop", "number", above = 1, default = 4, named = true, help = "ends when the smoothed loss is so many times the best" },
})

local Found = { __name = "lr_find" }
Found.__index = Found

local function chart(self)
  local x = {}
  for i, rate in ipairs(self.rates) do x[i] = math.log(rate, 10) end
  return { title = "loss by log10 of the learning rate", axis = "log10 of the rate", x = x,
    series = { { name = "loss", values = self.smoothed } } }
end

--- Draws the losses in the terminal.
function Found:plot() print(require("bp.plot").lines(chart(self), { height = 12 })) end

--- Writes the picture as SVG.
---@param path string
---@return boolean|nil ok
---@return string|nil message
---@return string|nil code
function Found:svg(path) return core.write_file(path, require("bp.svg").lines{ chart(self) }) end

function Found:__tostring()
  return ("learning rate: %.2g suggested (steepest fall), %.2g at the lowest loss, %s"):format(self.suggestion, self.lowest,
    self.diverged and ("diverged at %.2g"):format(self.diverged) or "no divergence")
end

-- Where the smoothed loss falls fastest on the way to its minimum, over a window, and where it is least.
local function choose(self)
  local least = 1
  for i, loss in ipairs(self.smoothed) do
    if loss < self.smoothed[least] then least = i end
  end
  local best, steepest, window = 1, 0, math.max(1, #self.smoothed // 20)
  for i = 1 + window, least do
    local fall = self.smoothed[i - window] - self.smoothed[i]
    if fall > steepest then best, steepest = i, fall end
  end
  self.lowest, self.suggestion = self.rates[least], self.rates[best]
end

-- Batches for ever.
local function endless(dataset, size)
  local batches = dataset:batches{ size, shuffle = true }
  return function()
    local batch = batches()
    if not batch then
      batches = dataset:batches{ size, shuffle = true }
      batch = batches()
    end
    return batch
  end
end

local function try(self, compiled, dataset, o, found)
  local config = compiled.optimizer:config()
  config.options.lr = o.from
  local opt = optim.from_config(config)
  opt:bind(self:parameters())
  local step = model.step(function(x, y, weight)
    local value = model.loss_of(self, compiled.loss, x, y, weight)
    opt:zero_grad()
    value:backward()
    opt:step()
    return value:detach()
  end, true)
  local next_batch, mean, best, rate = endless(dataset, o.batch_size), 0, math.huge, o.from
  local factor = (o.to / o.from) ^ (1 / (o.steps - 1))
  for i = 1, o.steps do
    opt:set_lr(rate)
    local loss = step(model.arguments(next_batch())):item()
    if loss ~= loss or math.abs(loss) == math.huge then
      found.diverged = rate
      return
    end
    mean = o.smooth * mean + (1 - o.smooth) * loss
    local smoothed = mean / (1 - o.smooth ^ i)
    found.rates[i], found.losses[i], found.smoothed[i] = rate, loss, smoothed
    best = math.min(best, smoothed)
    if i > 10 and smoothed > o.stop * best then
      found.diverged = rate
      return
    end
    rate = rate * factor
  end
end

--- Tries learning rates and suggests one; the model stays as it is.
---@param given any { data, y, from = 1e-6, to = 10, steps = 100, batch_size = 32 }, or a dataset
---@return table found rates, losses, smoothed, suggestion, lowest, diverged; found:plot(), found:svg(path); print shows the suggestion
return function(self, given, ...)
  local o = spec:read(given, ...)
  if o.to <= o.from then spec:fail("to is %g, from is %g; expected to above from", o.to, o.from) end
  local compiled = model.compiled(self, "lr_find")
  local dataset = feed.dataset("lr_find", o.data, o.y, nil, self)
  if dataset.y == nil then spec:fail("there are no targets; expected a dataset with y, { x, y }, or x and y") end
  model.build(self, dataset:batches(1)().x)
  local before, where, training = self:get_weights(), streams.get(), self.training
  local kept = #compiled.optimizer.groups > 0 and {} or nil
  if kept then
    for name, tensor in pairs(compiled.optimizer:state()) do kept[name] = core.pause(core.ops.copy, tensor) end
  end
  local found = setmetatable({ rates = {}, losses = {}, smoothed = {} }, Found)
  local restore <close> = setmetatable({}, { __close = function() -- luacheck: ignore 211
    self:set_weights(before)
    if kept then compiled.optimizer:load_state(kept) end
    streams.set(where)
    self:train(training)
  end })
  self:train()
  try(self, compiled, dataset, o, found)
  if #found.rates < 2 then spec:fail("the loss is no number from the first steps on; look at model:check(data)") end
  choose(found)
  return found
end
