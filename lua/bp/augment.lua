--- bp.augment: random changes to batches of images [batch][height][width][channels], bytes or floating point.
---
---     local augment = bp.augment
---     local aug = augment.compose{ seed = 3,
---       augment.rotate{ degrees = 15 }, augment.scale{ {0.9, 1.1} }, augment.translate{ x = 0.1, y = 0.1 },
---       augment.flip{ horizontal = true }, augment.brightness(0.2), augment.noise(0.02) }
---     model:fit{ train, transform = aug }             -- or: x = aug(x)
---     augment.sheet("aug.png", aug(x))
---
--- Neighbouring stages that move pixels are multiplied into one map per image and resampled once. Every image has draws of its own; the
--- same seed gives the same draws. Amounts of brightness, contrast and noise are shares of the full range: 255 for bytes, 1 for floating
--- point. Bytes stay bytes.
local core = require "bp.core"
local options = require "bp.options"
local streams = require "bp.streams"

local ops = core.ops
local augment = {}

local Stage = { __name = "augmentation" }
Stage.__index = Stage

-- ---- draws ---------------------------------------------------------------------------------------------------------------------------

-- n numbers uniform in low..high, f64.
local function uniform(state, n, low, high)
  if low == high then return ops.full{ shape = { n }, value = low, dtype = "f64" } end
  return ops.random_uniform(state, { shape = { n }, low = low, high = high, dtype = "f64" })
end

-- The drawn value with probability p, the neutral one otherwise, image by image.
local function with_probability(state, n, p, drawn, neutral)
  if p >= 1 then return drawn end
  return ops.where(ops.lt(uniform(state, n, 0, 1), p), drawn, ops.full{ shape = { n }, value = neutral, dtype = "f64" })
end

-- A number r stands for -r..r (around `middle`: middle - r..middle + r); a list for itself.
local function range(value, middle)
  if type(value) == "table" then return value[1], value[2] end
  return (middle or 0) - value, (middle or 0) + value
end

-- ---- maps ----------------------------------------------------------------------------------------------------------------------------
-- A map is { a, b, tx, c, d, ty }, six tensors [n] or numbers; it takes pixels of the result to pixels of the source, see the op
-- image_affine.

local IDENTITY = { 1, 0, 0, 0, 1, 0 }

-- x * y + z * w where numbers 0 and 1 cost nothing.
local function times(x, y)
  if x == 0 or y == 0 then return 0 end
  if x == 1 then return y end
  if y == 1 then return x end
  return x * y
end
local function plus(x, y)
  if x == 0 then return y end
  if y == 0 then return x end
  return x + y
end

-- First `before`, then `after` on its result: the source of a pixel is before(after(pixel)).
local function follow(before, after)
  local a, b, tx, c, d, ty = table.unpack(before)
  local e, f, ux, g, h, uy = table.unpack(after)
  return {
    plus(times(a, e), times(b, g)), plus(times(a, f), times(b, h)), plus(plus(times(a, ux), times(b, uy)), tx),
    plus(times(c, e), times(d, g)), plus(times(c, f), times(d, h)), plus(plus(times(c, ux), times(d, uy)), ty),
  }
end

local function matrix(map, n)
  local columns = {}
  for i, value in ipairs(map) do
    columns[i] = core.is_tensor(value) and value or ops.full{ shape = { n }, value = value, dtype = "f64" }
  end
  return ops.stack(columns, { axis = 2 })
end

-- ---- stages --------------------------------------------------------------------------------------------------------------------------

local P = { "p", "number", min = 0, max = 1, default = 1, named = true, help = "probability that an image is changed" }

-- kind "map": make(o, state, n, h, w) gives a map; "pixels": make(o, x, state, full) gives new images, x in floating point; "image":
-- make(o, x, state, training) gives new images in the dtype of x. random = false: the stage is applied in eval() too.
local function define(name, kind, summary, fields, make)
  local spec = options.define("augment." .. name, summary, fields)
  augment[name] = function(given, ...)
    return setmetatable({ name = name, kind = kind, options = spec:read(given, ...), make = make }, Stage)
  end
end

define("flip", "map", "Mirrors images.", {
  { "horizontal", "boolean", default = true, named = true, help = "left and right" },
  { "vertical", "boolean", default = false, named = true, help = "up and down" },
  { "p", "number", min = 0, max = 1, default = 0.5, help = "probability of each kind" },
}, function(o, state, n)
  local function side(on)
    if not on then return 1 end
    return with_probability(state, n, o.p, ops.full{ shape = { n }, value = -1, dtype = "f64" }, 1)
  end
  return { side(o.horizontal), 0, 0, 0, side(o.vertical), 0 }
end)

define("rotate", "map", "Turns images around their centre.", {
  { "degrees", "range", required = true, help = "a range, or r for -r..r; counterclockwise" }, P,
}, function(o, state, n)
  local low, high = range(o.degrees)
  local angle = with_probability(state, n, o.p, uniform(state, n, math.rad(low), math.rad(high)), 0)
  local cos, sin = ops.cos(angle), ops.sin(angle)
  return { cos, -sin, 0, sin, cos, 0 }
end)

