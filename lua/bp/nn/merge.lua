--- Layers that make one tensor of several: nn.add()(a, b), or nn.add(){ a, b }.
local core = require "bp.core"
local layer = require "bp.nn.layer"
local options = require "bp.options"

local ops = core.ops
local layers = {}

-- The inputs as a list: given one by one, or as one list.
local function inputs(self, ...)
  local list = table.pack(...)
  if list.n == 1 and options.is_plain(list[1]) then
    list = list[1]
    list = { n = #list, table.unpack(list) }
  end
  for i = 1, list.n do
    if not core.is_tensor(list[i]) then
      core.error(("%s '%s': input %d is %s; expected a tensor"):format(self.class_name, self:own_name(), i, options.describe(list[i])))
    end
  end
  if list.n < 2 then
    core.error(("%s '%s': it has %d input; expected at least 2: nn.%s()(a, b)"):format(self.class_name, self:own_name(), list.n,
      self.class_name))
  end
  return list
end

local function define(name, summary, fold, last)
  local class = layer.define(name, summary, {})
  function class:forward(...)
    local list = inputs(self, ...)
    local y = list[1]
    for i = 2, list.n do y = fold(y, list[i]) end
    return last and last(y, list.n) or y
  end
  layers[name] = class
  return class
end

define("add", "Sum of its inputs, elementwise; they broadcast.", ops.add)
define("multiply", "Product of its inputs, elementwise; they broadcast.", ops.mul)
define("average", "Mean of its inputs, elementwise; they broadcast.", ops.add, function(y, n) return y / n end)
define("maximum", "The greatest of its inputs, elementwise; they broadcast.", ops.maximum)
define("minimum", "The least of its inputs, elementwise; they broadcast.", ops.minimum)

local Subtract = layer.define("subtract", "The first of its two inputs less the second.", {})
layers.subtract = Subtract
function Subtract:forward(...)
  local list = inputs(self, ...)
  if list.n ~= 2 then core.error(("subtract '%s': it has %d inputs; expected 2"):format(self:own_name(), list.n)) end
  return list[1] - list[2]
end

local Concat = layer.define("concat", "Its inputs one after another along a dimension.", {
  { "axis", "int", default = -1, help = "the dimension, from 1 (the batch), or from the end with -1" },
})
layers.concat = Concat
function Concat:forward(...)
  local list = inputs(self, ...)
  return ops.concat({ table.unpack(list, 1, list.n) }, { axis = self.options.axis })
end

--- Products along one dimension of each of two inputs, sample by sample: [batch][m][k] and [batch][n][k] with axes = 3 give [batch][m][n],
--- two inputs [batch][k] give [batch][1].
---@class nn.dot
local Dot = layer.define("dot", "Sum of products along a dimension of each of its two inputs, sample by sample.", {
  { "axes", "pair", default = { -1, -1 }, help = "the dimension of the first and of the second, from 2, or from the end with -1" },
  { "normalize", "boolean", default = false, named = true, help = "divide by the lengths first: the cosine of the angle between" },
})
layers.dot = Dot

-- x [batch][...][k], the summed dimension last, and the sizes of the others without the batch.
local function arranged(self, x, axis, which)
  local at, order, rest = axis < 0 and x.ndim + 1 + axis or axis, { 1 }, {}
  if at < 2 or at > x.ndim then
    core.error(("dot '%s': axes[%d] is %d; the input is [%s], of which dimensions 2 to %d can be summed over"):format(self:own_name(),
      which, axis, table.concat(x:shape(), "]["), x.ndim))
  end
  for i = 2, x.ndim do
    if i ~= at then
      order[#order + 1] = i
      rest[#rest + 1] = x:shape(i)
    end
  end
  order[#order + 1] = at
  return ops.permute(x, { axes = order }), rest
end

-- x / |x| along the last dimension, lengths below 1e-6 taken for 1e-6, as Keras does.
local function unit(x)
  return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x), { axes = { -1 }, keepdims = true }), 1e-12))
end

local function product(list)
  local n = 1
  for _, size in ipairs(list) do n = n * size end
  return n
end

function Dot:forward(...)
  local list, o = inputs(self, ...), self.options
  if list.n ~= 2 then core.error(("dot '%s': it has %d inputs; expected 2"):format(self:own_name(), list.n)) end
  local a, rest_a = arranged(self, list[1], o.axes[1], 1)
  local b, rest_b = arranged(self, list[2], o.axes[2], 2)
  local k, batch = a:shape(-1), a:shape(1)
  if b:shape(-1) ~= k or b:shape(1) ~= batch then
    core.error(("dot '%s': the inputs are [%s] and [%s]; expected the same batch, and as many elements in dimension %d of the first as in "
      .. "dimension %d of the second"):format(self:own_name(), table.concat(list[1]:shape(), "]["), table.concat(list[2]:shape(), "]["),
      o.axes[1], o.axes[2]))
  end
  if o.normalize then a, b = unit(a), unit(b) end
  if #rest_a == 0 and #rest_b == 0 then return ops.sum(a * b, { axes = { 2 }, keepdims = true }) end
  local m, n = product(rest_a), product(rest_b)
  local rows, columns = ops.reshape(a, { shape = { batch, m, k } }), ops.reshape(b, { shape = { batch, n, k } })
  local y = ops.matmul(rows, ops.permute(columns, { axes = { 1, 3, 2 } }))
  local shape = table.move(rest_a, 1, #rest_a, 2, { batch })
  return ops.reshape(y, { shape = table.move(rest_b, 1, #rest_b, #shape + 1, shape) })
end

return layers
