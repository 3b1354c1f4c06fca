--- Initialisers: functions (shape, options) -> tensor, by name. Fans follow Keras: the last two dimensions are inputs and outputs, what
--- lies before them is the receptive field ([kh][kw][in][out]). The normal kinds draw from a normal cut at two standard deviations, widened
--- so that the result has the variance asked for, as Keras does. All draw from the stream "init".
local core = require "bp.core"
local options = require "bp.options"

local ops = core.ops
local init = {}

-- Standard deviation of a standard normal cut at +-2: what a truncated draw is divided by.
local TRUNCATED_DEVIATION = 0.87962566103423978

local common = { { "dtype", "choice", choices = { "f32", "f64" }, default = "f32", named = true, help = "dtype of the tensor" } }

local function declare(name, summary, fields)
  for _, field in ipairs(common) do fields[#fields + 1] = field end
  return options.define("init." .. name, summary, fields)
end

local function sizes(spec, shape)
  if math.tointeger(shape) then shape = { shape } end
  if type(shape) ~= "table" then spec:fail("the shape is %s; expected a list of sizes", options.describe(shape)) end
  return shape
end

-- fan_in, fan_out of a shape.
local function fans(shape)
  local n = #shape
  if n == 0 then return 1, 1 end
  if n == 1 then return shape[1], shape[1] end
  local field = 1
  for i = 1, n - 2 do field = field * shape[i] end
  return shape[n - 1] * field, shape[n] * field
end

local function stream() return core.stream("init") end

local function uniform(shape, low, high, dtype)
  return ops.random_uniform(stream(), { shape = shape, low = low, high = high, dtype = dtype })
end

-- Normal cut at +-2 deviations, by inverting the distribution function: x = sqrt(2) * erfinv(u) with u uniform in +-erf(sqrt(2)).
-- erfinv by Newton's method from Winitzki's closed form, in f64, on the whole tensor.
local function truncated(shape, mean, deviation, dtype)
  local bound = 0.95449973610364158 -- erf(sqrt(2))
  local u = ops.random_uniform(stream(), { shape = shape, low = -bound, high = bound, dtype = "f64" })
  local a = 0.147
  local l = ops.log1p(-ops.square(u))
  local t = l * 0.5 + 2 / (math.pi * a)
  local x = ops.sign(u) * ops.sqrt(ops.sqrt(ops.square(t) - l * (1 / a)) - t)
  for _ = 1, 3 do
    x = x - (ops.erf(x) - u) * ops.exp(ops.square(x)) * (math.sqrt(math.pi) / 2)
  end
  return ops.cast(x * (math.sqrt(2) * deviation) + mean, { dtype = dtype })
end

local function scaled(name, summary, kind, scale, fan)
  local spec = declare(name, summary, {})
  init[name] = function(shape, given)
    local o = spec:read(given)
    shape = sizes(spec, shape)
    local fan_in, fan_out = fans(shape)
    local variance = scale / math.max(1, fan == "in" and fan_in or (fan_in + fan_out) / 2)
    if kind == "uniform" then
      local limit = math.sqrt(3 * variance)
      return uniform(shape, -limit, limit, o.dtype)
    end
    return truncated(shape, 0, math.sqrt(variance) / TRUNCATED_DEVIATION, o.dtype)
  end
end

scaled("glorot_uniform", "Uniform with variance 2 / (fan_in + fan_out).", "uniform", 1, "average")
scaled("glorot_normal", "Truncated normal with variance 2 / (fan_in + fan_out).", "normal", 1, "average")
scaled("he_uniform", "Uniform with variance 2 / fan_in.", "uniform", 2, "in")
scaled("he_normal", "Truncated normal with variance 2 / fan_in.", "normal", 2, "in")
scaled("lecun_uniform", "Uniform with variance 1 / fan_in.", "uniform", 1, "in")
scaled("lecun_normal", "Truncated normal with variance 1 / fan_in.", "normal", 1, "in")

local function filled(name, value)
  local spec = declare(name, ("All %s."):format(name), {})
  init[name] = function(shape, given)
    local o = spec:read(given)
    return ops.full{ shape = sizes(spec, shape), value = value, dtype = o.dtype }
  end
end
filled("zeros", 0)
filled("ones", 1)

local constant_spec = declare("constant", "One number everywhere.", { { "value", "number", default = 0, help = "the number" } })

--- One number everywhere.
---@param shape table
---@param given table|number|nil { value = 0 }
---@return table tensor
function init.constant(shape, given)
  local o = constant_spec:read(given)
  return ops.full{ shape = sizes(constant_spec, shape), value = o.value, dtype = o.dtype }
end

local uniform_spec = declare("uniform", "Uniform between two numbers.", {
  { "low", "number", default = -0.05, help = "lower end" },
  { "high", "number", default = 0.05, help = "upper end" },
})

--- Uniform between two numbers.
---@param shape table
---@param given table|nil { low = -0.05, high = 0.05 }
---@return table tensor
function init.uniform(shape, given)
  local o = uniform_spec:read(given)
  return uniform(sizes(uniform_spec, shape), o.low, o.high, o.dtype)
end

local normal_spec = declare("normal", "Normal, not truncated.", {
  { "mean", "number", default = 0, help = "mean" },
  { "std", "number", min = 0, default = 0.05, help = "standard deviation" },
})

--- Normal, not truncated.
---@param shape table
---@param given table|nil { mean = 0, std = 0.05 }
---@return table tensor
function init.normal(shape, given)
  local o = normal_spec:read(given)
  return ops.random_normal(stream(), { shape = sizes(normal_spec, shape), mean = o.mean, std = o.std, dtype = o.dtype })
end

local truncated_spec = declare("truncated_normal", "Normal, cut at two standard deviations from the mean.", {
  { "mean", "number", default = 0, help = "mean" },
  { "std", "number", min = 0, default = 0.05, help = "standard deviation before the cut" },
})

--- Normal, cut at two standard deviations from the mean; what is left varies by 0.88 of std.
---@param shape table
---@param given table|nil { mean = 0, std = 0.05 }
---@return table tensor
function init.truncated_normal(shape, given)
  local o = truncated_spec:read(given)
  return truncated(sizes(truncated_spec, shape), o.mean, o.std, o.dtype)
end

local scaling_spec = declare("variance_scaling", "Drawn with the variance scale / fan; what glorot, he and lecun are cases of.", {
  { "scale", "number", above = 0, default = 1, help = "factor of the variance" },
  { "mode", "choice", choices = { "fan_in", "fan_out", "fan_avg" }, default = "fan_in", help = "inputs, outputs, or the mean of both" },
  { "distribution", "choice", choices = { "truncated_normal", "untruncated_normal", "uniform" }, default = "truncated_normal",
    help = "what is drawn from" },
})

--- Drawn with the variance scale / fan (Keras' VarianceScaling).
---@param shape table
---@param given table|nil { scale = 1, mode = "fan_in", distribution = "truncated_normal" }
---@return table tensor
function init.variance_scaling(shape, given)
  local o = scaling_spec:read(given)
  shape = sizes(scaling_spec, shape)
  local fan_in, fan_out = fans(shape)
  local fan = o.mode == "fan_in" and fan_in or o.mode == "fan_out" and fan_out or (fan_in + fan_out) / 2
  local variance = o.scale / math.max(1, fan)
  if o.distribution == "uniform" then return uniform(shape, -math.sqrt(3 * variance), math.sqrt(3 * variance), o.dtype) end
  if o.distribution == "truncated_normal" then return truncated(shape, 0, math.sqrt(variance) / TRUNCATED_DEVIATION, o.dtype) end
  return ops.random_normal(stream(), { shape = shape, mean = 0, std = math.sqrt(variance), dtype = o.dtype })
end

local identity_spec = declare("identity", "Ones on the diagonal of the last two dimensions, at the middle of what lies before them.", {
  { "gain", "number", default = 1, help = "factor" },
})

--- Ones on the diagonal of the last two dimensions; of a convolution's weights at the middle tap, so that it passes its input on.
---@param shape table at least two dimensions
---@param given table|number|nil { gain = 1 }
---@return table tensor
function init.identity(shape, given)
  local o = identity_spec:read(given)
  shape = sizes(identity_spec, shape)
  if #shape < 2 then identity_spec:fail("a shape of %d dimensions; expected at least 2: inputs and outputs", #shape) end
  local values = ops.full{ shape = shape, value = 0, dtype = o.dtype }
  local at = {}
  for i = 1, #shape - 2 do at[i] = (shape[i] + 1) // 2 end
  for i = 1, math.min(shape[#shape - 1], shape[#shape]) do
    at[#shape - 1], at[#shape] = i, i
    values[at] = o.gain
  end
  return values
end

local torch_spec = declare("torch", "Uniform within 1 / sqrt(fan_in), as PyTorch and Torch7 start dense and convolutional layers.", {
  { "fan_in", "int", min = 1, named = true, help = "inputs of one output; default from the shape" },
})

--- Uniform within 1 / sqrt(fan_in). A layer made with init = "torch" draws kernel and bias so, the bias by the kernel's fan_in.
---@param shape table
---@param given table|nil { fan_in = from the shape }
---@return table tensor
function init.torch(shape, given)
  local o = torch_spec:read(given)
  shape = sizes(torch_spec, shape)
  local limit = 1 / math.sqrt(math.max(1, o.fan_in or (fans(shape))))
  return uniform(shape, -limit, limit, o.dtype)
end

local orthogonal_spec = declare("orthogonal", "Rows or columns, whichever are fewer, orthonormal (Saxe et al. 2013).", {
  { "gain", "number", default = 1, help = "factor" },
})

-- Orthonormal columns of a tall matrix [rows][columns], f64, by Gram-Schmidt done twice (once more than needed in exact arithmetic, which
-- brings the columns to full precision; Giraud et al. 2005).
local function orthonormal_columns(rows, columns)
  local normal = ops.random_normal(stream(), { shape = { columns, rows }, mean = 0, std = 1, dtype = "f64" })
  local done = {}
  for j = 1, columns do
    local v = normal[j]
    for _ = 1, 2 do
      if j > 1 then
        local q = ops.stack(done, { axis = 1 })
        v = v - ops.matmul(ops.matmul(q, v), q)
      end
    end
    done[j] = v / ops.sqrt(ops.sum(ops.square(v)))
  end
  return ops.permute(ops.stack(done, { axis = 1 }), { axes = { 2, 1 } })
end

--- Orthogonal matrix (all but the last dimension are taken as rows).
---@param shape table at least two dimensions
---@param given table|number|nil { gain = 1 }
---@return table tensor
function init.orthogonal(shape, given)
  local o = orthogonal_spec:read(given)
  shape = sizes(orthogonal_spec, shape)
  if #shape < 2 then orthogonal_spec:fail("a shape of %d dimensions; expected at least 2: a vector cannot be orthogonal", #shape) end
  local columns, rows = shape[#shape], 1
  for i = 1, #shape - 1 do rows = rows * shape[i] end
  local q = orthonormal_columns(math.max(rows, columns), math.min(rows, columns))
  if rows < columns then q = ops.permute(q, { axes = { 2, 1 } }) end
  return ops.cast(ops.contiguous(ops.reshape(q, { shape = shape })) * o.gain, { dtype = o.dtype })
end

-- ---- by name -------------------------------------------------------------------------------------------------------------------------

local names = {}
for name in pairs(init) do names[#names + 1] = name end
table.sort(names)
local is_name = {}
for _, name in ipairs(names) do is_name[name] = true end

local drawing = true

--- Runs fn while layers are made with zeros instead of random numbers: their values come from a file, and the stream "init" stays where it
--- is.
---@param fn function
---@private
function init.without_drawing(fn)
  local restore <close> = setmetatable({}, { __close = function() drawing = true end }) -- luacheck: ignore 211
  drawing = false
  fn()
end

--- Makes a parameter's value from what a layer's option says: a name ("he_normal"), a number, or a function (shape) -> tensor.
---@param who string the layer, for messages
---@param how string|number|function
---@param shape table
---@param fan_in integer|nil for "torch"
---@return tensor tensor
---@private
function init.make(who, how, shape, fan_in)
  if not drawing then return init.zeros(shape) end
  if type(how) == "number" then return init.constant(shape, how) end
  if type(how) == "string" then
    if not is_name[how] then
      core.error(("%s: unknown initialiser '%s'%s"):format(who, how, options.hint(how, names)))
    end
    return init[how](shape, how == "torch" and { fan_in = fan_in } or nil)
  end
  local value = how(shape)
  if not core.is_tensor(value) then
    core.error(("%s: the initialiser returned %s; expected a tensor"):format(who, options.describe(value)))
  end
  local found, expected = table.concat(value:shape(), "]["), table.concat(shape, "][")
  if found ~= expected then
    core.error(("%s: the initialiser returned [%s]; expected the shape it was given, [%s]"):format(who, found, expected))
  end
  return value
end

return init
