--- Preprocessing as layers, saved with the model: nn.normalization, nn.one_hot, nn.category_encoding, nn.discretization.
---
---     local model = nn.sequential{ nn.normalization(), nn.dense{32, activation = "relu"}, nn.dense(1) }
---     model:fit{ train, validation = val }          -- the normalization is fitted on train before the first step, never on val
local core = require "bp.core"
local layer = require "bp.nn.layer"
local module = require "bp.nn.module"
local options = require "bp.options"

local ops = core.ops
local layers = {}

local function float(x) return (x.dtype == "f32" or x.dtype == "f64") and x or ops.cast(x, { dtype = "f32" }) end

-- ---- normalization -------------------------------------------------------------------------------------------------------------------

--- (x - mean) / sqrt(variance), each position of a dimension with its own mean and variance. They come from adapt, from fit (which adapts
--- to its training data what was not adapted before), or from the options. Deviations below 1e-7 are taken for 1e-7, as Keras does.
---@class nn.normalization
local Normalization = layer.define("normalization", "Shifts and scales to mean 0 and variance 1, as measured on training data.", {
  { "axis", "int|choice", choices = { "none" }, default = -1,
    help = 'the dimension that keeps means of its own, counted with the batch; "none": one mean for everything' },
  { "mean", "number|table", named = true, help = "known means: nothing is measured then" },
  { "variance", "number|table", named = true, help = "known variances" },
})
layers.normalization = Normalization

function Normalization:setup(o)
  if (o.mean == nil) ~= (o.variance == nil) then self.spec:fail("one of mean and variance is given; expected both or none") end
  if o.axis == 1 then self.spec:fail("option 'axis' is 1, the batch; expected another dimension, or \"none\"") end
end

