--- Pictures of explanations: heat maps over images, charts of columns.
local core = require "bp.core"
local options = require "bp.options"
local score = require "bp.explain.score"
local svg = require "bp.svg"

local ops = core.ops
local pictures = {}

local heatmap_spec = options.define("explain.heatmap", "Draws maps over images, side by side, as PNG or SVG.", {
  { "path", "string", required = true, help = "the file; its ending says which: .png or .svg" },
  { "map", "tensor", required = true,
    help = "[n][height][width], or like images, whose channels are added up; the largest value of each sample gets the full colour" },
  { "images", "tensor", named = true, help = "[n][height][width][1 or 3] what lies below: bytes 0..255 or floating point 0..1" },
  { "opacity", "number", min = 0, max = 1, default = 0.6, named = true, help = "of the map where it is largest" },
  { "zoom", "int", min = 1, default = 4, named = true, help = "pixels of the picture for one of an image" },
  { "titles", "table", named = true, help = "a text for each sample, in SVG" },
})
local chart_spec = options.define("explain.chart", "Draws an importance or a dependence as SVG.", {
  { "path", "string", required = true, help = "the file" },
  { "result", "table", required = true, help = "what permutation_importance or partial_dependence gave" },
  { "title", "string", named = true, help = "what stands above" },
})

-- Colours of what speaks for and against (Okabe and Ito, 2008).
local FOR, AGAINST = { 213, 94, 0 }, { 0, 114, 178 }

-- [n][h][w] in -1..1, by the largest size in each sample.
local function normalized(map)
  local largest = ops.max(ops.abs(map), { axes = { 2, 3 }, keepdims = true })
  return map / ops.where(ops.gt(largest, 0), largest, ops.full{ shape = largest:shape(), value = 1, dtype = map.dtype })
end

-- The images in colour, f32 0..255; grey where there are none.
local function below(images, n, h, w)
  if not images then return ops.full{ shape = { n, h, w, 3 }, value = 255, dtype = "f32" } end
  local channels = images.ndim == 4 and images:size(4)
  if channels ~= 1 and channels ~= 3 or images:size(1) ~= n or images:size(2) ~= h or images:size(3) ~= w then
    heatmap_spec:fail("the images are %s; expected [%d][%d][%d] with 1 or 3 channels, as the map", score.shape_text(images), n, h, w)
  end
  local scale = images.dtype == "u8" and 1 or 255
  return ops.expand(ops.cast(images:detach(), { dtype = "f32" }) * scale, { shape = { n, h, w, 3 } })
end

-- u8 [n][h][w][3]
local function blended(map, images, opacity)
  local n, h, w = table.unpack(map:shape())
  local strength = ops.unsqueeze(ops.abs(map) * opacity, { axis = 4 })
  local colour = ops.where(ops.unsqueeze(ops.ge(map, 0), { axis = 4 }), core.tensor(FOR), core.tensor(AGAINST))
  local mixed = below(images, n, h, w) * (1 - strength) + colour * strength
  return ops.cast(ops.clamp(ops.round(mixed), { min = 0, max = 255 }), { dtype = "u8" })
end

local BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(bytes)
  local out = {}
  for i = 1, #bytes, 3 do
    local a, b, c = bytes:byte(i, i + 2)
    local v = a << 16 | (b or 0) << 8 | (c or 0)
    for k = 1, 4 do
      local at = (v >> (24 - 6 * k) & 63) + 1
      out[#out + 1] = (k == 3 and not b or k == 4 and not c) and "=" or BASE64:sub(at, at)
    end
  end
  return table.concat(out)
end

-- One sample after the other in a row, each pixel `zoom` large.
local function page_of(pixels, zoom)
  local n, h, w = table.unpack(pixels:shape())
  local large = ops.expand(ops.reshape(pixels, { shape = { n, h, 1, w, 1, 3 } }), { shape = { n, h, zoom, w, zoom, 3 } })
  large = ops.reshape(ops.contiguous(large), { shape = { n, h * zoom, w * zoom, 3 } })
  return ops.reshape(ops.contiguous(ops.permute(large, { axes = { 2, 1, 3, 4 } })), { shape = { h * zoom, n * w * zoom, 3 } })
end

local function read_file(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end

-- The same page inside an SVG, with a text below each sample.
local function svg_page(path, page, n, titles)
  local png = path .. ".png"
  local ok, message, code = core.image_save(png, page)
  if not ok then return nil, message, code end
  local bytes = read_file(png)
  os.remove(png)
  local height, width = page:size(1), page:size(2)
  local room = titles and 20 or 0
  local out = { ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">')
    :format(width, height + room, width, height + room),
    ('<image width="%d" height="%d" href="data:image/png;base64,%s"/>'):format(width, height, base64(bytes)) }
  for i = 1, titles and n or 0 do
    out[#out + 1] = ('<text x="%.1f" y="%d" font-family="system-ui, sans-serif" font-size="12" text-anchor="middle" fill="#777">%s</text>')
      :format((i - 0.5) * width / n, height + 15, svg.escape(tostring(titles[i] or "")))
  end
  out[#out + 1] = "</svg>\n"
  return core.write_file(path, table.concat(out, "\n"))
end

--- Draws maps over images: orange for what speaks for the score, blue against it.
---@param given table { path, map, images =, opacity = 0.6, zoom = 4, titles = }
---@return boolean|nil ok
---@return string|nil message
---@return string|nil code
function pictures.heatmap(given, ...)
  local o = heatmap_spec:read(given, ...)
  local ending = o.path:match "%.(%w+)$"
  if ending ~= "png" and ending ~= "svg" then heatmap_spec:fail("the path is %q; expected an ending .png or .svg", o.path) end
  return core.no_grad(function()
    local map = ops.cast(o.map:detach(), { dtype = "f32" })
    if map.ndim == 4 then map = ops.sum(map, { axes = { 4 } }) end
    if map.ndim ~= 3 then heatmap_spec:fail("the map is %s; expected [n][height][width]", score.shape_text(o.map)) end
    local page = page_of(blended(normalized(map), o.images, o.opacity), o.zoom)
    if ending == "png" then return core.image_save(o.path, page) end
    return svg_page(o.path, page, map:size(1), o.titles)
  end)
end

--- Draws what partial_dependence gave as a line, or what permutation_importance gave as bars.
---@param given table { path, result, title = }
---@return boolean|nil ok
---@return string|nil message
---@return string|nil code
function pictures.chart(given, ...)
  local o = chart_spec:read(given, ...)
  local r = o.result
  if type(r.mean) ~= "table" then
    chart_spec:fail("the result has no list 'mean'; expected what permutation_importance or partial_dependence gives")
  end
  if r.values then
    local series = { name = o.title or ("column %d"):format(r.column or 0), values = r.mean }
    return core.write_file(o.path, svg.lines{ { x = r.values, series = { series } } })
  end
  local bars = {}
  for i, value in ipairs(r.mean) do bars[i] = { name = r.names and tostring(r.names[i]) or ("column %d"):format(i), value = value,
    spread = r.std and r.std[i] } end
  return core.write_file(o.path, svg.bars(o.title or "rise of the loss", bars))
end

return pictures
