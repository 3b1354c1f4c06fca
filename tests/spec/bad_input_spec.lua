--- Misuse of tensors, ops, gradients and captures: each raises an error that says where, what was found, and how to mend it; and
-- leaves everything working. (Layers and training: bad_training_spec; files: bad_files_spec.)
local bp = require "bp"
local bad = require "support.bad"
local ops = bp.ops

local t = bp.ones(2, 3)
local labels = bp.tensor({ 1, 2 }, { dtype = "i64" })

local function leaf(...) return bp.tensor({ ... }, { requires_grad = true }) end

local function freed()
  local x = bp.ones(2)
  x:free()
  return x
end

describe("making a tensor refuses", function()
  bad.cases{
    { "nothing", function() bp.tensor() end, "tensor: argument 1 is nil", "a number or a table of numbers is expected" },
    { "a string", function() bp.tensor "x" end, "the value is 'x'", "a number is expected" },
    { "a tensor", function() bp.tensor(t) end, "argument 1 is a tensor already", "t:clone() copies it" },
    { "rows of different lengths", function() bp.tensor{ { 1, 2 }, { 3 } } end, "entry [2] has 1 entries",
      "the first of its kind has 2; all rows must be of one length" },
    { "numbers beside tables", function() bp.tensor{ 1, { 2 } } end, "entry [2] is a table, where others hold values",
      "a number is expected" },
    { "a table with holes", function() bp.tensor{ 1, nil, 3 } end, "entry [2] is nil", "a number is expected" },
    { "strings inside", function() bp.tensor{ { 1, "2" } } end, "entry [1][2] is '2'", "a number is expected" },
    { "tensors inside", function() bp.tensor{ t, t } end, "entry [1] is a tensor", "join tensors with stack or concat" },
    { "a fraction in i64", function() bp.tensor({ 1, 1.5 }, { dtype = "i64" }) end, "entry [2] is 1.5", "i64 holds whole numbers" },
    { "300 in u8", function() bp.tensor({ 300 }, { dtype = "u8" }) end, "300", "u8 holds 0 to 255" },
    { "nan in i32", function() bp.tensor({ 0 / 0 }, { dtype = "i32" }) end, "nan", "i32 holds whole numbers" },
    { "an unknown dtype", function() bp.tensor({ 1 }, { dtype = "f23" }) end, "unknown dtype 'f23' (did you mean 'f32'?)",
      "one of f32, f64, i32, i64, u8, bool is expected" },
    { "a dtype that is no name", function() bp.tensor({ 1 }, { dtype = 32 }) end, "32", "one of f32" },
    { "an unknown option", function() bp.tensor({ 1 }, { dtpye = "f32" }) end, "unknown option 'dtpye' (did you mean 'dtype'?)", "dtype" },
    { "a size that is no number", function() bp.zeros("2") end, 'bp.zeros: size 1 is a string ("2")', "expected a whole number" },
    { "nil as a size", function() bp.zeros(2, nil, 3) end, "size 2 is nil", "expected a whole number" },
    { "a negative size", function() bp.zeros(2, -1) end, "size 2 is a number (-1)", "expected a whole number at least 0" },
    { "a fractional size", function() bp.rand(1.5) end, "bp.rand: size 1 is a number (1.5)", "expected a whole number at least 0" },
    { "nan as a size", function() bp.randn(0 / 0) end, "nan", "expected a whole number at least 0" },
    { "inf as a size", function() bp.ones(math.huge) end, "size 1 is a number (inf)", "expected a whole number at least 0" },
    { "2^53 rows of as many", function() bp.zeros(2 ^ 53, 2 ^ 53) end, "9007199254740992x9007199254740992",
      "more elements than can be addressed" },
    { "more bytes than there are", function() bp.zeros(2 ^ 45) end, "out of memory", "more bytes wanted",
      "use smaller batches or free tensors" },
    { "nine dimensions", function() bp.zeros(1, 1, 1, 1, 1, 1, 1, 1, 1) end, "9", "8" },
    { "an unknown option of zeros", function() bp.zeros(2, { dtyp = "f64" }) end, "unknown option 'dtyp'", "did you mean 'dtype'?" },
    { "a fill that is no number", function() bp.full({ 2 }, "x") end, 'the value is a string ("x")', "expected a number" },
    { "a step of 0", function() bp.arange(1, 5, 0) end, "the step is 0", "expected another number" },
    { "an arange of nothing", function() bp.arange() end, "value 2 is", "expected a number" },
    { "no points", function() bp.linspace(0, 1, 0) end, "number of values is a number (0)", "expected a whole number at least 1" },
    { "a range of whole numbers that runs backwards", function() bp.randint(5, 1, 3) end, "low is 5", "above high 1" },
    { "a permutation of -1", function() bp.randperm(-1) end, "n is a number (-1)", "expected a whole number at least 0" },
    { "the likeness of a number", function() bp.zeros_like(3) end, "the value is a number (3)", "expected a tensor" },
    { "a gradient for integers", function() bp.zeros(2, { dtype = "i64", requires_grad = true }) end, "i64 has no gradient",
      "cast it to f32 or f64" },
  }
end)

