--- Option tables: what they accept, complete and refuse, and in which words.
local options = require "bp.options"
local bp = require "bp"

local function message(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return (tostring(err):gsub("^[^\n]-:%d+: ", ""))
end

describe("options", function()
  local spec = options.define("thing", "For this test.", {
    { "units", "int", min = 1, required = true, help = "a count" },
    { "rate", "number", min = 0, below = 1, default = 0.5, help = "a share" },
    { "mode", "choice", choices = { "valid", "same" }, default = "valid", help = "a word" },
    { "size", "pair", min = 1, default = { 1, 1 }, named = true, help = "two numbers" },
    { "on", "boolean", default = true, named = true, alias = "enabled", help = "a switch" },
    { "how", "string|function", named = true, help = "a name or a function" },
    { "span", "range", named = true, help = "two ends" },
    { "shape", "ints", named = true, help = "sizes" },
  })

  it("fill in defaults, and hand out copies of default lists", function()
    local o = spec:read{ 3 }
    assert.same({ units = 3, rate = 0.5, mode = "valid", size = { 1, 1 }, on = true }, o)
    o.size[1] = 9
    assert.same({ 1, 1 }, spec:read{ 3 }.size)
  end)

  it("take positional entries in order, and a single value alone", function()
    assert.equal(7, spec:read(7).units)
    assert.equal("same", spec:read{ 7, 0.1, "same" }.mode)
    assert.equal(0.1, spec:read{ 7, rate = 0.1 }.rate)
    assert.equal(false, spec:read{ 7, enabled = false }.on)
  end)

  it("convert numbers: 3.0 is a whole number, one number stands for a pair", function()
    assert.equal("integer", math.type(spec:read{ 3.0 }.units))
    assert.same({ 4, 4 }, spec:read{ 1, size = 4 }.size)
    assert.same({ 2, 5 }, spec:read{ 1, size = { 2, 5 } }.size)
    assert.same({ 8 }, spec:read{ 1, shape = 8 }.shape)
    assert.equal(0.3, spec:read{ 1, span = 0.3 }.span)
    assert.same({ -1, 1 }, spec:read{ 1, span = { -1, 1 } }.span)
  end)

  it("word what is wrong", function()
    local cases = {
      { { 3, unit = 4 }, "thing: unknown option 'unit' (did you mean 'units'?)" },
      { { 3, rtae = 4 }, "thing: unknown option 'rtae' (did you mean 'rate'?)" },
      { { 3, colour = 4 }, "thing: unknown option 'colour' (there are: units, rate, mode, size, on, how, span, shape)" },
      { {}, "thing: option 'units' is missing; expected a whole number at least 1: a count" },
      { { "32" }, "thing: option 'units' is a string (\"32\"); expected a whole number at least 1" },
      { { 0 }, "thing: option 'units' is a number (0); expected a whole number at least 1" },
      { { -2 }, "thing: option 'units' is a number (-2); expected a whole number at least 1" },
      { { 1.5 }, "thing: option 'units' is a number (1.5); expected a whole number at least 1" },
      { { 1, 1 }, "thing: option 'rate' is a number (1); expected a number at least 0 and below 1" },
      { { 1, 0 / 0 }, "expected a number at least 0 and below 1" },
      { { 1, mode = "sane" }, "thing: option 'mode' is \"sane\" (did you mean 'same'?); expected one of \"valid\", \"same\"" },
      { { 1, mode = 3 }, "thing: option 'mode' is a number (3); expected one of \"valid\", \"same\"" },
      { { 1, size = { 1, 2, 3 } }, "thing: option 'size' is a table; expected a whole number or a list of two at least 1" },
      { { 1, size = { 1, 0 } }, "thing: option 'size' is a table; expected" },
      { { 1, on = 1 }, "thing: option 'on' is a number (1); expected true or false" },
      { { 1, how = 4 }, "thing: option 'how' is a number (4); expected a string or a function" },
      { { 1, span = { 2, 1 } }, "expected a number or a list of two, the lower first" },
      { { 1, 0.5, "same", 4 }, "thing: 4 values without a name; at most 3: units, rate, mode" },
      { { 1, units = 2 }, "thing: option 'units' is given twice" },
      { bp.zeros(2), "thing: option 'units' is a tensor f32 [2]; expected a whole number at least 1" },
    }
    for _, case in ipairs(cases) do
      assert.truthy(message(spec.read, spec, case[1]):find(case[2], 1, true), message(spec.read, spec, case[1]))
    end
  end)

  it("are one table: further values are refused, not dropped", function()
    local nn, x = bp.nn, bp.zeros(2, 1)
    local cases = {
      { "dense: called with 2 values; expected one table: dense{ a, b, name = c }", nn.dense, 10, "relu" },
      { "sequential: called with 2 values", nn.sequential, nn.relu(), nn.relu() },
      { "fit: called with 2 values", function(...) nn.sequential{ nn.dense(1) }:compile{ loss = "mse" }:fit(...) end, x, x },
      { "early_stopping: called with 2 values", bp.callbacks.early_stopping, "loss", 3 },
      { "schedule.cosine: called with 2 values; expected one table: cosine{", bp.optim.schedule.cosine, 0.1, 100 },
      { "augment.crop: called with 2 values", bp.augment.crop, 3, 3 },
      { "search.float: called with 2 values", bp.search.float, 1, 3 },
      { "search.choice: called with several values", bp.search.choice, "a", "b" },
    }
    for _, case in ipairs(cases) do
      local text = message(table.unpack(case, 2))
      assert.truthy(text:find(case[1], 1, true), text)
    end
  end)

  it("blame the first line outside the library", function()
    local ok, err = pcall(function()
      bp.nn.dense{ unit = 3 } -- this line
    end)
    assert.is_false(ok)
    local line = debug.getinfo(1, "l").currentline - 3
    assert.equal(("tests/spec/options_spec.lua:%d: dense: unknown option 'unit' (did you mean 'units'?)"):format(line), err)
  end)

  it("find the nearest name, and none when none is near", function()
    local names = { "units", "activation", "use_bias" }
    assert.equal("activation", options.nearest("activaton", names))
    assert.equal("activation", options.nearest("activ", names))
    assert.equal("use_bias", options.nearest("usebias", names))
    assert.equal("units", options.nearest("uints", names))
    assert.is_nil(options.nearest("colour", names))
  end)

  it("are declared with help throughout, for the manual", function()
    require "bp.nn"
    assert.is_true(#options.declared > 50)
    for _, declared in ipairs(options.declared) do
      assert.is_true(#declared.summary > 0, declared.name)
      for _, field in ipairs(declared.fields) do
        assert.is_string(field.help, declared.name .. "." .. field.name)
        assert.is_true(#options.expected(field) > 0)
      end
    end
  end)
end)
