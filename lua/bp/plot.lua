--- Line charts in the terminal: braille dots, two by four to a character, or letters where those cannot be shown.
---@internal
local core = require "bp.core"
local logs = require "bp.logs"

local plot = {}

-- Bit of the braille character for dot (column 0..1, row 0..3): U+2800 + bits.
local BRAILLE = { [0] = { [0] = 0x01, 0x02, 0x04, 0x40 }, { [0] = 0x08, 0x10, 0x20, 0x80 } }
local LETTERS = { "o", "x", "+", "*", "#", "@" }

local function utf8_locale()
  local os = package.loaded.os
  if not os or not package.loaded.utf8 then return false end
  for _, name in ipairs{ "LC_ALL", "LC_CTYPE", "LANG" } do
    local value = os.getenv(name)
    if value and value ~= "" then return value:upper():find("UTF%-?8") ~= nil end
  end
  return false
end

local function finite(v) return v == v and v > -math.huge and v < math.huge end

-- Smallest and largest finite value of all series, apart.
local function bounds(series)
  local low, high
  for _, one in ipairs(series) do
    for _, v in ipairs(one.values) do
      if finite(v) then
        low, high = math.min(low or v, v), math.max(high or v, v)
      end
    end
  end
  if not low then return nil end
  if low == high then
    local half = low == 0 and 1 or math.abs(low) * 0.1
    low, high = low - half, high + half
  end
  return low, high
end

-- A grid of cells; dots are addressed in fine coordinates (cell size sx, sy), row 0 at the bottom.
local function raster(width, sx, sy, mark)
  local cells = {}
  local function dot(x, y)
    local cx, cy = x // sx, y // sy
    local key = cy * width + cx
    cells[key] = mark(cells[key], x % sx, sy - 1 - y % sy)
  end
  return cells, dot
end

-- Straight lines between neighbouring points (Bresenham 1965).
local function line(dot, x0, y0, x1, y1)
  local dx, dy = math.abs(x1 - x0), -math.abs(y1 - y0)
  local step_x, step_y = x0 < x1 and 1 or -1, y0 < y1 and 1 or -1
  local err = dx + dy
  while true do
    dot(x0, y0)
    if x0 == x1 and y0 == y1 then return end
    local twice = 2 * err
    if twice >= dy then err, x0 = err + dy, x0 + step_x end
    if twice <= dx then err, y0 = err + dx, y0 + step_y end
  end
end

local function draw(dot, values, low, high, columns, rows)
  local n, before_x, before_y = #values, nil, nil
  for i, v in ipairs(values) do
    if finite(v) then
      local x = n == 1 and 0 or math.floor((i - 1) / (n - 1) * (columns - 1) + 0.5)
      local y = math.floor((v - low) / (high - low) * (rows - 1) + 0.5)
      if before_x then line(dot, before_x, before_y, x, y) else dot(x, y) end
      before_x, before_y = x, y
    else
      before_x = nil
    end
  end
end

-- In braille the first series is drawn in full, later ones as every second dot, so that two lines can be told apart without colour.
local function braille_cells(series, low, high, width, height)
  local total = {}
  for s, one in ipairs(series) do
    local count = 0
    local cells, dot = raster(width, 2, 4, function(old, x, y) return (old or 0) | BRAILLE[x][y] end)
    draw(function(x, y)
      count = count + 1
      if s == 1 or count % (2 * s - 1) == 0 then dot(x, y) end
    end, one.values, low, high, width * 2, height * 4)
    for key, bits in pairs(cells) do total[key] = (total[key] or 0) | bits end
  end
  for key, bits in pairs(total) do total[key] = utf8.char(0x2800 + bits) end
  return total
end

local function letter_cells(series, low, high, width, height)
  local total = {}
  for s, one in ipairs(series) do
    local letter = LETTERS[(s - 1) % #LETTERS + 1]
    local cells, dot = raster(width, 1, 1, function() return letter end)
    draw(dot, one.values, low, high, width, height)
    for key, mark in pairs(cells) do total[key] = mark end
  end
  return total
end

local function title(chart, ascii)
  local names = {}
  for s, one in ipairs(chart.series) do
    local mark = ascii and LETTERS[(s - 1) % #LETTERS + 1] or s == 1 and "━" or ("┈"):rep(1)
    names[s] = ("%s %s"):format(mark, one.name)
  end
  return table.concat(names, "   ")
end

local function label_of(x) return math.type(x) == "float" and ("%.3g"):format(x) or tostring(x) end

--- One chart as text, ending with a line feed.
---@param chart table { x = list of epochs, axis = "epoch", series = { { name =, values = }, ... } }
---@param o table { width =, height =, ascii = }
---@return string text
function plot.lines(chart, o)
  local ascii = o.ascii
  if ascii == nil then ascii = not utf8_locale() end
  local low, high = bounds(chart.series)
  if not low then return title(chart, ascii) .. "\n(no finite value)\n" end
  local labels = { logs.format(high), logs.format((low + high) / 2), logs.format(low) }
  local margin = math.max(#labels[1], #labels[2], #labels[3])
  local width = math.max(10, math.min(o.width or core.columns(1) or 80, 120) - margin - 2)
  local height = o.height
  local cells = (ascii and letter_cells or braille_cells)(chart.series, low, high, width, height)
  local lines = { (" "):rep(margin + 2) .. title(chart, ascii) }
  for row = height - 1, 0, -1 do
    local label = row == height - 1 and labels[1] or row == (height - 1) // 2 and labels[2] or row == 0 and labels[3] or ""
    local text = {}
    for column = 0, width - 1 do text[column + 1] = cells[row * width + column] or " " end
    local axis = ascii and "|" or (label ~= "" and "┤" or "│")
    lines[#lines + 1] = ((" "):rep(margin - #label) .. label .. " " .. axis .. table.concat(text)):gsub("%s+$", "")
  end
  local axis, first, last = chart.axis or "epoch", label_of(chart.x[1]), label_of(chart.x[#chart.x])
  lines[#lines + 1] = (" "):rep(margin + 1) .. (ascii and "+" .. ("-"):rep(width) or "└" .. ("─"):rep(width))
  lines[#lines + 1] = (" "):rep(margin + 2) .. first .. (" "):rep(math.max(1, width - #first - #last - #axis - 1)) .. axis .. " " .. last
  return table.concat(lines, "\n") .. "\n"
end

return plot