describe("an op refuses", function()
  bad.cases{
    { "shapes that do not broadcast", function() local _ = t + bp.ones(4) end, "add: shapes [2x3] and [4] do not fit together",
      "3 meets 4", "reshape or unsqueeze one of them" },
    { "a product whose inner sizes differ", function() t:matmul(bp.ones(4, 2)) end, "matmul: a is [2x3] and b is [4x2]",
      "the last size of a must equal the last but one of b" },
    { "a string as operand", function() local _ = t + "x" end, "'x'", "a number" },
    { "nil as operand", function() local _ = t * nil end, "mul: input 'b' is missing", "it is values" },
    { "nothing as input", function() ops.exp() end, "exp: input 'x' is missing", "it is values of any shape" },
    { "a table as input", function() ops.matmul(t, { 1, 2, 3 }) end, "matmul", "tensor" },
    { "an unknown option", function() t:sum{ axs = 1 } end, "sum: unknown option 'axs'", "did you mean 'axes'?" },
    { "options of an op that has none", function() t:relu{ slope = 1 } end, "relu: unknown option 'slope'", "it has no options" },
    { "an argument too many", function() t:exp(1, 2) end, "exp", "one argument too many" },
    { "an axis out of range", function() t:sum(3) end, "dimension 3 of a tensor with 2", "1 to 2 or -2 to -1 is expected" },
    { "axis 0", function() t:argmax(0) end, "axis' is 0", "it counts from 1, and from the end with -1" },
    { "an axis twice", function() t:sum{ axes = { 1, -2 } } end, "dimension 1 is named twice", "axes" },
    { "a fractional axis", function() t:mean(1.5) end, "1.5", "a dimension or a list of dimensions" },
    { "a shape of another size", function() t:reshape(4, 2) end, "[2x3], 6 elements", "do not fill shape [4x2]" },
    { "-1 twice", function() t:reshape(-1, -1) end, "-1 in two places", "one size at most can be worked out" },
    { "a permutation that is none", function() t:permute{ 1, 1 } end, "dimension 1 is named twice", "permute" },
    { "a permutation that is too short", function() t:permute{ 1 } end, "axes has 1 entries for a tensor of 2 dimensions",
      "each dimension must come once" },
    { "joining other widths", function() bp.concat{ t, bp.ones(2, 4) } end, "concat", "[2x3]", "[2x4]" },
    { "stacking other shapes", function() bp.stack{ t, bp.ones(3, 2) } end, "stack", "[2x3]", "[3x2]" },
    { "joining nothing", function() bp.concat{} end, "concat", "tensors" },
    { "joining a tensor and a number", function() bp.concat{ t, "x" } end, "'x'", "a tensor is expected" },
    { "an index out of range", function() t:take(bp.tensor({ 1, 3 }, { dtype = "i64" }), 1) end, "take: index 3", "lies outside 1..2" },
    { "index 0", function() t:take(bp.tensor({ 0 }, { dtype = "i64" }), 1) end, "index 0", "count from 1" },
    { "an index of fractions", function() t:take(bp.ones(2), 1) end, "f32", "i64" },
    { "a class out of range", function() bp.one_hot(labels, { classes = 1 }) end, "one_hot", "2", "1..1" },
    { "a class of 0", function() bp.one_hot(labels - 1, { classes = 2 }) end, "one_hot", "0", "count from 1" },
    { "an operation on a freed tensor", function() local _ = freed() + 1 end, "this tensor was freed",
      "return it from the scope, or keep it" },
    { "reading a freed tensor", function() freed():totable() end, "this tensor was freed", "return it from the scope, or keep it" },
    { "a tensor that left its scope", function()
      local kept
      bp.scope(function() kept = bp.ones(2) end)
      kept:sum()
    end, "this tensor was freed", "bp.scope", "keep it with bp.keep" },
    { "a method called with '.'", function() t.reshape({ 3, 2 }) end, "reshape: called without its tensor, on a table",
      "':', as in t:reshape(...)" },
    { "a method called with '.' on nothing", function() t.item() end, "item: called without its tensor", "':', as in t:item(...)" },
    { "an unknown choice", function() ops.conv2d(bp.ones(1, 4, 4, 1), bp.ones(3, 3, 1, 1), { padding = "sane" }) end,
      "option 'padding' is 'sane' (did you mean 'same'?)", "one of" },
    { "an option below its range", function() ops.dropout(t, { p = -0.5 }) end, "dropout", "-0.5", "p" },
    { "an option that is nan", function() ops.dropout(t, { p = 0 / 0 }) end, "dropout", "nan", "p" },
    { "an option given twice", function() t:sum(1, { axes = 1 }) end, "sum", "given twice" },
  }
end)