-- The position of the axis in x, nil for "none".
local function axis_of(self, shape)
  local axis = self.options.axis
  if axis == "none" then return nil end
  local at = axis < 0 and #shape + 1 + axis or axis
  if at < 2 or at > #shape then
    core.error(("normalization '%s': axis is %d; the input is [%s], of which dimensions 2 to %d can have means of their own")
      :format(self:own_name(), axis, table.concat(shape, "]["), #shape))
  end
  return at
end

local function given(self, name, value, n)
  if type(value) == "number" then return ops.full{ shape = { n }, value = value } end
  local t = core.is_tensor(value) and value or core.tensor(value)
  if t.ndim ~= 1 or t:shape(1) ~= n then
    self.spec:fail("option '%s' has the shape [%s]; expected [%d]", name, table.concat(t:shape(), "]["), n)
  end
  return t
end

function Normalization:build(shape)
  local o, at = self.options, axis_of(self, shape)
  local n = at and shape[at] or 1
  self:buffer("mean", o.mean and given(self, "mean", o.mean, n) or ops.full{ shape = { n }, value = 0 })
  self:buffer("variance", o.variance and given(self, "variance", o.variance, n) or ops.full{ shape = { n }, value = 1 })
  self:buffer("samples", ops.full{ shape = { 1 }, value = o.mean and -1 or 0, dtype = "f64" }) -- -1: known beforehand
end

--- Whether means and variances are known: measured, given, or read from a file.
---@return boolean
function Normalization:adapted()
  return self.samples ~= nil and self.samples:item() ~= 0
end

function Normalization:forward(x)
  x = float(x)
  local at = axis_of(self, x:shape())
  local mean, variance = self.mean, self.variance
  if at and at < x.ndim then
    local shape = {}
    for i = 1, x.ndim do shape[i] = i == at and mean:shape(1) or 1 end
    mean, variance = ops.reshape(mean, { shape = shape }), ops.reshape(variance, { shape = shape })
  end
  return (x - mean) / ops.maximum(ops.sqrt(variance), 1e-7)
end

-- Measuring in f64, batch after batch: counts, means and sums of squares are merged (Chan, Golub and LeVeque, 1979).
--- Begins to measure.
function Normalization:adapt_begin() rawset(self, "measured", { n = 0 }) end

--- Takes in a batch.
---@param x table tensor
function Normalization:adapt_batch(x)
  local measured = self.measured
  if not rawget(self, "built_for") then core.pause(core.no_grad, function() self(x[{ { 1, 1 } }]) end) end
  core.no_grad(core.scope, function()
    local at = axis_of(self, x:shape())
    x = ops.cast(x, { dtype = "f64" })
    local order = {}
    for i = 1, x.ndim do
      if i ~= at then order[#order + 1] = i end
    end
    local channels = at and x:shape(at) or 1
    if at then
      order[#order + 1] = at
      x = ops.permute(x, { axes = order })
    end
    x = ops.reshape(ops.contiguous(x), { shape = { -1, channels } })
    local n = x:shape(1)
    if n == 0 then return end
    local mean = ops.mean(x, { axes = { 1 } })
    local squares = ops.sum(ops.square(x - mean), { axes = { 1 } }):totable()
    mean = mean:totable()
    if not measured.mean then measured.mean, measured.squares = {}, {} end
    for i = 1, channels do
      local before, m = measured.mean[i] or 0, measured.n
      local step = mean[i] - before
      measured.mean[i] = before + step * n / (m + n)
      measured.squares[i] = (measured.squares[i] or 0) + squares[i] + step * step * m * n / (m + n)
    end
    measured.n = measured.n + n
  end)
end

--- Ends measuring: the layer has its means and variances.
function Normalization:adapt_end()
  local measured = self.measured
  rawset(self, "measured", nil)
  if measured.n == 0 then core.error(("normalization '%s': there was no data to adapt to"):format(self:own_name())) end
  local variance = {}
  for i, squares in ipairs(measured.squares) do variance[i] = squares / measured.n end
  core.pause(core.no_grad, function()
    self.mean:copy_(core.tensor(measured.mean))
    self.variance:copy_(core.tensor(variance))
    self.samples:fill_(measured.n)
  end)
end

--- Measures means and variances. fit does so by itself where it was not done; call it to measure on other data, or anew.
---@param data table a tensor, a dataset (its x), or { x }
---@return table self
function Normalization:adapt(data)
  local dataset = require("bp.feed").dataset("adapt", data)
  if not core.is_tensor(dataset.columns.x) then
    core.error("adapt: x is a table of tensors; expected one tensor: the input of this layer")
  end
  self:adapt_begin()
  for batch in dataset:batches(1024) do self:adapt_batch(batch.x) end
  self:adapt_end()
  module.touch()
  return self
end

-- ---- labels and numbers --------------------------------------------------------------------------------------------------------------

-- [n][1] for [n].
local function labels(self, x)
  if x.dtype == "f32" or x.dtype == "f64" or x.dtype == "bool" then
    core.error(("%s '%s': the input is %s; expected whole numbers from 1: x:to 'i64'"):format(self.class_name, self:own_name(), x.dtype))
  end
  return x.ndim > 1 and x:shape(-1) == 1 and ops.squeeze(x, { axes = { -1 } }) or x
end

local classes = { "classes", "int", min = 1, required = true, help = "how many labels there are: 1 to classes" }

local OneHot = layer.define("one_hot", "Labels as rows with a single one: [batch]... to [batch]...[classes].", { classes })
layers.one_hot = OneHot
function OneHot:forward(x) return ops.one_hot(labels(self, x), { classes = self.options.classes }) end

local Category = layer.define("category_encoding", "The labels of each sample in one row: [batch][labels] to [batch][classes].", {
  classes,
  { "mode", "choice", choices = { "multi_hot", "count" }, default = "multi_hot",
    help = "ones for labels that are there, or how often they are" },
})
layers.category_encoding = Category
function Category:forward(x)
  local o = self.options
  labels(self, x)
  layer.need_dims(self, x:shape(), 2, "[batch][labels]")
  local counts = ops.sum(ops.one_hot(x, { classes = o.classes }), { axes = { 2 } })
  return o.mode == "count" and counts or ops.clamp(counts, { max = 1 })
end

local Discretization = layer.define("discretization", "Numbers as labels: which of the intervals between boundaries they lie in, from 1.", {
  { "boundaries", "table", required = true, named = true,
    help = "ascending: {0, 10} makes the labels 1 below 0, 2 from 0 to below 10, 3 from 10 on" },
}, function(_, value)
  if options.is_plain(value) and value.boundaries == nil and type(value[1]) == "number" then
    local list, rest = {}, {}
    for key, item in pairs(value) do
      if math.type(key) == "integer" then list[key] = item else rest[key] = item end
    end
    rest.boundaries = list
    return rest
  end
  return value
end)
layers.discretization = Discretization
function Discretization:setup(o)
  if #o.boundaries == 0 then self.spec:fail("option 'boundaries' is empty; expected ascending numbers") end
  for i, value in ipairs(o.boundaries) do
    if type(value) ~= "number" or value ~= value then
      self.spec:fail("boundary %d is %s; expected a number", i, options.describe(value))
    end
    if i > 1 and value <= o.boundaries[i - 1] then
      self.spec:fail("boundary %d is %g, not above %g before it; expected ascending numbers", i, value, o.boundaries[i - 1])
    end
  end
end
function Discretization:forward(x)
  x = float(x)
  local bounds = core.pause(function() return core.tensor(self.options.boundaries, { dtype = x.dtype }) end)
  local above = ops.cast(ops.ge(ops.unsqueeze(x, { axis = -1 }), bounds), { dtype = "i64" })
  return ops.sum(above, { axes = { -1 } }) + 1
end

return layers