define("scale", "map", "Enlarges or shrinks images around their centre.", {
  { "factor", "range", above = 0, required = true, help = "a range of factors, or r for 1-r..1+r; above 1 enlarges" },
  { "keep_ratio", "boolean", default = true, named = true, help = "the same factor for height and width" }, P,
}, function(o, state, n)
  local low, high = range(o.factor, 1)
  local function inverse() return ops.reciprocal(with_probability(state, n, o.p, uniform(state, n, math.max(low, 1e-3), high), 1)) end
  local x = inverse()
  return { x, 0, 0, 0, o.keep_ratio and x or inverse(), 0 }
end)

define("translate", "map", "Moves images.", {
  { "x", "range", default = 0, named = true, help = "share of the width, a range, or r for -r..r; positive to the right" },
  { "y", "range", default = 0, named = true, help = "share of the height; positive down" }, P,
}, function(o, state, n, h, w)
  local function shift(amount, size)
    local low, high = range(amount)
    return with_probability(state, n, o.p, uniform(state, n, -high * size, -low * size), 0)
  end
  return { 1, 0, shift(o.x, w), 0, 1, shift(o.y, h) }
end)

define("crop", "image", "Cuts out a window at a random place; in the middle in eval().", {
  { "height", "int", min = 1, required = true, help = "rows of the window" },
  { "width", "int", min = 1, help = "columns of the window; default the height" },
}, function(o, x, state, random)
  local shape, width = x:shape(), o.width or o.height
  local rows, columns = shape[2] - o.height, shape[3] - width
  if rows < 0 or columns < 0 then
    core.error(("augment.crop: the window is [%d][%d], the images are [%d][%d]; expected a smaller window")
      :format(o.height, width, shape[2], shape[3]))
  end
  local function offset(room)
    if not random then return ops.full{ shape = { shape[1] }, value = room // 2 + 1, dtype = "i64" } end
    return ops.random_integers(state, { shape = { shape[1] }, low = 1, high = room + 1, dtype = "i64" })
  end
  return ops.image_crop(x, ops.stack({ offset(rows), offset(columns) }, { axis = 2 }), { height = o.height, width = width })
end)

-- One number per image, for arithmetic with [n][h][w][c].
local function per_image(values, x)
  return ops.reshape(ops.cast(values, { dtype = x.dtype }), { shape = { -1, 1, 1, 1 } })
end

define("brightness", "pixels", "Adds a number to all pixels of an image.", {
  { "amount", "range", required = true, help = "share of the full range, a range, or r for -r..r" }, P,
}, function(o, x, state, full)
  local low, high = range(o.amount)
  local n = x:shape(1)
  return x + per_image(with_probability(state, n, o.p, uniform(state, n, low * full, high * full), 0), x)
end)

define("contrast", "pixels", "Multiplies the distance of pixels from the image's mean.", {
  { "factor", "range", required = true, help = "a range of factors, or r for 1-r..1+r" }, P,
}, function(o, x, state)
  local low, high = range(o.factor, 1)
  local n = x:shape(1)
  local mean = ops.mean(x, { axes = { 2, 3, 4 }, keepdims = true })
  return (x - mean) * per_image(with_probability(state, n, o.p, uniform(state, n, low, high), 1), x) + mean
end)

define("noise", "pixels", "Adds normal noise to every pixel.", {
  { "std", "number", min = 0, required = true, help = "standard deviation, as a share of the full range" }, P,
}, function(o, x, state, full)
  local n = x:shape(1)
  local share = per_image(with_probability(state, n, o.p, ops.full{ shape = { n }, value = 1, dtype = "f64" }, 0), x)
  return x + ops.random_normal(state, { shape = x:shape(), std = o.std * full, dtype = x.dtype }) * share
end)

-- ---- compose -------------------------------------------------------------------------------------------------------------------------

local compose_spec = options.define("augment.compose",
  "Stages one after another; positional entries are stages, or functions of the batch.", {
  { "seed", "int", min = 0, named = true, help = "draws of its own, from this seed; default the stream \"augment\" of bp.seed" },
  { "interpolation", "choice", choices = { "bilinear", "nearest" }, default = "bilinear",
    named = true, help = "how pixels between pixels are taken" },
  { "fill", "choice", choices = { "reflect", "nearest", "constant" }, default = "reflect",
    named = true, help = "what lies outside the image" },
  { "value", "number", default = 0, named = true, help = "colour of fill = \"constant\"" },
})

local Compose = { __name = "augmentation" }
Compose.__index = Compose

--- Stages one after another.
---@param given table stages, and { seed =, interpolation = "bilinear", fill = "reflect", value = 0 }
---@return table augmentation call it: x = aug(x), or x, y = aug(x, y); aug:eval() leaves the random stages out
function augment.compose(given, ...)
  local stages, named = {}, {}
  for key, value in pairs(options.is_plain(given) and given or { given }) do
    if math.type(key) == "integer" then stages[key] = value else named[key] = value end
  end
  local o = compose_spec:read(named, ...)
  for i, stage in ipairs(stages) do
    if getmetatable(stage) ~= Stage and type(stage) ~= "function" then
      compose_spec:fail("stage %d is %s; expected augment.rotate{...} and the like, or a function of the batch", i, options.describe(stage))
    end
  end
  local state = o.seed and streams.own(o.seed) or core.stream("augment")
  return setmetatable({ stages = stages, options = o, state = state, random = true }, Compose)
end

-- New pixel values back into the dtype of the batch.
local function back(x, dtype)
  if dtype ~= "u8" then return x end
  return ops.cast(ops.round(ops.clamp(x, { min = 0, max = 255 })), { dtype = "u8" })
end

local function apply(self, x)
  local o, dtype = self.options, x.dtype
  local full = dtype == "u8" and 255 or 1
  local n, map = x:shape(1), IDENTITY
  local function flush()
    if map == IDENTITY then return end
    if x.dtype == "f64" or x.dtype == "f32" or x.dtype == "u8" then
      x = ops.image_affine(x, matrix(map, n), { interpolation = o.interpolation, fill = o.fill, value = o.value })
    end
    map = IDENTITY
  end
  for _, stage in ipairs(self.stages) do
    if type(stage) == "function" then
      flush()
      x = stage(x)
    elseif stage.kind == "map" then
      if self.random then map = follow(map, stage.make(stage.options, self.state, n, x:shape(2), x:shape(3))) end
    else
      flush()
      if stage.kind == "image" then
        x = stage.make(stage.options, x, self.state, self.random)
      elseif self.random then
        x = stage.make(stage.options, x.dtype == "u8" and ops.cast(x, { dtype = "f32" }) or x, self.state, full)
      end
    end
  end
  flush()
  return back(x, dtype)
end

--- Augments a batch.
---@param x tensor images [batch][height][width][channels]: u8, f32 or f64
---@param y any handed through
---@return table x
---@return any y
function Compose:__call(x, y)
  if not core.is_tensor(x) then
    core.error("augment: the images are " .. options.describe(x) .. "; expected a tensor [batch][height][width][channels]")
  end
  if x.ndim ~= 4 then
    core.error(("augment: the images are [%s]; expected [batch][height][width][channels]"):format(table.concat(x:shape(), "][")))
  end
  if x.dtype ~= "u8" and x.dtype ~= "f32" and x.dtype ~= "f64" then
    core.error("augment: the images are " .. x.dtype .. "; expected u8, f32 or f64")
  end
  return core.no_grad(apply, self, x), y
end

--- The same without what is random: crops are taken from the middle.
---@return table augmentation
function Compose:eval()
  return setmetatable({ stages = self.stages, options = self.options, state = self.state, random = false }, Compose)
end

-- ---- looking at it -------------------------------------------------------------------------------------------------------------------

local sheet_spec = options.define("augment.sheet", "Writes images of a batch side by side into a PNG file.", {
  { "path", "string", required = true, help = "the file" },
  { "images", "tensor", required = true, help = "[n][height][width][1 or 3], bytes 0..255 or floating point 0..1" },
  { "columns", "int", min = 1, default = 8, named = true, help = "images in a row" },
  { "gap", "int", min = 0, default = 2, named = true, help = "pixels between images" },
})

--- Writes images of a batch side by side into a PNG file.
---@param path string|table the file, or all options in one table
---@param images table|nil tensor
---@param given table|nil { columns = 8, gap = 2 }
---@return boolean|nil ok
---@return string|nil message
---@return string|nil code
function augment.sheet(path, images, given)
  local all = options.is_plain(path) and path or { path, images }
  for key, value in pairs(given or {}) do all[key] = value end
  local o = sheet_spec:read(all)
  local x = o.images
  if x.ndim ~= 4 then sheet_spec:fail("the images are [%s]; expected [n][height][width][channels]", table.concat(x:shape(), "][")) end
  return core.no_grad(function()
    if x.dtype ~= "u8" then x = back(ops.cast(x, { dtype = "f32" }) * 255, "u8") end
    local n, h, w, c = table.unpack(x:shape())
    local rows = (n + o.columns - 1) // o.columns
    local page = ops.full{ shape = { rows * (h + o.gap) + o.gap, o.columns * (w + o.gap) + o.gap, c }, value = 128, dtype = "u8" }
    for i = 1, n do
      local top = o.gap + (i - 1) // o.columns * (h + o.gap)
      local left = o.gap + (i - 1) % o.columns * (w + o.gap)
      page[{ { top + 1, top + h }, { left + 1, left + w } }] = x[i]
    end
    return core.image_save(o.path, page)
  end)
end

return augment
