--- Line charts as SVG. The same numbers give the same bytes; colours follow the reader's light or dark scheme and keep apart for the
--- colour-blind (Okabe & Ito 2008).
---@internal
local svg = {}

local WIDTH, HEIGHT = 640, 300
local LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 36

-- Plain classes and no CSS variables: many picture viewers know only those, and take the light colours.
local STYLE = [[
<style>
  text { font: 12px system-ui, sans-serif; fill: #222 }
  .grid { stroke: #ddd }
  .line { stroke-width: 2; stroke-linejoin: round }
  .paper { fill: #fff }
  .l1 { stroke: #0072b2 } .l2 { stroke: #d55e00 } .l3 { stroke: #009e73 }
  .l4 { stroke: #cc79a7 } .l5 { stroke: #e69f00 } .l6 { stroke: #56b4e9 }
  .f1 { fill: #0072b2 } .f2 { fill: #d55e00 } .f3 { fill: #009e73 } .f4 { fill: #cc79a7 } .f5 { fill: #e69f00 } .f6 { fill: #56b4e9 }
  @media (prefers-color-scheme: dark) {
    text { fill: #eee }
    .grid { stroke: #444 }
    .paper { fill: #181818 }
    .l1 { stroke: #56b4e9 } .l2 { stroke: #e69f00 } .l3 { stroke: #2fd3a7 }
    .l4 { stroke: #e7a6cb } .l5 { stroke: #d55e00 } .l6 { stroke: #0072b2 }
    .f1 { fill: #56b4e9 } .f2 { fill: #e69f00 } .f3 { fill: #2fd3a7 } .f4 { fill: #e7a6cb } .f5 { fill: #d55e00 } .f6 { fill: #0072b2 }
  }
</style>
]]

--- Text as it stands in a document.
---@param text string
---@return string
function svg.escape(text)
  return (text:gsub("[&<>\"]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }))
end

local function finite(v) return v == v and v > -math.huge and v < math.huge end

-- Tick distance of 1, 2 or 5 times a power of ten, about `count` ticks.
local function nice_step(span, count)
  local raw = span / count
  local power = 10.0 ^ math.floor(math.log(raw, 10))
  for _, factor in ipairs{ 1, 2, 5, 10 } do
    if factor * power >= raw * 0.999999 then return factor * power end
  end
  return 10 * power
end

local function ticks(low, high, count)
  local step = nice_step(high - low, count)
  local list, first = {}, math.ceil(low / step - 1e-9)
  for i = first, math.floor(high / step + 1e-9) do list[#list + 1] = i * step end
  return list
end

local function bounds(series)
  local low, high
  for _, one in ipairs(series) do
    for _, v in ipairs(one.values) do
      if finite(v) then
        low, high = math.min(low or v, v), math.max(high or v, v)
      end
    end
  end
  if not low then return 0, 1 end
  if low == high then
    local half = low == 0 and 1 or math.abs(low) * 0.1
    return low - half, high + half
  end
  local room = (high - low) * 0.05
  return low - room, high + room
end

local function number(v)
  if v == 0 then return "0" end
  return ("%.6g"):format(v)
end

-- Path of one series; a value that is not finite breaks the line. Single points become dots.
local function path(one, xs, x_of, y_of, colour)
  local d, dots, run = {}, {}, 0
  for i, v in ipairs(one.values) do
    if finite(v) then
      d[#d + 1] = ("%s%.2f %.2f"):format(run == 0 and "M" or "L", x_of(xs[i]), y_of(v))
      run = run + 1
      dots[#dots + 1] = ('<circle cx="%.2f" cy="%.2f" r="%s" class="f%d"><title>%s, epoch %s: %s</title></circle>')
        :format(x_of(xs[i]), y_of(v), #one.values > 60 and "1.5" or "3", colour, svg.escape(one.name), number(xs[i]), number(v))
    else
      run = 0
    end
  end
  return ('<path class="line l%d" fill="none" d="%s"/>\n%s'):format(colour, table.concat(d), table.concat(dots, "\n"))
end

local function chart_text(chart, top)
  local xs = chart.x
  local x_low, x_high = xs[1] or 0, xs[#xs] or 1
  if x_low == x_high then x_low, x_high = x_low - 1, x_high + 1 end
  local y_low, y_high = bounds(chart.series)
  local inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
  local function x_of(x) return LEFT + (x - x_low) / (x_high - x_low) * inner_width end
  local function y_of(y) return TOP + (y_high - y) / (y_high - y_low) * inner_height end

  local out = { ('<g transform="translate(0 %d)">'):format(top) }
  for _, y in ipairs(ticks(y_low, y_high, 5)) do
    out[#out + 1] = ('<line class="grid" x1="%d" x2="%d" y1="%.2f" y2="%.2f"/>'):format(LEFT, WIDTH - RIGHT, y_of(y), y_of(y))
    out[#out + 1] = ('<text x="%d" y="%.2f" text-anchor="end">%s</text>'):format(LEFT - 8, y_of(y) + 4, number(y))
  end
  for _, x in ipairs(ticks(x_low, x_high, 8)) do
    if x == math.floor(x) then
      out[#out + 1] = ('<text x="%.2f" y="%d" text-anchor="middle">%s</text>'):format(x_of(x), HEIGHT - BOTTOM + 18, number(x))
    end
  end
  local at = LEFT
  for s, one in ipairs(chart.series) do
    local colour = (s - 1) % 6 + 1
    out[#out + 1] = ('<rect x="%d" y="16" width="16" height="3" class="f%d"/><text x="%d" y="22">%s</text>')
      :format(at, colour, at + 22, svg.escape(one.name))
    at = at + 44 + 7 * #one.name
    out[#out + 1] = path(one, xs, x_of, y_of, colour)
  end
  out[#out + 1] = "</g>"
  return table.concat(out, "\n")
end

--- A picture of line charts, one below the other.
---@param charts table[] { x = numbers, series = { { name =, values = numbers }, ... } }
---@return string text the SVG document
function svg.lines(charts)
  local height = HEIGHT * math.max(1, #charts)
  local out = {
    ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">'):format(WIDTH, height, WIDTH, height),
    STYLE .. ('<rect class="paper" width="%d" height="%d"/>'):format(WIDTH, height),
  }
  for i, chart in ipairs(charts) do out[#out + 1] = chart_text(chart, (i - 1) * HEIGHT) end
  out[#out + 1] = "</svg>\n"
  return table.concat(out, "\n")
end

--- A picture of bars to the right, one below the other; values below 0 go to the left.
---@param title string
---@param bars table[] { name =, value =, spread = half the length of the mark for its uncertainty, or nil }
---@return string text the SVG document
function svg.bars(title, bars)
  local row, left, right = 22, 150, 80
  local height = 48 + row * #bars
  local low, high = 0, 0
  for _, bar in ipairs(bars) do
    low, high = math.min(low, bar.value - (bar.spread or 0)), math.max(high, bar.value + (bar.spread or 0))
  end
  local scale = (WIDTH - left - right) / (high > low and high - low or 1)
  local function x_of(v) return left + (v - low) * scale end
  local out = {
    ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">'):format(WIDTH, height, WIDTH, height),
    STYLE .. ('<rect class="paper" width="%d" height="%d"/>'):format(WIDTH, height),
    ('<text x="%d" y="22">%s</text>'):format(left, svg.escape(title)),
  }
  for i, bar in ipairs(bars) do
    local top, from, to = 36 + (i - 1) * row, x_of(math.min(0, bar.value)), x_of(math.max(0, bar.value))
    out[#out + 1] = ('<text x="%d" y="%d" text-anchor="end">%s</text>'):format(left - 8, top + 12, svg.escape(bar.name))
    out[#out + 1] = ('<rect x="%.2f" y="%d" width="%.2f" height="14" class="f%d"/>'):format(from, top, math.max(to - from, 0.5),
      bar.value < 0 and 2 or 1)
    if bar.spread then
      out[#out + 1] = ('<line class="grid" x1="%.2f" x2="%.2f" y1="%d" y2="%d"/>'):format(x_of(bar.value - bar.spread),
        x_of(bar.value + bar.spread), top + 7, top + 7)
    end
    out[#out + 1] = ('<text x="%.2f" y="%d">%s</text>')
      :format(x_of(math.max(0, bar.value + (bar.spread or 0))) + 6, top + 12, number(bar.value))
  end
  out[#out + 1] = "</svg>\n"
  return table.concat(out, "\n")
end

return svg