describe("indexing refuses", function()
  bad.cases{
    { "a position out of range", function() local _ = t[3] end, "index 3 of dimension 1 lies outside 1..2",
      "positions count from 1, from the end with -1" },
    { "position 0", function() local _ = t[0] end, "0", "count from 1" },
    { "too many positions", function() local _ = t[{ 1, 1, 1 }] end, "3 indices for a tensor of 2 dimensions", "[2x3]" },
    { "a fraction", function() local _ = t[1.5] end, "1.5", "position" },
    { "a range that runs backwards", function() local _ = bp.ones(3)[{ { 3, 1 } }] end, "the range {3, 1} for dimension 1 runs backwards",
      "flip turns a dimension round" },
    { "a range of one number", function() local _ = t[{ { 1 } }] end, "the range for dimension 1 has 1 entries", "it is {first, last}" },
    { "a range beyond the end", function() local _ = t[{ { 1, 4 } }] end, "4", "1..2" },
    { "into a number", function() local _ = t:sum()[1] end, "index 1 into a tensor with no dimensions", "its value is t:item()" },
    { "a mask of another shape", function() local _ = t[bp.ones(3, 2):gt(0)] end, "[2x3]", "[3x2]" },
    { "assigning a shape that does not fit", function() t[1] = bp.ones(4) end, "[3]", "[4]" },
    { "assigning a string", function() t[1] = "x" end, "the value is 'x'", "a number, a tensor or a table of numbers is expected" },
    { "setting a field that there is not", function() t.requires_gard = true end,
      "no field 'requires_gard' to set (did you mean 'requires_grad'?)",
      "grad and requires_grad can be set" },
    { "item of many", function() t:item() end, "a tensor of shape [2x3] has 6 values", "index one of them, or use totable()" },
  }
end)

