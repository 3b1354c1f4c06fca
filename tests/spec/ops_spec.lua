--- How ops are called from Lua: inputs, options by place and by name, in place, messages. What they compute is tested in C.
local core = require "bp.core"
local support = require "support.core"
local failure = support.failure

local tensor, ops = core.tensor, core.ops

describe("an op", function()
  local before = support.alive()
  local x = core.keep(tensor { { 1, 2, 3 }, { 4, 5, 6 } })

  describe("takes options", function()
    it("in the order of its row", function()
      assert.same({ 5, 7, 9 }, x:sum(1):totable())
      assert.same({ { 6 }, { 15 } }, x:sum(2, true):totable())
      assert.equal(21, x:sum():item())
      assert.same({ { 2, 2, 3 }, { 4, 5, 5 } }, x:clamp(2, 5):totable())
      assert.same({ { 1, 2, 3 }, { 4, 4, 4 } }, x:clamp(nil, 4):totable())
    end)

    it("by name, or both", function()
      assert.same({ { 5, 7, 9 } }, x:sum({ axes = 1, keepdims = true }):totable())
      assert.same({ { 5, 7, 9 } }, x:sum({ 1, keepdims = true }):totable())
      assert.same({ { 5, 7, 9 } }, x:sum(1, { keepdims = true }):totable())
      assert.equal(21, x:sum({ axes = { 1, 2 } }):item())
      assert.equal(21, x:sum({ { 1, 2 } }):item())
      assert.equal(21, x:sum({ 1, 2 }):item())
      assert.equal(21, x:sum(1, 2):item())
      assert.equal(21, x:sum({}):item())
    end)

    it("by an empty table in last place, which names none, even where a pair could stand", function()
      local image, kernel, bias = ops.full({ 1, 5, 4, 2 }, 1), ops.full({ 3, 3, 2, 3 }, 1), ops.full({ 3 }, 1)
      assert.same(ops.conv2d(image, kernel, bias):totable(), ops.conv2d(image, kernel, bias, {}):totable())
      assert.same(ops.conv2d(image, kernel, nil, 2):totable(), ops.conv2d(image, kernel, nil, 2, {}):totable())
      assert.same({}, tensor({ 1 }):reshape({}):shape())
      assert.matches("option 'stride'", failure(ops.conv2d, image, kernel, { stride = {} }))
    end)

    it("as a list in any way", function()
      assert.same({ 3, 2 }, x:reshape(3, 2):shape())
      assert.same({ 3, 2 }, x:reshape({ 3, -1 }):shape())
      assert.same({ 6 }, x:reshape(-1):shape())
      assert.same({ 3, 2 }, x:permute({ 2, 1 }):shape())
      assert.same({ 3, 2 }, x:permute(2, 1):shape())
      assert.same({ 2, 3 }, ops.full({ 2, 3 }, 7):shape())
      assert.same({ 2, 3 }, ops.full({ shape = { 2, 3 }, value = 7 }):shape())
      assert.equal("i32", ops.full({ 2 }, 7, "i32").dtype)
      assert.equal("i32", ops.full({ { 2 }, 7, dtype = "i32" }).dtype)
    end)

    it("and counts dimensions and positions from 1", function()
      assert.same(x:sum(2):totable(), x:sum(-1):totable())
      assert.same({ 2, 5 }, x:select(2, 2):totable())
      assert.same({ { 2, 3 }, { 5, 6 } }, x:slice(2, 2, 3):totable())
      assert.same({ { 2, 3 }, { 5, 6 } }, x:slice({ axis = 2, start = 2 }):totable())
      assert.same({ 2, 1, 3 }, x:unsqueeze(2):shape())
      assert.equal(3, x[1]:argmax(1):item())
    end)
  end)

  describe("takes inputs", function()
    it("that may be numbers where a tensor is expected", function()
      assert.same({ { 1, 2, 2 }, { 2, 2, 2 } }, ops.minimum(x, 2):totable())
      assert.same({ { 0, 0, 3 }, { 4, 5, 6 } }, ops.where(x:gt(2), x, 0):totable())
      assert.equal(1, ops.exp(0):item())
      assert.equal("f32", ops.exp(0).dtype)
    end)

    it("with optional ones left out, by nil or by what follows", function()
      local w = tensor { { 1 }, { 1 }, { 1 } }
      assert.same({ { 6 }, { 15 } }, ops.linear(x, w):totable())
      assert.same({ { 6 }, { 15 } }, ops.linear(x, w, nil, { activation = "relu" }):totable())
      assert.same({ { 6 }, { 15 } }, ops.linear(x, w, { activation = "relu" }):totable())
      assert.same({ { 0 }, { 5 } }, ops.linear(x, w, tensor { -10 }, "relu"):totable())
    end)

    it("in any number, as arguments or as a list", function()
      local a, b = tensor { 1 }, tensor { 2 }
      assert.same({ 1, 2 }, ops.concat(a, b):totable())
      assert.same({ 1, 2 }, ops.concat({ a, b }):totable())
      assert.same({ { 1 }, { 2 } }, ops.stack(a, b):totable())
      assert.same({ { 1, 2 } }, ops.stack({ a, b, axis = 2 }):totable())
      assert.same({ { 1, 2 } }, ops.stack({ a, b }, 2):totable())
      assert.same({ { 1, 2 } }, ops.stack(a, b, 2):totable())
      assert.same({ { 1, 2 } }, ops.stack(a, b, { axis = 2 }):totable())
      local many = {}
      for i = 1, 100 do many[i] = a end
      assert.same({ 100, 1 }, ops.stack(many):shape())
    end)

    it("that hold positions as lists", function()
      assert.same({ { 3, 1 }, { 6, 4 } }, x:take({ 3, 1 }, 2):totable())
      assert.same({ { 4, 5, 6 } }, x:take({ 2 }):totable())
    end)
  end)

  it("gives all its results", function()
    local values, positions = tensor({ 3, 1, 2 }):sort()
    assert.same({ 1, 2, 3 }, values:totable())
    assert.same({ 2, 3, 1 }, positions:totable())
    assert.equal("i64", positions.dtype)
  end)

  describe("in place", function()
    it("writes into its tensor and returns it", function()
      local t = tensor { -1, 2 }
      local view = t[{ {} }]
      assert.equal(t, t:relu_())
      assert.same({ 0, 2 }, view:totable())
      t:add_(1):mul_(t)
      assert.same({ 1, 9 }, t:totable())
      assert.equal(t, ops.clamp_(t, 2, 3))
      assert.same({ 2, 3 }, t:totable())
    end)

    it("refuses a result of another dtype or shape", function()
      assert.matches("the result is f32 and cannot be written in place into a tensor of i32", failure(function()
        tensor({ 1 }, { dtype = "i32" }):div_(2)
      end))
      assert.matches("shape %[2x2%] and cannot be written in place into %[2%]", failure(function()
        tensor({ 1, 2 }):add_(tensor { { 1, 2 }, { 3, 4 } })
      end))
      assert.matches("expanded tensor shares elements", failure(function() tensor({ 1 }):expand(3):add_(1) end))
    end)
  end)

  describe("says what is wrong:", function()
    local function message(...) return failure(...) end

    it("an unknown option, with the nearest name and all of them", function()
      assert.matches("sum: unknown option 'keepdim' %(did you mean 'keepdims'%?%); the options are axes, keepdims",
        message(x.sum, x, { keepdim = true }))
      assert.matches("sum: unknown option 'zzzzzz'; the options are axes, keepdims", message(x.sum, x, { zzzzzz = true }))
      assert.matches("exp: unknown option 'axis'; it has no options", message(x.exp, x, { axis = 1 }))
    end)

    it("an option of the wrong kind, and what is expected", function()
      assert.matches("sum: option 'keepdims' is 1; true or false is expected", message(x.sum, x, { 1 }, 1))
      assert.matches("sum: option 'keepdims' is 'yes'; true or false", message(x.sum, x, { keepdims = "yes" }))
      assert.matches("sum: option 'axes' is 1.5; a dimension or a list of dimensions is expected", message(x.sum, x, 1.5))
      assert.matches("sum: option 'axes' is 'x'", message(x.sum, x, { axes = "x" }))
      assert.matches("clamp: option 'min' is 'x'; a number is expected", message(x.clamp, x, "x"))
      assert.matches("sum: option 'axes' is 0; it counts from 1", message(x.sum, x, 0))
      assert.matches("sum: option 'axes' is a list of 9; at most 8", message(x.sum, x, { axes = { 1, 2, 3, 4, 5, 6, 7, 8, 9 } }))
      assert.matches("reshape: option 'shape' has more than 8 numbers", message(x.reshape, x, 1, 1, 1, 1, 1, 1, 1, 1, 6))
      assert.matches("linear: option 'activation' is 'rleu' %(did you mean 'relu'%?%); one of none, relu is expected",
        message(ops.linear, x, x:t(), { activation = "rleu" }))
      assert.matches("unknown dtype 'int'", message(x.cast, x, "int"))
    end)

    it("an option given twice, or one value too many", function()
      assert.matches("sum: option 'axes' is given twice", message(x.sum, x, 1, { axes = 2 }))
      assert.matches("sum: 7 is one argument too many; its options are axes, keepdims", message(x.sum, x, { 1 }, true, 7))
      assert.matches("exp: 1 is one argument too many; it has no options", message(x.exp, x, 1))
    end)

    it("an option missing", function() assert.matches("reshape: option 'shape' is missing", message(x.reshape, x)) end)

    it("a dimension that is not there, counted from 1", function()
      assert.matches("sum: dimension 3 of a tensor with 2; 1 to 2 or %-2 to %-1 is expected", message(x.sum, x, 3))
    end)

    it("an input that is no tensor", function()
      assert.matches("matmul: input 'b' is missing", message(x.matmul, x))
      assert.matches("matmul: input 'b' is 'w'; a tensor or a number is expected", message(x.matmul, x, "w"))
      assert.matches("stack: input '%w+' is 1; tensors, or a list of them, are expected", message(ops.stack, 1))
      assert.matches("stack: the list '%w+' holds no tensors", message(ops.stack, {}))
      assert.matches("stack: entry 2 of '%w+' is 'x'; a tensor is expected", message(ops.stack, { x, "x" }))
      assert.matches("take: input 'index' is 1.5", message(x.take, x, 1.5))
    end)

    it("positions that are no whole numbers, and ones outside", function()
      assert.matches("must be of an integer dtype, not f32; cast it to i64 first", message(x.take, x, tensor { 1 }))
      assert.matches("index 3 in row 2 lies outside 1%.%.2", message(x.take, x, { 1, 3 }))
    end)

    it("blaming the caller's line", function()
      local line = debug.getinfo(1, "l").currentline + 1
      local text = message(function() return x:matmul(x) end)
      assert.matches("^tests/spec/ops_spec.lua:" .. line .. ": matmul: ", text)
    end)

    it("with both shapes", function() assert.matches("%[2x3%].*%[2x3%]", message(x.matmul, x, x)) end)
  end)

  it("that failed leaves everything usable", function()
    for _ = 1, 100 do pcall(x.matmul, x, x) end
    assert.same({ { 14, 32 }, { 32, 77 } }, x:matmul(x:t()):totable())
  end)

  describe("in the table", function()
    local rows = core.ops_table()

    it("is a function, a method where flagged, and described", function()
      local names = {}
      for _, row in ipairs(rows) do
        assert.is_nil(names[row.name], row.name .. " stands twice")
        names[row.name] = true
        assert.is_function(ops[row.name])
        assert.equal(row.inplace, ops[row.name .. "_"] ~= nil, row.name)
        assert.equal(row.method, core.methods[row.name] ~= nil, row.name)
        assert.is_true(#row.summary > 0 and #row.outputs > 0, row.name .. " is not described")
        assert.is_true(row.cases >= (row.differentiable and 3 or 0), row.name .. " has too few cases")
        for _, option in ipairs(row.options) do assert.is_true(#option.help > 0, row.name .. ": " .. option.name) end
        for _, input in ipairs(row.inputs) do assert.is_true(#input.help > 0, row.name .. ": " .. input.name) end
      end
      assert.is_true(#rows > 100)
    end)

    it("tells options as Lua writes them", function()
      local by_name = {}
      for _, row in ipairs(rows) do by_name[row.name] = row end
      local axis = by_name.softmax.options[1]
      assert.same({ "axis", "axis", -1 }, { axis.name, axis.kind, axis.default })
      assert.same({ 1, 1 }, by_name.conv2d.options[1].default)
      assert.equal("valid", by_name.conv2d.options[2].default)
      assert.is_true(by_name.reshape.options[1].required)
      assert.equal(1, by_name.slice.options[2].default)
    end)
  end)

  it("leaves nothing behind", function() assert.equal(before + 1, support.alive()) end)
end)
