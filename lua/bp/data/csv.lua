--- data.csv: tables of text into datasets.
local core = require "bp.core"
local dataset = require "bp.data.dataset"
local options = require "bp.options"

local ops = core.ops
local data = {}

local spec = options.define("data.csv", "Reads a CSV file as a dataset.", {
  { "path", "string", required = true, help = "the file: UTF-8, plain or gzip'd" },
  { "target", "string|table", named = true, help = "the column that becomes y, or a list of them" },
  { "columns", "table", named = true, help = "names of the columns that become x; by default all others" },
  { "classes", "table", named = true, help = "names of columns that hold classes although they look like numbers" },
  { "header", "boolean", named = true, help = "whether the first line holds names; by default it does when none of its cells is a number" },
  { "separator", "string", named = true, help = "one character; by default whichever of ; tab and , stands most often in the first line" },
  { "decimal", "string", default = ".", named = true, help = 'the decimal point; "," reads 1,5' },
  { "missing", "choice", choices = { "error", "nan", "skip" }, default = "error", named = true,
    help = "what an empty cell does: fail, become NaN (or a class of its own), or leave the row out" },
  { "na", "string", named = true, help = 'a text that means missing, such as "NA"' },
  { "dtype", "choice", choices = { "f32", "f64" }, default = "f32", named = true, help = "dtype of x and of a numeric y" },
})

local function names_in(field, value)
  local list = type(value) == "string" and { value } or value or {}
  for i, name in ipairs(list) do
    if math.type(name) == "integer" then name = tostring(name) end
    if type(name) ~= "string" then spec:fail("entry %d of '%s' is %s; expected the name of a column", i, field, options.describe(name)) end
    list[i] = name
  end
  return list
end

-- What core.csv_load shall make of each column.
local function kinds_of(o)
  local kinds = {}
  for _, name in ipairs(o.columns) do kinds[name] = "auto" end
  for _, name in ipairs(o.target) do
    if kinds[name] then spec:fail("column '%s' is in 'columns' and in 'target'; expected one of them", name) end
    kinds[name] = "auto"
  end
  for _, name in ipairs(o.classes) do kinds[name] = "class" end
  return kinds
end

-- Numbers as one column, classes as one column for each class. Returns tensor [rows][k] and the names of its columns.
local function as_features(column, dtype)
  if column.kind == "number" then return ops.unsqueeze(column.values, { axis = 2 }), { column.name } end
  local names = {}
  for i, class in ipairs(column.classes) do names[i] = ("%s=%s"):format(column.name, class) end
  return ops.one_hot(column.values, { classes = #names, dtype = dtype }), names
end

local function features(list, dtype)
  local parts, names = {}, {}
  for i, column in ipairs(list) do
    local part, more = as_features(column, dtype)
    parts[i] = part
    table.move(more, 1, #more, #names + 1, names)
  end
  return #parts == 1 and ops.contiguous(parts[1]) or ops.concat(parts, { axis = 2 }), names
end

-- One column of classes gives labels; numbers give [rows][k].
local function targets(list, dtype)
  if #list == 1 and list[1].kind == "class" then return list[1].values, list[1].classes end
  for _, column in ipairs(list) do
    if column.kind == "class" and #list > 1 then
      return nil, nil, ("column '%s' holds classes; several targets have to be numbers"):format(column.name)
    end
  end
  return (features(list, dtype))
end

--- Reads a CSV file. Columns of numbers go into x as they are, columns of classes as one column per class (0 or 1).
---
---     local flowers = data.csv{ "iris.csv", target = "species" }
---
--- The dataset has features (the names of x's columns), target, classes (names of the classes of y, sorted) and skipped (rows left out).
--- y is i64 [n] with labels from 1 where the target holds classes, else numbers [n][1].
---@param given string|table { path, target =, columns =, classes =, header =, separator =, decimal =, missing =, na =, dtype = }
---@return table|nil dataset
---@return string|nil message names line and column of what is wrong
---@return string|nil code
function data.csv(given)
  local o = spec:read(given)
  o.target, o.columns, o.classes = names_in("target", o.target), names_in("columns", o.columns), names_in("classes", o.classes)
  local loaded, message, code = core.csv_load(o.path, {
    separator = o.separator, decimal = o.decimal, header = o.header, missing = o.missing, na = o.na, dtype = o.dtype,
    kinds = kinds_of(o), others = #o.columns > 0 and "skip" or "auto",
  })
  if not loaded then return nil, message, code end
  local by_name, x_columns, y_columns, is_target = {}, {}, {}, {}
  for _, column in ipairs(loaded.columns) do by_name[column.name] = column end
  for i, name in ipairs(o.target) do y_columns[i], is_target[name] = by_name[name], true end
  for _, name in ipairs(o.columns) do x_columns[#x_columns + 1] = by_name[name] end
  if #o.columns == 0 then
    for _, column in ipairs(loaded.columns) do
      if not is_target[column.name] then x_columns[#x_columns + 1] = column end
    end
  end
  if #x_columns == 0 then return nil, ("%s: no column is left for x besides the target"):format(o.path), "eformat" end
  return core.no_grad(function()
    local x, names = features(x_columns, o.dtype)
    local y, classes, problem
    if #y_columns > 0 then y, classes, problem = targets(y_columns, o.dtype) end
    if problem then return nil, ("%s: %s"):format(o.path, problem), "eformat" end
    return dataset.make("data.csv", { x = x, y = y }, {
      features = names, classes = classes, skipped = loaded.skipped, target = #o.target == 1 and o.target[1] or o.target,
    })
  end)
end

return data.csv
