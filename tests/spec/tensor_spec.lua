local core = require "bp.core"
local support = require "support.core"
local failure = support.failure

local tensor, ops = core.tensor, core.ops

describe("a tensor", function()
  local before = support.alive()

  describe("made from Lua values", function()
    it("takes shape and f32 from nested tables", function()
      local t = tensor { { 1, 2, 3 }, { 4, 5, 6 } }
      assert.same({ 2, 3 }, t:shape())
      assert.equal("f32", t.dtype)
      assert.equal(2, t.ndim)
      assert.equal(2, #t)
      assert.equal(6, t:numel())
      assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, t:totable())
    end)

    it("has no dimensions when made from a number", function()
      local t = tensor(2.5)
      assert.same({}, t:shape())
      assert.equal(2.5, t:item())
    end)

    it("is bool when made from booleans", function()
      local t = tensor { true, false }
      assert.equal("bool", t.dtype)
      assert.same({ true, false }, t:totable())
    end)

    it("keeps 64-bit integers whole", function()
      local big = (1 << 62) + 1
      local t = tensor({ big, -big }, { dtype = "i64" })
      assert.same({ big, -big }, t:totable())
      assert.equal(big, t[1]:item())
      assert.equal("integer", math.type(t[1]:item()))
    end)

    it("can be empty", function()
      assert.same({ 0 }, tensor({}):shape())
      assert.same({ 2, 0 }, tensor({ {}, {} }):shape())
      assert.same({ {}, {} }, tensor({ {}, {} }):totable())
    end)

    it("names the row that is too short, too long or no row", function()
      assert.matches("tensor: entry %[2%] has 2 entries, but the first of its kind has 3; all rows must be of one length",
        failure(tensor, { { 1, 2, 3 }, { 4, 5 } }))
      assert.matches("entry %[2%]%[1%] has 1 entries", failure(tensor, { { { 1, 2 } }, { { 3 } } }))
      assert.matches("entry %[2%] is 5, but its neighbours are tables of 1 entries", failure(tensor, { { 1 }, 5 }))
      assert.matches("entry %[2%] is a table, where others hold values", failure(tensor, { 1, { 5 } }))
    end)

    it("names the entry that does not fit", function()
      assert.matches("entry %[1%]%[2%] is 'x'; a number is expected", failure(tensor, { { 1, "x" } }))
      assert.matches("entry %[2%] is 1.5; i64 holds whole numbers", failure(tensor, { 1, 1.5 }, { dtype = "i64" }))
      assert.matches("256; u8 holds 0 to 255", failure(tensor, { 256 }, { dtype = "u8" }))
      assert.matches("entry %[1%] is a tensor; join tensors with stack or concat", failure(tensor, { tensor(1) }))
      assert.matches("nested deeper than 8", failure(tensor, { { { { { { { { { 1 } } } } } } } } }))
      local endless = {}
      endless[1] = endless
      assert.matches("nested deeper than 8", failure(tensor, endless))
    end)

    it("knows its options", function()
      assert.matches("unknown option 'dtyp' %(did you mean 'dtype'%?%); the options are dtype, requires_grad",
        failure(tensor, { 1 }, { dtyp = "f64" }))
      assert.matches("unknown dtype 'float32'", failure(tensor, { 1 }, { dtype = "float32" }))
      assert.matches("did you mean 'f32'", failure(tensor, { 1 }, { dtype = "f23" }))
      assert.matches("option 'requires_grad' is 1; true or false is expected", failure(tensor, { 1 }, { requires_grad = 1 }))
      assert.matches("is a tensor already", failure(tensor, tensor { 1 }))
    end)
  end)

  it("goes to bytes and back", function()
    for _, dtype in ipairs { "f32", "f64", "i32", "i64", "u8" } do
      local t = tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, { dtype = dtype })
      local back = core.from_bytes(t:t():to_bytes(), dtype, { 3, 2 })
      assert.same(t:t():totable(), back:totable())
      assert.equal(dtype, back.dtype)
    end
    assert.same({ 65, 66 }, core.from_bytes("AB"):totable())
    assert.same({ true, false }, core.from_bytes("\2\0", "bool"):totable())
    assert.matches("5 bytes for a tensor f32 %[1%], which takes 4", failure(core.from_bytes, "12345", "f32"))
    assert.matches("8 bytes for a tensor f32 %[3%], which takes 12", failure(core.from_bytes, "12345678", "f32", { 3 }))
    assert.matches("a size is %-1; sizes are 0 or more", failure(core.from_bytes, "12345678", "f32", { -1 }))
    assert.matches("a size is 1.5; sizes are whole numbers", failure(core.from_bytes, "12345678", "f32", { 1.5 }))
  end)

  describe("indexed", function()
    local t = tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    core.keep(t)

    it("by a position gives a view, counted from 1 and from the end", function()
      assert.same({ 4, 5, 6 }, t[2]:totable())
      assert.same({ 4, 5, 6 }, t[-1]:totable())
      assert.equal(6, t[2][3]:item())
      assert.is_true(t[1]:shares_memory(t))
    end)

    it("by a table takes positions and ranges with both ends", function()
      assert.equal(5, t[{ 2, 2 }]:item())
      assert.same({ { 2, 3 }, { 5, 6 } }, t[{ {}, { 2, 3 } }]:totable())
      assert.same({ 1, 4 }, t[{ {}, 1 }]:totable())
      assert.same({ { 1, 3 }, { 4, 6 } }, t[{ {}, { 1, 3, 2 } }]:totable())
      assert.same({ { 5, 6 } }, t[{ { 2, 2 }, { -2, -1 } }]:totable())
      assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, t[{}]:totable())
      assert.same({ 0, 3 }, t[{ { 1, 0 } }]:shape())
      assert.same({ 0, 3 }, t[{ { 3, 2 } }]:shape())
    end)

    it("by a mask or by positions picks", function()
      assert.same({ 4, 5, 6 }, t[t:gt(3)]:totable())
      assert.same({ { 4, 5, 6 }, { 1, 2, 3 }, { 4, 5, 6 } }, t[tensor({ 2, 1, 2 }, { dtype = "i64" })]:totable())
    end)

    it("says what is wrong with an index", function()
      local function at(key) return function() return t[key] end end
      assert.matches("index 3 of dimension 1 lies outside 1%.%.2 %(tensor f32 %[2x3%]%)", failure(at(3)))
      assert.matches("index 0 of dimension 1", failure(at(0)))
      assert.matches("index %-3 of dimension 1", failure(at(-3)))
      assert.matches("index 4 of dimension 2 lies outside 1%.%.3", failure(at { 1, 4 }))
      assert.matches("index 4 of dimension 2 lies outside 1%.%.3", failure(at { 1, { 2, 4 } }))
      assert.matches("3 indices for a tensor of 2 dimensions %[2x3%]", failure(at { 1, 1, 1 }))
      assert.matches("the range for dimension 1 has 1 entries", failure(at { { 1 } }))
      assert.matches("the range {2, 1} for dimension 2 runs backwards", failure(at { {}, { 3, 1 } }):gsub("{3, 1}", "{2, 1}"))
      assert.matches("has step 0; a step is 1 or more", failure(at { { 1, 2, 0 } }))
      assert.matches("the index for dimension 1 is 'a'", failure(at { "a" }))
      assert.matches("not by 1.5", failure(at(1.5)))
      assert.matches("not by true", failure(at(true)))
      assert.matches("no dimensions; its value is t:item%(%)", failure(function() return tensor(1)[1] end))
      assert.is_nil(t.shap)
    end)
  end)

  describe("assigned to", function()
    local t
    before_each(function() t = tensor { { 1, 2, 3 }, { 4, 5, 6 } } end)
    after_each(function() t:free() end)

    it("takes numbers, tensors and tables, broadcast and converted", function()
      t[1] = 0
      assert.same({ { 0, 0, 0 }, { 4, 5, 6 } }, t:totable())
      t[{ 2, 3 }] = 9
      assert.equal(9, t[2][3]:item())
      t[{ {}, { 1, 2 } }] = tensor({ 7, 8 }, { dtype = "i32" })
      assert.same({ { 7, 8, 0 }, { 7, 8, 9 } }, t:totable())
      t[2] = { 1, 2, 3 }
      assert.same({ 1, 2, 3 }, t[2]:totable())
      t[{}] = 5
      assert.same({ { 5, 5, 5 }, { 5, 5, 5 } }, t:totable())
    end)

    it("writes where a mask holds", function()
      t[t:gt(3)] = -1
      assert.same({ { 1, 2, 3 }, { -1, -1, -1 } }, t:totable())
      t[t:lt(0)] = t * 10
      assert.same({ { 1, 2, 3 }, { -10, -10, -10 } }, t:totable())
    end)

    it("may read what it writes", function()
      t[1] = t[2]
      assert.same({ { 4, 5, 6 }, { 4, 5, 6 } }, t:totable())
      t[{ {}, { 1, 2 } }] = t[{ {}, { 2, 3 } }]
      assert.same({ { 5, 6, 6 }, { 5, 6, 6 } }, t:totable())
    end)

    it("says what does not fit", function()
      local function set(key, v) return function() t[key] = v end end
      assert.matches("%[2%].*%[3%]", failure(set(1, { 1, 2 })))
      assert.matches("the value is 'x'", failure(set(1, "x")))
      assert.matches("the value is nil", failure(set(1, nil)))
      assert.matches("index 3 of dimension 1", failure(set(3, 1)))
      assert.matches("a tensor has no field 'grd' to set %(did you mean 'grad'%?%)", failure(set("grd", 1)))
      local bytes = tensor({ 1 }, { dtype = "u8" })
      assert.matches("300; u8 holds 0 to 255", failure(function() bytes[1] = 300 end))
      assert.matches("0.5; u8 holds whole numbers", failure(function() bytes[1] = 0.5 end))
      assert.matches("assignment through a tensor of f32; a bool mask is expected", failure(function() t[t] = 1 end))
    end)

    it("fills and copies", function()
      assert.equal(t, t:fill_(3))
      assert.same({ { 3, 3, 3 }, { 3, 3, 3 } }, t:totable())
      assert.equal(t, t:copy_(tensor { 1, 2, 3 }))
      assert.same({ { 1, 2, 3 }, { 1, 2, 3 } }, t:totable())
    end)
  end)

  describe("operator", function()
    local a = core.keep(tensor { 1, 2, 3 })

    it("works with tensors and numbers on either side, and broadcasts", function()
      assert.same({ 2, 4, 6 }, (a + a):totable())
      assert.same({ 3, 4, 5 }, (a + 2):totable())
      assert.same({ 1, 0, -1 }, (2 - a):totable())
      assert.same({ 1, 4, 9 }, (a * a):totable())
      assert.same({ 0.5, 1, 1.5 }, (a / 2):totable())
      assert.same({ 1, 4, 9 }, (a ^ 2):totable())
      assert.same({ 1, 0, 1 }, (a % 2):totable())
      assert.same({ -1, -2, -3 }, (-a):totable())
      assert.same({ { 2, 3, 4 }, { 3, 4, 5 } }, (a + tensor { { 1 }, { 2 } }):totable())
    end)

    it("keeps the dtype of the tensor when the other side is a number", function()
      local f64, i64, i32 = a:to "f64", a:to "i64", a:to "i32"
      assert.equal("f32", (a + 1).dtype)
      assert.equal("f64", (f64 + 0.1).dtype)
      assert.equal(1.1, (f64 + 0.1)[1]:item())
      assert.equal("i64", (i64 + 1).dtype)
      assert.equal("i32", (i32 * 2).dtype)
      assert.equal("i64", (i32 + (1 << 40)).dtype)
      assert.equal("f32", (i64 + 0.5).dtype)
      assert.equal("f32", (i64 / 2).dtype)
    end)

    it("compares values of one element, and identity", function()
      assert.is_true(tensor(1) < tensor(2))
      assert.is_true(tensor(1) < 2)
      assert.is_false(tensor { 3 } <= 2)
      assert.is_true(a == a)
      assert.is_false(a == a:clone())
      assert.matches("compare element by element with a:lt%(b%)", failure(function() return a < 2 end))
      assert.matches("compared with 'x'", failure(function() return tensor(1) < "x" end))
    end)

    it("says what it cannot add", function()
      assert.matches("add: input 'b' is 'x'; a tensor or a number is expected", failure(function() return a + "x" end))
      assert.matches("add: input 'a' is a table", failure(function() return {} + a end))
      assert.matches("%[3%] and %[2%]", failure(function() return a + tensor { 1, 2 } end))
    end)

    it("has a length along dimension 1", function()
      assert.equal(3, #a)
      assert.matches("no dimensions has no length", failure(function() return #tensor(1) end))
    end)
  end)

  describe("method", function()
    local t = core.keep(tensor { { 1, 2, 3 }, { 4, 5, 6 } })

    it("tells and turns shapes", function()
      assert.equal(3, t:size(2))
      assert.equal(3, t:shape(-1))
      assert.same({ 3, 1 }, t:stride())
      assert.is_true(t:is_contiguous())
      assert.is_false(t:t():is_contiguous())
      assert.same({ { 1, 4 }, { 2, 5 }, { 3, 6 } }, t:t():totable())
      assert.same(t:t():totable(), t:transpose(1, -1):totable())
      assert.matches("shape: dimension 3 of a tensor with 2", failure(t.shape, t, 3))
      assert.matches("t: a tensor of shape %[1x1x1%] is no matrix", failure(function() tensor({ { { 1 } } }):t() end))
    end)

    it("converts", function()
      assert.equal(t, t:to "f32")
      assert.equal("i32", t:to("i32").dtype)
      assert.same({ 1, -1 }, tensor({ 1.9, -1.9 }):to("i64"):totable())
      assert.matches("to: argument 1 is nothing; a dtype", failure(function() t:to() end))
    end)

    it("item() and totable() hand values over", function()
      assert.matches("item: a tensor of shape %[2x3%] has 6 values", failure(t.item, t))
      assert.equal(true, tensor(true):item())
    end)

    it("says when it was called with '.' instead of ':'", function()
      assert.matches("sum: called without its tensor, on 1; a method is called with ':', as in t:sum%(...%)", failure(t.sum, 1))
      assert.matches("item: called without its tensor, on nothing; a method is called with ':'", failure(t.item))
      assert.matches("to: called without its tensor, on 'f64'", failure(t.to, "f64"))
    end)
  end)

  describe("printed", function()
    it("shows dtype and shape, and aligns", function()
      assert.equal("[bp.Tensor f32 2x2]\n  1 -2\n 30  4", tostring(tensor { { 1, -2 }, { 30, 4 } }))
      assert.equal("[bp.Tensor f32 2]\n  0.5000 -1.2500", tostring(tensor { 0.5, -1.25 }))
      assert.equal("[bp.Tensor i64] 7", tostring(tensor(7, { dtype = "i64" })))
      assert.equal("[bp.Tensor bool 2]\n  true false", tostring(tensor { true, false }))
      assert.equal("[bp.Tensor f32 0]", tostring(tensor {}))
      assert.equal("[bp.Tensor f32 3]\n  nan  inf -inf", tostring(tensor { 0 / 0, math.huge, -math.huge }):gsub("%-nan", " nan"))
      assert.equal("[bp.Tensor f32 2]\n 1.0000e-10 2.5000e+00", tostring(tensor { 1e-10, 2.5 }))
      assert.equal("x [bp.Tensor f32] 1", "x " .. tensor(1))
    end)

    it("heads the blocks of more dimensions with their position", function()
      assert.equal("[bp.Tensor f32 2x1x2]\n(1,.,.)\n 1 2\n(2,.,.)\n 3 4", tostring(tensor { { { 1, 2 } }, { { 3, 4 } } }))
    end)

    it("leaves out the middle of many values, and breaks long rows", function()
      local text = tostring(ops.full({ 2000, 2000 }, 1))
      assert.matches("%[bp.Tensor f32 2000x2000%]\n 1 1 1 %.%.%. 1 1 1\n", text)
      assert.is_true(#text < 300)
      assert.matches("columns 1 to 48\n", tostring(ops.full({ 2, 60 }, 1)))
    end)
  end)

  describe("freed", function()
    it("by free(), by <close> or by a scope raises when used", function()
      local t = tensor { 1 }
      t:free()
      t:free()
      assert.is_true(t:is_freed())
      assert.matches("this tensor was freed %(by free%(%), <close> or bp.scope%)", failure(t.item, t))
      assert.matches("was freed", failure(function() return t + 1 end))
      assert.matches("was freed", failure(function() return t[1] end))
      assert.matches("was freed", failure(function() t[1] = 1 end))
      assert.equal("[bp.Tensor freed]", tostring(t))
      local closed
      do
        local c <close> = tensor { 1 }
        closed = c
      end
      assert.is_true(closed:is_freed())
    end)

    it("leaves views of the same memory alive", function()
      local t = tensor { 1, 2 }
      local v = t[1]
      t:free()
      assert.equal(1, v:item())
    end)
  end)

  it("of another library's userdata is none", function()
    assert.is_false(core.is_tensor(io.stdout))
    assert.is_false(core.is_tensor(nil))
    assert.is_true(core.is_tensor(tensor(1)))
    assert.matches("is a FILE%*", failure(ops.exp, io.stdout))
  end)

  it("leaves nothing behind", function()
    -- three were kept on purpose
    assert.equal(before + 3, support.alive())
  end)
end)
