--- Layers that give sequences and images another size: zeros around, cutting off, growing, and pooling to a given size.
local core = require "bp.core"
local layer = require "bp.nn.layer"
local options = require "bp.options"
local pad = require "bp.nn.pad"

local ops = core.ops
local layers = {}

local expected = { "[batch][time][channels]", "[batch][height][width][channels]" }

-- ---- zeros around, and cutting off ---------------------------------------------------------------------------------------------------

local function whole(value) return math.type(value) == "integer" and value >= 0 or math.tointeger(value) and value >= 0 end

-- One number, { before, after }, and for images { rows, columns } of those -> a pair for each dimension.
local function pairs_of(spec, name, given, dims)
  local function pair(value)
    if whole(value) then return { math.tointeger(value), math.tointeger(value) } end
    if options.is_plain(value) and #value == 2 and whole(value[1]) and whole(value[2]) then
      return { math.tointeger(value[1]), math.tointeger(value[2]) }
    end
    spec:fail("option '%s' is %s; expected %s", name, options.describe(value),
      dims == 1 and "a whole number at least 0 or { before, after }"
      or "a whole number at least 0, { rows, columns } or { { top, bottom }, { left, right } }")
  end
  if dims == 1 then return { pair(given) } end
  if options.is_plain(given) and #given == 2 then return { pair(given[1]), pair(given[2]) } end
  return { pair(given), pair(given) }
end

