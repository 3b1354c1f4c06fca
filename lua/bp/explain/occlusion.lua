--- Attributions by covering parts of the input.
local core = require "bp.core"
local options = require "bp.options"
local score = require "bp.explain.score"

local ops = core.ops
local occlusion = {}

local spec = options.define("explain.occlusion", "How much the score drops where the input is covered.", score.with{
  { "window", "pair", min = 1, default = 4, named = true,
    help = "size of what is covered: {height, width} for images, a length otherwise" },
  { "stride", "pair", min = 1, named = true, help = "from one place to the next; default half the window" },
  { "value", "number", default = 0, named = true, help = "what covered elements become" },
})

-- Where windows begin and end along a dimension of a size: every stride, the last ones cut off at the end, so that all is covered.
local function places(size, window, stride)
  local list, first = {}, 1
  repeat
    list[#list + 1] = { first, math.min(first + window - 1, size) }
    first = first + stride
  until list[#list][2] == size
  return list
end

local function pair(value, default)
  if value == nil then return default[1], default[2] end
  if type(value) == "table" then return value[1], value[2] end
  return value, value
end

--- Covers one window after another with a value and takes the mean drop of the score over the windows that covered an element. Images
--- [n][height][width][channels] are covered in all channels and give [n][height][width]; other inputs [n][length]... give [n][length].
--- Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014.
---@param given table { model, x, target =, window = 4, stride =, value = 0 }
---@return tensor drop
function occlusion.occlusion(given, ...)
  local o = spec:read(given, ...)
  local restore <close> = score.inference(spec, o.model) -- luacheck: ignore 211
  local x = score.floats(spec, o.x)
  if x.ndim < 2 then spec:fail("option 'x' is %s; expected [samples][length]... or images", score.shape_text(x)) end
  local images = x.ndim == 4
  local tall, wide = pair(o.window, { 4, 4 })
  local down, right = pair(o.stride, { (tall + 1) // 2, (wide + 1) // 2 })
  if down > tall or right > wide then spec:fail("option 'stride' is above the window's size; what lies between would never be covered") end
  return core.no_grad(function()
    local of_inputs = score.of(spec, o, x)
    local whole = of_inputs(x)
    local n, shape = x:size(1), { x:size(1), x:size(2), images and x:size(3) or nil }
    local drop = ops.full{ shape = shape, value = 0, dtype = x.dtype }
    local times = ops.full{ shape = shape, value = 0, dtype = x.dtype }
    for _, rows in ipairs(places(x:size(2), tall, down)) do
      for _, columns in ipairs(images and places(x:size(3), wide, right) or { false }) do
        core.scope(function()
          local place = columns and { {}, rows, columns } or { {}, rows }
          local covered = ops.copy(x)
          covered[place] = o.value
          local lost = ops.reshape(whole - of_inputs(covered), { shape = columns and { n, 1, 1 } or { n, 1 } })
          drop[place] = drop[place] + lost
          times[place] = times[place] + 1
        end)
      end
    end
    return drop / times
  end)
end

return occlusion
