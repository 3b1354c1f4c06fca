--- Option tables. A function that takes options declares them once; the declaration checks what a caller gives, fills in defaults, words
--- the errors, and is where the manual takes its tables of options from.
---
---     local dense = options.define("dense", "Fully connected layer.", {
---       { "units", "int", min = 1, required = true, help = "number of outputs" },
---       { "use_bias", "boolean", default = true, help = "add a bias" },
---     })
---     local o = dense:read{32}            --> { units = 32, use_bias = true }
---     dense:read{unit = 32}               --> error "dense: unknown option 'unit' (did you mean 'units'?)"
---
--- Positional entries follow the order of the fields; a value that is no plain table may stand alone. An error blames the first line
--- outside the library.
local core = require "bp.core"

local options = {}

--- Every declaration made so far, in order: the manual walks it.
options.declared = {}

local Spec = {}
Spec.__index = Spec

-- A plain table holds options; tensors, layers, schedules and the like have a metatable and are values.
local function is_plain(value)
  return type(value) == "table" and getmetatable(value) == nil
end
options.is_plain = is_plain

-- ---- nearest name --------------------------------------------------------------------------------------------------------------------

-- Edit distance with swaps of neighbours (optimal string alignment), row by row.
local function distance(a, b)
  local before, above, row = {}, {}, {}
  for j = 0, #b do above[j] = j end
  for i = 1, #a do
    row[0] = i
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      row[j] = math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then row[j] = math.min(row[j], before[j - 2] + 1) end
    end
    before, above, row = above, row, before
  end
  return above[#b]
end

--- The known name closest to a mistyped one.
---@param name string what was written
---@param known string[] the names there are
---@return string|nil nearest nil when none is close: more than a third of the letters would have to change
function options.nearest(name, known)
  local best, best_distance
  local lower = name:lower()
  for _, candidate in ipairs(known) do
    local d = distance(lower, candidate:lower())
    if #lower >= 3 and candidate:lower():find(lower, 1, true) == 1 then d = math.min(d, 1) end -- a beginning
    if #lower >= 4 and candidate:lower():sub(1, 4) == lower:sub(1, 4) then d = d - 1 end -- begins alike
    if not best_distance or d < best_distance then best, best_distance = candidate, d end
  end
  if best and best_distance <= math.max(1, (math.max(#name, #best) + 1) // 3) then return best end
end

--- " (did you mean 'units'?)", or a list of what there is, or nothing: the tail of an error about an unknown name.
---@param name any what was written
---@param known string[] the names there are
---@return string tail
function options.hint(name, known)
  local nearest = type(name) == "string" and options.nearest(name, known)
  if nearest then return (" (did you mean '%s'?)"):format(nearest) end
  if #known == 0 then return " (it takes none)" end
  return (" (there are: %s)"):format(table.concat(known, ", "))
end

-- Words of other frameworks, and what says the same here.
local elsewhere = {
  kernel_regularizer = "l1 = a, l2 = b add a*sum(|w|) + b*sum(w^2) of the weights", kernel_initializer = "kernel_init = \"he_normal\"",
  bias_initializer = "bias_init = \"zeros\"", bias_regularizer = "biases are not penalised; weight_decay of the optimizer reaches them",
  activity_regularizer = "add a term to the loss in a loop of one's own", kernel_constraint = "max_norm = c, where the layer has it",
  epsilon = "eps = 1e-7", beta_1 = "beta1 = 0.9", beta_2 = "beta2 = 0.999", betas = "beta1 = 0.9, beta2 = 0.999",
    alpha = "rho = 0.9 in rmsprop",
  clipnorm = "clip_norm = 1, of all gradients together", global_clipnorm = "clip_norm = 1", clipvalue = "clip_value = 1",
  use_ema = "ema = 0.99 alone", ema_momentum = "ema = 0.99", gradient_accumulation_steps = "accumulate = 4", decay =
  "lr = optim.schedule.inverse_time{...}, or weight_decay", weight_decay_rate = "weight_decay = 0.01", history_size = "history = 100",
  line_search_fn = 'line_search = "strong_wolfe"', ignore_class = "ignore_index = -1",
    in_features = "dense{ inputs, units } or dense(units)",
  out_features = "units = 32", in_channels = "conv2d takes the channels from its input", out_channels = "filters = 32",
    stride = "strides = 2",
  num_classes = "classes = 10", n_classes = "classes = 10", num_thresholds = "thresholds = 200", thresholds = "threshold = 0.5", class_id =
  "class = 1", top_k = "metrics.top_k_accuracy(k)", bias = "use_bias = false", data_format = "images are [batch][height][width][channels]",
  batch_input_shape = "net:build_for{ 28, 28, 1 }, or nn.input", input_shape = "net:build_for{ 28, 28, 1 }, or nn.input", input_dim =
  "net:build_for{ n }, or inputs = n", validation_steps = "a smaller validation set", rate = "lr = 1e-3, or the first value: dropout(0.5)",
}

-- ---- values --------------------------------------------------------------------------------------------------------------------------

-- How a value found reads in a message: 'a string ("32")', "a number (0.5)", "a tensor f32 [2][3]".
local function describe(value)
  local kind = type(value)
  if kind == "nil" then return "nil" end
  if kind == "string" then return ("a string (%q)"):format(#value > 40 and value:sub(1, 40) .. "..." or value) end
  if kind == "number" or kind == "boolean" then return ("a %s (%s)"):format(kind, tostring(value)) end
  if core.is_tensor(value) then
    local shape = value:shape()
    return ("a tensor %s %s"):format(value.dtype, #shape == 0 and "(one number)" or "[" .. table.concat(shape, "][") .. "]")
  end
  local meta = getmetatable(value)
  if type(meta) == "table" and type(meta.__name) == "string" then return "a " .. meta.__name end
  return "a " .. kind
end
options.describe = describe

local function integer(value)
  return type(value) == "number" and math.tointeger(value) or nil
end

-- Each kind: what it is called in messages, and the value it accepts (converted), or nil.
local kinds = {
  int = { "a whole number", integer },
  number = { "a number", function(v) return type(v) == "number" and v == v and v or nil end },
  boolean = { "true or false", function(v) if type(v) == "boolean" then return v end end },
  string = { "a string", function(v) return type(v) == "string" and v or nil end },
  ["function"] = { "a function", function(v)
    local meta = getmetatable(v)
    return (type(v) == "function" or type(meta) == "table" and meta.__call ~= nil) and v or nil
  end },
  table = { "a table", function(v) return type(v) == "table" and v or nil end },
  tensor = { "a tensor", function(v) return core.is_tensor(v) and v or nil end },
  any = { "a value", function(v) return v end },
  pair = { "a whole number or a list of two", function(v)
    if type(v) == "table" and #v == 2 and integer(v[1]) and integer(v[2]) then return { integer(v[1]), integer(v[2]) } end
    local n = integer(v)
    return n and { n, n } or nil
  end },
  ints = { "a list of whole numbers", function(v)
    if not is_plain(v) then return integer(v) and { integer(v) } or nil end
    local list = {}
    for i = 1, #v do
      list[i] = integer(v[i])
      if not list[i] then return nil end
    end
    return list
  end },
  range = { "a number or a list of two, the lower first", function(v)
    if type(v) == "number" and v == v then return v end
    if is_plain(v) and #v == 2 and type(v[1]) == "number" and type(v[2]) == "number" and v[1] <= v[2] then return { v[1], v[2] } end
  end },
}

-- The kinds that limits apply to.
local numeric = { int = true, number = true, pair = true, ints = true, range = true }

local function limits(field)
  local text = {}
  if field.min then text[#text + 1] = ("at least %s"):format(field.min) end
  if field.above then text[#text + 1] = ("above %s"):format(field.above) end
  if field.max then text[#text + 1] = ("at most %s"):format(field.max) end
  if field.below then text[#text + 1] = ("below %s"):format(field.below) end
  return #text > 0 and " " .. table.concat(text, " and ") or ""
end

local function quoted(choices)
  local list = {}
  for i, choice in ipairs(choices) do list[i] = ("%q"):format(choice) end
  return table.concat(list, ", ")
end

--- What a field accepts, in words: "a whole number at least 1", 'one of "valid", "same"'.
---@param field table a field of a declaration
---@return string text
function options.expected(field)
  local words = {}
  for i, kind in ipairs(field.kinds) do
    if kind == "choice" then words[i] = "one of " .. quoted(field.choices) else words[i] = kinds[kind][1]
      .. (numeric[kind] and limits(field) or "") end
  end
  return table.concat(words, " or ")
end

local function in_range(field, value)
  if type(value) == "table" then
    for _, part in ipairs(value) do
      if not in_range(field, part) then return false end
    end
    return true
  end
  if type(value) ~= "number" then return true end
  return not (field.min and value < field.min or field.max and value > field.max or field.above and value <= field.above
    or field.below and value >= field.below)
end

local function choose(field, value)
  for _, choice in ipairs(field.choices) do
    if choice == value then return value end
  end
end

-- The value converted, or nil and nothing: the caller words the error.
local function accept(field, value)
  for _, kind in ipairs(field.kinds) do
    local got
    if kind == "choice" then got = choose(field, value) else got = kinds[kind][2](value) end
    if got ~= nil and (not numeric[kind] or in_range(field, got)) then return got end
  end
end

-- ---- declarations --------------------------------------------------------------------------------------------------------------------

--- Declares the options of a function.
---@param name string as users know it ("dense", "fit"): starts every message
---@param summary string one line for the manual
---@param fields table[] { name, kind, default =, min =, max =, above =, below =, choices =, required =, alias =, help = } in positional
--- order.
--- kind: int number boolean string function table tensor any pair ints range choice, or several joined by "|". A field with named = true
--- has no position.
---@return table spec with :read(given)
function options.define(name, summary, fields)
  local spec = setmetatable({ name = name, summary = summary, fields = {}, by_name = {}, names = {}, positions = {} }, Spec)
  for i, field in ipairs(fields) do
    local copy = {}
    for key, value in pairs(field) do copy[key] = value end
    copy.name, copy.kinds = field[1], {}
    for kind in field[2]:gmatch("[^|]+") do copy.kinds[#copy.kinds + 1] = kind end
    copy.type = table.concat(copy.kinds, " or ")
    spec.fields[i], spec.names[i], spec.by_name[copy.name] = copy, copy.name, copy
    if copy.alias then spec.by_name[copy.alias] = copy end
    if not copy.named then spec.positions[#spec.positions + 1] = copy end
  end
  options.declared[#options.declared + 1] = spec
  return spec
end

--- Raises "NAME: message", blaming the first line outside the library.
---@param message string a format, with its values
---@private
function Spec:fail(message, ...)
  core.error(self.name .. ": " .. message:format(...))
end

--- Checks and completes what a caller gave.
---@param given any the caller's table, a single value standing alone, or nil
---@param ... any what else the caller gave: refused
---@return table values a new table with every field that was given or has a default
---@private
function Spec:read(given, ...)
  if select("#", ...) > 0 then
    self:fail("called with %d values; expected one table: %s{ a, b, name = c }", select("#", ...) + 1, self.name:match "[%w_]+$")
  end
  if given == nil then given = {} end
  if not is_plain(given) then given = { given } end
  local values = {}
  for key, value in pairs(given) do
    local field, where = self.by_name[key], key
    if math.type(key) == "integer" then
      field = self.positions[key]
      if not field then
        self:fail("%d values without a name; at most %d: %s", #given, #self.positions, self:positional_text())
      end
      where = field.name
    elseif not field then
      local nearest = type(key) == "string" and options.nearest(key, self.names)
      local say = not nearest and elsewhere[key]
      self:fail("unknown option '%s'%s", tostring(key), say and (" (write %s)"):format(say) or options.hint(key, self.names))
    end
    if values[field.name] ~= nil then self:fail("option '%s' is given twice", field.name) end
    local got = accept(field, value)
    if got == nil then self:refuse(field, where, value) end
    values[field.name] = got
  end
  return self:complete(values)
end

function Spec:complete(values)
  for _, field in ipairs(self.fields) do
    if values[field.name] == nil then
      if field.required then self:fail("option '%s' is missing; expected %s: %s", field.name, options.expected(field), field.help) end
      local default = field.default
      if type(default) == "table" and is_plain(default) then default = table.move(default, 1, #default, 1, {}) end
      values[field.name] = default
    end
  end
  return values
end

function Spec:refuse(field, where, value)
  if type(value) == "string" and field.choices then
    self:fail("option '%s' is %q%s; expected %s", where, value, options.nearest(value, field.choices)
      and options.hint(value, field.choices) or "",
      options.expected(field))
  end
  self:fail("option '%s' is %s; expected %s", where, describe(value), options.expected(field))
end

function Spec:positional_text()
  local names = {}
  for i, field in ipairs(self.positions) do names[i] = field.name end
  return #names > 0 and table.concat(names, ", ") or "none"
end

return options