local function sided(name, summary, option, dims, default, apply)
  local class = layer.define(name, summary, {
    { option, "int|table", min = 0, default = default,
      help = dims == 1 and "how many at both ends, or { before, after }"
        or "how many at all edges, { rows, columns }, or { { top, bottom }, { left, right } }" },
  }, function(_, given) -- a lone { 1, 2 } is the option's value, not two options
    if options.is_plain(given) and given[option] == nil and (#given > 1 or type(given[1]) == "table") then
      local value, rest = #given == 1 and given[1] or {}, {}
      for key, item in pairs(given) do
        if math.type(key) ~= "integer" then rest[key] = item elseif #given > 1 then value[key] = item end
      end
      rest[option] = value
      return rest
    end
    return given
  end)
  layers[name] = class
  function class:setup(o) rawset(self, "sides", pairs_of(self.spec, option, o[option], dims)) end
  function class:forward(x)
    layer.need_dims(self, x:shape(), dims + 2, expected[dims])
    for i, side in ipairs(self.sides) do x = apply(self, x, i + 1, side[1], side[2]) end
    return x
  end
end

local function zeros(_, x, axis, before, after) return pad.zeros(x, axis, before, after) end
sided("zero_pad1d", "Zeros before and after a sequence.", "padding", 1, 1, zeros)
sided("zero_pad2d", "Zeros around an image.", "padding", 2, 1, zeros)

local function crop(self, x, axis, before, after)
  if before + after >= x:shape(axis) then
    core.error(("%s '%s': the input is [%s]; cutting %d and %d off dimension %d leaves nothing; expected less"):format(self.class_name,
      self:own_name(), table.concat(x:shape(), "]["), before, after, axis))
  end
  return pad.crop(x, axis, before, after)
end
sided("crop1d", "A sequence without its ends.", "cropping", 1, 1, crop)
sided("crop2d", "An image without its edges.", "cropping", 2, 1, crop)

-- ---- growing -------------------------------------------------------------------------------------------------------------------------

-- Every position `times` times along an axis.
local function repeated(x, axis, times)
  if times == 1 then return x end
  local wide, shape = x:shape(), x:shape()
  table.insert(wide, axis + 1, times)
  shape[axis] = shape[axis] * times
  return ops.reshape(ops.expand(ops.unsqueeze(x, { axis = axis + 1 }), { shape = wide }), { shape = shape })
end

-- A matrix [rows][columns], made once for each size and dtype. weights(i) gives the columns and numbers of row i as { column = number }.
local matrices = setmetatable({}, { __mode = "v" })
local function matrix(kind, rows, columns, dtype, weights)
  local key = ("%s %d %d %s"):format(kind, rows, columns, dtype)
  local found = matrices[key]
  if not found then
    local values = {}
    for i = 1, rows do
      local row = {}
      for j = 1, columns do row[j] = 0 end
      for column, number in pairs(weights(i)) do row[column] = row[column] + number end
      values[i] = row
    end
    found = core.pause(function() return core.tensor(values, { dtype = dtype }) end)
    matrices[key] = found
  end
  return found
end

-- A matrix applied along dimension 2 or 3 of images.
local function along(x, axis, m)
  local s, rows = x:shape(), m:shape(1)
  if axis == 2 then
    local y = ops.matmul(m, ops.reshape(x, { shape = { s[1], s[2], s[3] * s[4] } }))
    return ops.reshape(y, { shape = { s[1], rows, s[3], s[4] } })
  end
  return ops.matmul(m, x)
end

-- Linear interpolation between the centres of pixels (half-pixel centres), the edge going on outside: as Keras and PyTorch have it.
local function interpolated(x, axis, times)
  local size = x:shape(axis)
  return along(x, axis, matrix("linear", size * times, size, x.dtype, function(i)
    local at = math.min(math.max((i - 0.5) / times - 0.5, 0), size - 1)
    local low = math.floor(at)
    local high = math.min(low + 1, size - 1)
    if low == high then return { [low + 1] = 1 } end
    return { [low + 1] = 1 - (at - low), [high + 1] = at - low }
  end))
end

local Up1d = layer.define("upsample1d", "Every step of a sequence several times.", {
  { "size", "int", min = 1, default = 2, help = "how many times" },
})
layers.upsample1d = Up1d
function Up1d:forward(x)
  layer.need_dims(self, x:shape(), 3, expected[1])
  return repeated(x, 2, self.options.size)
end

local Up2d = layer.define("upsample2d", "An image several times larger.", {
  { "size", "pair", min = 1, default = { 2, 2 }, help = "how many times as high and as wide; one number for both" },
  { "interpolation", "choice", choices = { "nearest", "bilinear" }, default = "nearest", help = "what the new pixels hold" },
})
layers.upsample2d = Up2d
function Up2d:forward(x)
  layer.need_dims(self, x:shape(), 4, expected[2])
  local o = self.options
  if o.interpolation == "nearest" then return repeated(repeated(x, 3, o.size[2]), 2, o.size[1]) end
  if x.dtype ~= "f64" and x.dtype ~= "f32" then x = ops.cast(x, { dtype = "f32" }) end
  return interpolated(interpolated(x, 3, o.size[2]), 2, o.size[1])
end

-- ---- pooling to a given size ---------------------------------------------------------------------------------------------------------
-- Window i of n over `size` positions begins at floor((i-1) * size / n) and ends before ceil(i * size / n), PyTorch's rule.

local function window(i, n, size) return (i - 1) * size // n + 1, -(-i * size // n) end

local function adaptive_mean(x, axis, n)
  local size = x:shape(axis)
  return along(x, axis, matrix("mean", n, size, x.dtype, function(i)
    local first, last = window(i, n, size)
    local row = {}
    for j = first, last do row[j] = 1 / (last - first + 1) end
    return row
  end))
end

local function adaptive_max(x, axis, n)
  local size, parts = x:shape(axis), {}
  for i = 1, n do
    local first, last = window(i, n, size)
    parts[i] = ops.max(ops.slice(x, { axis = axis, start = first, stop = last }), { axes = { axis }, keepdims = true })
  end
  return ops.concat(parts, { axis = axis })
end

local function adaptive(name, summary, dims, op, general)
  local class = layer.define(name, summary, {
    { "size", dims == 1 and "int" or "pair", min = 1, required = true,
      help = dims == 1 and "length of the result" or "height and width of the result; one number for both" },
  }, dims == 2 and function(_, given) -- { 3, 4 } is the size, not two options
    if options.is_plain(given) and #given == 2 and given.size == nil then return { size = { given[1], given[2] }, name = given.name } end
    return given
  end or nil)
  layers[name] = class
  function class:forward(x)
    layer.need_dims(self, x:shape(), dims + 2, expected[dims])
    local size = dims == 1 and { 1, self.options.size } or self.options.size
    if dims == 1 then x = ops.unsqueeze(x, { axis = 2 }) end
    if x.dtype ~= "f64" and x.dtype ~= "f32" then x = ops.cast(x, { dtype = "f32" }) end
    local h, w = x:shape(2), x:shape(3)
    if size[1] > 0 and h % size[1] == 0 and w % size[2] == 0 and h > 0 and w > 0 and (h // size[1]) * (w // size[2]) <= 256 then
      local window_size = { h // size[1], w // size[2] }
      x = op(x, { size = window_size, stride = window_size }) -- luacheck: ignore 311
    else
      x = general(general(x, 2, size[1]), 3, size[2])
    end
    return dims == 1 and ops.squeeze(x, { axes = { 2 } }) or x
  end
end
local function max_pool(x, o) return (ops.max_pool2d(x, o)) end
adaptive("adaptive_avg_pool1d", "Means over as many windows of a sequence as asked for.", 1, ops.avg_pool2d, adaptive_mean)
adaptive("adaptive_avg_pool2d", "Means over as many windows of an image as asked for.", 2, ops.avg_pool2d, adaptive_mean)
adaptive("adaptive_max_pool1d", "Maxima over as many windows of a sequence as asked for.", 1, max_pool, adaptive_max)
adaptive("adaptive_max_pool2d", "Maxima over as many windows of an image as asked for.", 2, max_pool, adaptive_max)

-- ---- order of dimensions -------------------------------------------------------------------------------------------------------------

local Permute = layer.define("permute", "The dimensions of each sample in another order; positional entries are the dimensions.", {
  { "dims", "ints", min = 1, required = true, named = true,
    help = "dimensions of a sample, counted from 1 without the batch, in their new order: {2, 1} swaps two, as in Keras" },
}, function(_, given)
  if options.is_plain(given) and given.dims == nil then
    local dims, rest = {}, {}
    for key, value in pairs(given) do
      if math.type(key) == "integer" then dims[key] = value else rest[key] = value end
    end
    rest.dims = #dims > 0 and dims or nil
    return rest
  end
  return given
end)
layers.permute = Permute
function Permute:setup(o)
  local seen = {}
  for _, dim in ipairs(o.dims) do
    if dim > #o.dims or seen[dim] then
      self.spec:fail("option 'dims' is { %s }; expected each of 1 to %d once", table.concat(o.dims, ", "), #o.dims)
    end
    seen[dim] = true
  end
end
function Permute:forward(x)
  local axes = { 1 }
  for i, dim in ipairs(self.options.dims) do axes[i + 1] = dim + 1 end
  if #axes ~= x.ndim then
    core.error(("permute '%s': the input is [%s]; expected %d dimensions after the batch, as dims has"):format(self:own_name(),
      table.concat(x:shape(), "]["), #axes - 1))
  end
  return ops.contiguous(ops.permute(x, { axes = axes }))
end

return layers