describe("autograd refuses", function()
  bad.cases{
    { "backward of what needs no gradient", function() t:sum():backward() end, "this value depends on nothing that requires a gradient",
      "call requires_grad_() on a leaf" },
    { "backward twice", function()
      local y = leaf(1, 2):sum()
      y:backward()
      y:backward()
    end, "the history of 'sum' was already used up", "pass retain_graph = true to the first one" },
    { "backward of many numbers", function() leaf(1, 2):exp():backward() end, "a value of shape [2] is not a single number",
      "reduce it (sum, mean) or pass its gradient" },
    { "a seed of another shape", function() leaf(1, 2):exp():backward{ grad = bp.ones(3) } end, "the gradient given is f32 [3]",
      "the value is f32 [2]" },
    { "an unknown option of backward", function() leaf(1):sum():backward{ retain = true } end, "unknown option 'retain'",
      "did you mean 'retain_graph'?" },
    { "a gradient of another shape", function() leaf(1, 2).grad = bp.ones(3) end, "grad: f32 [3]", "does not fit a tensor of f32 [2]" },
    { "a gradient that is no tensor", function() leaf(1, 2).grad = 3 end, "grad is set to 3", "a tensor or nil is expected" },
    { "in place on a parameter", function() leaf(1, 2):add_(1) end, "in place on a tensor that requires a gradient",
      "bp.no_grad to set it" },
    { "in place on what backward needs", function()
      local x = leaf(1, 2)
      local y = x:exp()
      y:add_(1)
      y:sum():backward()
    end, "in place", "use the form without '_'" },
    { "a view of another size", function() bp.zeros(2, 3):view(4) end, "view: 'x' has shape [2x3], 6 elements", "do not fill shape [4]" },
    { "in place behind a view's back", function()
      local data = bp.ones(2)
      local y = (leaf(1, 2) * data):sum()
      data:add_(1)
      y:backward()
    end, "in place", "use the form without '_'" },
    { "in place with a wider operand", function() bp.ones(3):add_(t) end, "[3]", "[2x3]" },
    { "in place into integers", function() bp.ones(3, { dtype = "i64" }):div_(2) end, "div", "i64" },
    { "requires_grad of integers", function() labels:requires_grad_() end, "i64 has no gradient", "cast it to f32 or f64" },
    { "freezing a result", function() leaf(1):exp():requires_grad_(false) end, "the result of an op has a history", "detach() it instead" },
    { "grad of what is no function", function() bp.grad(3) end, "the value is a number (3)", "expected a function" },
    { "grad of a vector", function() bp.grad(function(x) return x * 2 end)(bp.ones(2)) end, "a tensor f32 [2]",
      "expected a tensor of one number: sum() or mean() it" },
    { "grad of nothing that has one", function() bp.grad(function(x) return x:sum() end)(labels) end, "holds no f32 or f64 tensor",
      "expected a tensor or a table of tensors" },
  }
end)

describe("a capture refuses", function()
  bad.cases{
    { "what is no function", function() bp.capture(3) end, "the value is a number (3)", "expected a function" },
    { "reading a traced value", function()
      local f = bp.capture(function(x)
        local y = x:sum():item()
        return y
      end)
      f(t)
    end, "this value belongs to a step being captured", "return the tensor from the captured function and read it outside" },
    { "deciding on a traced value", function()
      local f = bp.capture(function(x)
        if x:totable()[1] == 1 then return x end
      end)
      f(bp.ones(2))
    end, "this value belongs to a step being captured", "return the tensor from the captured function and read it outside" },
    { "printing a traced value", function()
      local f = bp.capture(function(x)
        local text = ("%s"):format(x:item())
        return text and x
      end)
      f(bp.ones(1))
    end, "this value belongs to a step being captured", "return the tensor" },
    { "selecting by a mask, whose size is not known", function()
      local f = bp.capture(function(x)
        local y = x[x:gt(0)]
        return y
      end)
      f(t)
    end, "masked_select", "captur" },
    { "a capture inside a capture", function()
      local inner = bp.capture(function(x) return x + 1 end)
      local outer = bp.capture(function(x)
        local y = inner(x)
        return y
      end)
      outer(t)
    end, "a captured function is called inside another capture", "call the plain function there" },
    { "an error of its own function, passed on", function()
      local f = bp.capture(function(x)
        local y = x + bp.ones(7)
        return y
      end)
      f(t)
    end, "add: shapes [2x3] and [7]", "do not fit together" },
  }
end)
