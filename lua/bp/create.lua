--- Tensors out of nothing: bp.zeros(2, 3), bp.randn{4, 4, dtype = "f64"}, bp.arange(10), ...
--- A shape is given as numbers or as a list; dtype and requires_grad may stand in that list or in a table after it.
local core = require "bp.core"
local options = require "bp.options"

local ops = core.ops
local create = {}

-- (2, 3, {dtype=}), ({2, 3}, {dtype=}), {2, 3, dtype=} -> shape, options.
local function parse(who, ...)
  local given = table.pack(...)
  local named = {}
  local last = given[given.n]
  local function take(t)
    for key, value in pairs(t) do
      if type(key) == "string" then
        if key ~= "dtype" and key ~= "requires_grad" then
          core.error(("bp.%s: unknown option '%s'%s"):format(who, key, options.hint(key, { "dtype", "requires_grad" })))
        end
        named[key] = value
      end
    end
  end
  local shape = {}
  if options.is_plain(given[1]) then
    take(given[1])
    table.move(given[1], 1, #given[1], 1, shape)
  else
    for i = 1, given.n do
      if type(given[i]) == "number" then shape[i] = given[i] else break end
    end
  end
  if given.n > 0 and options.is_plain(last) and (given.n > 1 or last ~= given[1]) then
    take(last)
    given.n = given.n - 1
  end
  if not options.is_plain(given[1]) and #shape ~= given.n then
    core.error(("bp.%s: size %d is %s; expected a whole number"):format(who, #shape + 1, options.describe(given[#shape + 1])))
  end
  for i, size in ipairs(shape) do
    if not math.tointeger(size) or size < 0 then
      core.error(("bp.%s: size %d is %s; expected a whole number at least 0"):format(who, i, options.describe(size)))
    end
  end
  return shape, named
end

local function finish(t, named)
  if named.requires_grad then return t:requires_grad_(true) end
  return t
end

--- A tensor of numbers in nested tables, or of one number.
---@param value number|boolean|table
---@param given table|nil { dtype = "f32", requires_grad = false }
---@return table tensor
function create.tensor(value, given) return core.tensor(value, given) end

--- All zeros.
---@param ... any the shape, { dtype = "f32", requires_grad = false }
---@return table tensor
function create.zeros(...)
  local shape, named = parse("zeros", ...)
  return finish(ops.full{ shape = shape, value = 0, dtype = named.dtype or "f32" }, named)
end

--- All ones.
---@param ... any the shape, { dtype = "f32", requires_grad = false }
---@return table tensor
function create.ones(...)
  local shape, named = parse("ones", ...)
  return finish(ops.full{ shape = shape, value = 1, dtype = named.dtype or "f32" }, named)
end

--- One number everywhere.
---@param shape table|integer
---@param value number
---@param given table|nil { dtype = "f32", requires_grad = false }
---@return table tensor
function create.full(shape, value, given)
  local sizes, named = parse("full", shape, given)
  if type(value) ~= "number" and type(value) ~= "boolean" then
    core.error("bp.full: the value is " .. options.describe(value) .. "; expected a number")
  end
  local number = type(value) == "boolean" and (value and 1 or 0) or value
  return finish(ops.full{ shape = sizes, value = number, dtype = named.dtype or (type(value) == "boolean" and "bool" or "f32") }, named)
end

--- The numbers from start to stop, both included, like Lua's `for`: arange(5) is 1 2 3 4 5.
---@param start number first number; alone it is the last, and the first is 1
---@param stop number|nil
---@param step number|nil default 1
---@param given table|nil { dtype = "i64" for whole numbers, else "f32" }
---@return table tensor
function create.arange(start, stop, step, given)
  if options.is_plain(stop) then stop, given = nil, stop end
  if options.is_plain(step) then step, given = nil, step end
  if stop == nil then start, stop = 1, start end
  step = step or 1
  for i, v in ipairs{ start or false, stop or false, step } do
    if type(v) ~= "number" then core.error(("bp.arange: value %d is %s; expected a number"):format(i, options.describe(v))) end
  end
  if step == 0 then core.error("bp.arange: the step is 0; expected another number") end
  local _, named = parse("arange", {}, given)
  local whole = math.tointeger(start) and math.tointeger(stop) and math.tointeger(step)
  local n = math.max(0, math.floor((stop - start) / step + 1e-9) + 1)
  local numbers = ops.arange{ start = 0, stop = n, step = 1, dtype = whole and "i64" or "f64" } * step + start
  return finish(ops.cast(numbers, { dtype = named.dtype or (whole and "i64" or "f32") }), named)
end

--- n numbers evenly from start to stop, both included.
---@param start number
---@param stop number
---@param n integer
---@param given table|nil { dtype = "f32", requires_grad = false }
---@return table tensor
function create.linspace(start, stop, n, given)
  local _, named = parse("linspace", {}, given)
  if type(start) ~= "number" or type(stop) ~= "number" then core.error("bp.linspace: expected two numbers, start and stop") end
  if not math.tointeger(n) or n < 1 then
    core.error("bp.linspace: the number of values is " .. options.describe(n) .. "; expected a whole number at least 1")
  end
  local share = ops.arange{ start = 0, stop = n, step = 1, dtype = "f64" } * (1 / math.max(1, n - 1))
  return finish(ops.cast((1 - share) * start + share * stop, { dtype = named.dtype or "f32" }), named)
end

--- Ones on the diagonal, zeros elsewhere.
---@param n integer rows
---@param m integer|table|nil columns (default n)
---@param given table|nil { dtype = "f32" }
---@return table tensor
function create.eye(n, m, given)
  if options.is_plain(m) then m, given = nil, m end
  local _, named = parse("eye", {}, given)
  return finish(ops.eye{ n = n, m = m or n, dtype = named.dtype or "f32" }, named)
end

-- ---- random, from the stream "noise" -------------------------------------------------------------------------------------------------

local function stream() return core.stream("noise") end

--- Uniform between 0 (included) and 1 (excluded).
---@param ... any the shape, { dtype = "f32", requires_grad = false }
---@return table tensor
function create.rand(...)
  local shape, named = parse("rand", ...)
  return finish(ops.random_uniform(stream(), { shape = shape, dtype = named.dtype or "f32" }), named)
end

--- Standard normal.
---@param ... any the shape, { dtype = "f32", requires_grad = false }
---@return table tensor
function create.randn(...)
  local shape, named = parse("randn", ...)
  return finish(ops.random_normal(stream(), { shape = shape, dtype = named.dtype or "f32" }), named)
end

--- Whole numbers from low to high, both included.
---@param low integer
---@param high integer
---@param ... any the shape, { dtype = "i64" }
---@return table tensor
function create.randint(low, high, ...)
  local shape, named = parse("randint", ...)
  for _, v in ipairs{ low or false, high or false } do
    if not math.tointeger(v) then
      core.error("bp.randint: a limit is " .. options.describe(v) .. "; expected whole numbers low, high, then the shape")
    end
  end
  if low > high then core.error(("bp.randint: low is %d, above high %d"):format(low, high)) end
  return ops.random_integers(stream(), { shape = shape, low = low, high = high, dtype = named.dtype or "i64" })
end

--- The numbers 1..n in random order.
---@param n integer
---@return table tensor i64
function create.randperm(n)
  if not math.tointeger(n) or n < 0 then
    core.error("bp.randperm: n is " .. options.describe(n) .. "; expected a whole number at least 0")
  end
  return ops.random_permutation(stream(), { n = n })
end

-- ---- like another --------------------------------------------------------------------------------------------------------------------

-- Each name_like(t, options) makes a tensor of t's shape and dtype.
local function like(name, make)
  create[name .. "_like"] = function(t, given)
    if not core.is_tensor(t) then core.error(("bp.%s_like: the value is %s; expected a tensor"):format(name, options.describe(t))) end
    local _, named = parse(name .. "_like", {}, given)
    return make(t:shape(), { dtype = named.dtype or t.dtype, requires_grad = named.requires_grad })
  end
end
like("zeros", create.zeros)
like("ones", create.ones)
like("rand", create.rand)
like("randn", create.randn)

--- One number everywhere, in the shape and dtype of another tensor.
---@param t table tensor
---@param value number
---@param given table|nil { dtype =, requires_grad = false }
---@return table tensor
function create.full_like(t, value, given)
  if not core.is_tensor(t) then core.error("bp.full_like: the value is " .. options.describe(t) .. "; expected a tensor") end
  local _, named = parse("full_like", {}, given)
  return create.full(t:shape(), value, { dtype = named.dtype or t.dtype, requires_grad = named.requires_grad })
end

return create
