--- History: columns, best, CSV, pictures.
local bp = require "bp" -- luacheck: ignore 211
local check = require "support.check"
local shell = require "support.shell"
local history = require "bp.history"
local logs = require "bp.logs"

local function example()
  local h = history.new()
  for epoch = 1, 6 do
    local row = logs.new()
    logs.set(row, "loss", 1 / epoch)
    logs.set(row, "accuracy", 1 - 0.5 ^ epoch)
    if epoch % 2 == 0 then logs.set(row, "val_loss", 1 / epoch + 0.1) end
    h:add(epoch, row)
  end
  return h
end

describe("history", function()
  it("has columns by name, nan where an epoch has none", function()
    local h = example()
    assert.same({ "loss", "accuracy", "val_loss" }, h:keys())
    assert.equal(0.25, h.loss[4])
    assert.is_true(h.val_loss[1] ~= h.val_loss[1])
    assert.near(0.6, h.val_loss[2], 1e-12)
    assert.is_nil(h.nothing)
    assert.equal(6, #h)
  end)

  it("knows the best value and its epoch", function()
    local h = example()
    assert.same({ 1 / 6, 6 }, { h:best "loss" })
    assert.same({ 1 / 6 + 0.1, 6 }, { h:best "val_loss" })
    assert.same({ 1 - 0.5 ^ 6, 6 }, { h:best "accuracy" })
    assert.same({ 0.5, 1 }, { h:best("accuracy", "min") })
  end)

  it("is CSV", function()
    local lines = {}
    for line in example():to_csv():gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.equal("epoch,loss,accuracy,val_loss", lines[1])
    assert.equal("1,1,0.5,", lines[2])
    assert.equal("2,0.5,0.75,0.6", lines[3])
    assert.equal(7, #lines)
  end)

  it("is drawn with dots or letters, a name and its val_ twin together", function()
    local h = example()
    local text = h:chart{ width = 60, height = 6, ascii = true }
    assert.truthy(text:find("o loss   x val_loss", 1, true))
    assert.truthy(text:find("o accuracy", 1, true))
    for line in text:gmatch "[^\n]+" do
      assert.is_true(#line <= 60, line)
      assert.is_nil(line:find "[\128-\255]")
    end
    local first
    for line in h:chart{ "loss", width = 40, height = 5, ascii = true }:gmatch "[^\n]+" do
      if line:find "|" then
        first = first or line
      end
    end
    assert.truthy(first:match "^ *1%.0000 |o", first)
    local dots = h:chart{ "loss", "val_loss", width = 60, height = 6, ascii = false }
    assert.truthy(dots:find "\xe2[\xa0-\xa3][\x80-\xbf]")
    assert.is_true(utf8.len(dots) ~= nil)
    check.fails("history: nothing is called 'lss' (did you mean 'loss'?)", h.chart, h, "lss")
    check.fails("history:plot: option 'height' is a number (1)", h.chart, h, { height = 1 })
  end)

  it("draws constants, single epochs and values that are not finite", function()
    local h = history.new()
    for epoch, value in ipairs{ 2, 0 / 0, math.huge, 2 } do
      local row = logs.new()
      logs.set(row, "loss", value)
      h:add(epoch, row)
    end
    assert.truthy(h:chart{ width = 40, ascii = true }:find("o", 1, true))
    local single = history.new()
    local row = logs.new()
    logs.set(row, "loss", 0 / 0)
    single:add(1, row)
    assert.truthy(single:chart{ width = 40, ascii = true }:find("no finite value", 1, true))
    for _, one in ipairs{ h, single, history.new() } do
      local text = require("bp.svg").lines{ { x = one.epochs, series = { { name = "loss", values = one.loss or {} } } } }
      assert.is_nil(text:find "nan")
      assert.is_nil(text:find "inf[^o]")
    end
  end)

  it("is an SVG picture, the same bytes every time, well formed", function()
    local folder = shell.folder()
    assert(example():svg(folder .. "/a.svg"))
    assert(example():svg(folder .. "/b.svg"))
    local function read(path)
      local f <close> = assert(io.open(path))
      return f:read "a"
    end
    local text = read(folder .. "/a.svg")
    assert.equal(text, read(folder .. "/b.svg"))
    shell.remove(folder)
    assert.truthy(text:find "^<svg xmlns=")
    assert.falsy(text:find("var(", 1, true), "CSS variables leave the picture black in viewers that do not know them")
    assert.truthy(text:find("prefers-color-scheme: dark", 1, true))
    assert.equal(2, select(2, text:gsub("<g ", "")))
    local open = {}
    for slash, name, rest in text:gmatch "<(/?)(%a+)([^>]*)>" do
      if slash == "/" then
        assert.equal(name, table.remove(open))
      elseif not rest:find "/$" then
        open[#open + 1] = name
      end
    end
    assert.same({}, open)
    assert.truthy(text:find("<title>loss, epoch 4: 0.25</title>", 1, true))
  end)

  it("gives nil and a message where it cannot write", function()
    local ok, message, code = example():csv "/nowhere/at/all.csv"
    assert.is_nil(ok)
    assert.truthy(message:find("/nowhere/at/all.csv", 1, true))
    assert.equal("eio", code)
  end)
end)
