--- model:check(data): looks at model, loss and data before a training, and names what does not go together.
local core = require "bp.core"
local feed = require "bp.feed"
local model = require "bp.model"
local module = require "bp.nn.module"
local options = require "bp.options"
local report = require "bp.report"
local tree = require "bp.nn.tree"

local ops = core.ops

local spec = options.define("check", "Looks at model, loss and data before a training.", {
  { "data", "any", alias = "x", required = true, help = "a dataset, { x, y }, or the tensor x" },
  { "y", "tensor|table", help = "targets, when data is x" },
  { "validation", "any", named = true, help = "a dataset or { x, y }: looked through for samples of the training data" },
  { "rows", "int", min = 16, default = 2048, named = true, help = "samples that scale, columns and the loss are judged by" },
})

local PIECE = 1024          -- rows at a time
local COMPARED = 100000     -- rows at most that are compared for leakage

local function is_float(t) return t.dtype == "f32" or t.dtype == "f64" end

-- Calls visit(tensor, name) for the tensors of a column.
local function each(column, name, visit)
  if core.is_tensor(column) then return visit(column, name) end
  for key, part in pairs(column) do each(part, ("%s.%s"):format(name, key), visit) end
end

local function number(t) return t:item() end

-- ---- the data ------------------------------------------------------------------------------------------------------------------------

local function find_nan(found, dataset)
  local start, seen = 0, {}
  for batch in dataset:batches(PIECE) do
    for _, what in ipairs{ "x", "y", "weight" } do
      if batch[what] ~= nil then
        each(batch[what], what, function(t, name)
          if seen[name] or not is_float(t) or number(ops.all(ops.isfinite(t))) then return end
          seen[name] = true
          local look = core.look(t)
          local width = math.max(1, t:numel() // t:shape(1))
          found:add(look.nans > 0 and "nan" or "inf", ("%s holds %s in row %d%s, and perhaps further on"):format(name,
            look.nans > 0 and "nan" or "infinities", start + (look.first - 1) // width + 1,
            width > 1 and (", place %d"):format((look.first - 1) % width + 1) or ""), "mend or leave out such rows")
        end)
      end
    end
    start = start + batch.index:shape(1)
  end
  return next(seen) ~= nil
end

local function name_of(dataset, i)
  local features = dataset.features
  return type(features) == "table" and type(features[i]) == "string" and ("%d ('%s')"):format(i, features[i]) or tostring(i)
end

local function join(list)
  if #list > 8 then return table.concat(list, ", ", 1, 8) .. (" and %d more"):format(#list - 8) end
  return table.concat(list, ", ")
end

-- Columns of a table [n][features]: constant ones, and scales far apart.
local function look_at_columns(found, dataset, x)
  each(x, "x", function(t, name)
    if t.ndim ~= 2 or not is_float(t) or t:shape(1) < 2 then return end
    local wide = t:to "f64"
    local mean = wide:mean{ axes = 1, keepdims = true }
    local std = ops.sqrt(ops.mean(ops.square(wide - mean), { axes = { 1 } })):totable()
    local constant, low, high = {}, nil, nil
    for i, s in ipairs(std) do
      if s == 0 then
        constant[#constant + 1] = name_of(dataset, i)
      else
        if not low or s < std[low] then low = i end
        if not high or s > std[high] then high = i end
      end
    end
    if #constant > 0 then
      found:add("constant", ("column %s of %s never changes"):format(join(constant), name), "leave it out: it says nothing")
    end
    if low and std[high] / std[low] > 1000 then
      found:add("scales", ("column %s of %s varies by %.3g, column %s by %.3g"):format(name_of(dataset, low), name, std[low],
        name_of(dataset, high), std[high]), "bring columns to mean 0 and deviation 1 (normalisation)")
    end
  end)
end

local function balance(found, dataset, labels, classes)
  local counts, seen = {}, 0
  for _, label in ipairs(labels:to "i64":reshape(-1):totable()) do counts[label] = (counts[label] or 0) + 1 end
  local least, most
  for label = 1, classes do
    local n = counts[label] or 0
    if n > 0 then seen = seen + 1 end
    if not least or n < (counts[least] or 0) then least = label end
    if not most or n > (counts[most] or 0) then most = label end
  end
  local names = dataset.classes or {}
  local function called(label) return names[label] and ("%d ('%s')"):format(label, tostring(names[label])) or tostring(label) end
  if seen < classes then
    found:add("classes", ("%d of the model's %d classes never occur, such as %s"):format(classes - seen, classes, called(least)),
      "does the last layer have as many outputs as there are classes?")
  elseif counts[most] > 10 * counts[least] then
    found:add("imbalance", ("class %s has %d samples, class %s has %d"):format(called(most), counts[most], called(least), counts[least]),
      "fit{ class_weight = } or metrics beyond accuracy")
  end
end

-- ---- loss, last activation, labels ---------------------------------------------------------------------------------------------------

local function shape_text(t) return "[" .. table.concat(t:shape(), "][") .. "]" end

local function check_sparse(found, dataset, y, prediction)
  local classes = prediction:shape(-1)
  if is_float(y) then
    local whole = number(ops.all(ops.eq(ops.round(y), y)))
    found:add("labels", ("y is %s%s, but the loss takes labels"):format(y.dtype, y.ndim > 1 and " " .. shape_text(y) or ""),
      y.ndim == prediction.ndim and y:shape(-1) == classes and "one-hot rows go with categorical_crossentropy"
      or whole and 'y:to "i64"' or "whole numbers from 1 are expected")
    return
  end
  if y.ndim == prediction.ndim and classes > 1 and y:shape(-1) == classes then
    return found:add("labels", ("y %s looks one-hot, but the loss takes labels"):format(shape_text(y)), "categorical_crossentropy")
  end
  local low, high = number(y:min()), number(y:max())
  if low < 1 then
    found:add("labels", ("labels go from %d to %d; they count from 1"):format(low, high), low == 0 and "y + 1" or "map them to 1..C")
  elseif high > classes then
    found:add("labels", ("labels go up to %d, the model has %d outputs"):format(high, classes),
      ("give the last layer %d units"):format(high))
  else
    balance(found, dataset, y, classes)
  end
end

local function check_range(found, y, last, low, high, name)
  local least, most = number(y:min()), number(y:max())
  if least < low or most > high then
    found:add("activation", ("the model ends in %s, which gives %s, but targets go from %.4g to %.4g"):format(last, name, least, most),
      "leave the last activation out")
  end
end

local function check_regression(found, y, prediction, last)
  if shape_text(y) ~= shape_text(prediction) and y:numel() ~= prediction:numel() then
    found:add("shapes", ("the model gives %s, the targets are %s"):format(shape_text(prediction), shape_text(y)),
      ("give the last layer %d units"):format(y.ndim > 1 and y:shape(-1) or 1))
  end
  if last == "sigmoid" or last == "softmax" then check_range(found, y, last, 0, 1, "0 to 1") end
  if last == "relu" then check_range(found, y, last, 0, math.huge, "nothing below 0") end
  if last == "tanh" then check_range(found, y, last, -1, 1, "-1 to 1") end
  if not is_float(y) and prediction.ndim > 1 and prediction:shape(-1) > 1 and y.ndim == 1 then
    found:add("loss", "the targets are whole numbers, one a sample, and the model has several outputs: these look like classes",
      "sparse_categorical_crossentropy")
  elseif is_float(y) and y:numel() > 1 then
    local wide = y:to "f64"
    local mean = number(wide:mean())
    local std = math.sqrt(number(ops.mean(ops.square(wide - mean))))
    if std == 0 then found:add("targets", ("all targets are %.4g"):format(mean), "there is nothing to learn") end
    if math.max(math.abs(mean), std) > 100 then
      found:add("scale", ("targets have mean %.4g and deviation %.4g"):format(mean, std),
        "divide them, so that they are near -1 to 1; learning is slow otherwise")
    end
  end
end

local function check_loss(found, self, compiled, dataset, y, prediction)
  local loss, last = compiled.loss, model.last_activation(self)
  local o = loss.options
  if last == "softmax" and prediction:shape(-1) == 1 then
    found:add("activation", "softmax over one output is always 1", "sigmoid, or two units")
  end
  if o.from_logits ~= nil then
    local gives = last == "softmax" or last == "sigmoid"
    if o.from_logits and gives then
      found:add("loss", ("the model ends in %s, but %s expects logits"):format(last, loss.name), ("take the %s away"):format(last))
    elseif not o.from_logits and not gives then
      found:add("loss", ("%s expects probabilities (from_logits = false), but the model ends in %s"):format(loss.name,
        last or "no softmax"), "leave from_logits at true")
    end
  end
  if last == "relu" and (loss.kind == "sparse" or loss.kind == "categorical" or loss.kind == "binary") then
    found:add("activation", "the model ends in relu: scores of classes need both signs", "leave the last activation out")
  end
  if loss.kind == "sparse" then return check_sparse(found, dataset, y, prediction) end
  if loss.kind == "categorical" and y.ndim < prediction.ndim then
    return found:add("labels", ("y is %s; %s takes one-hot rows"):format(shape_text(y), loss.name), "sparse_categorical_crossentropy")
  end
  if loss.kind == "binary" then
    local low, high = number(y:min()), number(y:max())
    if low < 0 or high > 1 then
      found:add("labels", ("targets go from %g to %g; the loss takes 0 to 1"):format(low, high),
        low == 1 and high == 2 and "y - 1" or "map them to 0 and 1")
    end
  end
  if loss.kind == "regression" then check_regression(found, y, prediction, last) end
end

-- ---- what the layers see -------------------------------------------------------------------------------------------------------------

-- The first layer with weights, what it gets, and the prediction.
local function run(self, x)
  local first, seen, path
  local names = {}
  for _, entry in ipairs(tree.modules(self)) do names[entry.module] = entry.path end
  local prediction
  module.observe(function(one, inputs)
    if first or not core.is_tensor(inputs[1]) or not is_float(inputs[1]) then return end
    local own = rawget(one, "state").kinds
    for _, kind in pairs(own) do
      if kind == "parameter" then first = one end
    end
    if first then seen, path = core.look(inputs[1]), names[one] end
  end, function() prediction = self(x) end)
  return prediction, first, seen, path
end

local function check_scale(found, first, seen, path)
  if not first or not seen.min or first.class_name:find "norm" then return end
  local largest = math.max(math.abs(seen.min), math.abs(seen.max))
  if largest > 20 then
    local bytes = seen.min >= 0 and seen.max <= 255 and seen.max > 100
    found:add("scale", ("layer '%s' gets inputs from %.4g to %.4g"):format(path, seen.min, seen.max),
      bytes and "begin the model with nn.rescaling(1/255)" or "scale them to about -1 to 1")
  elseif largest < 1e-3 then
    found:add("scale", ("layer '%s' gets inputs no larger than %.4g"):format(path, largest), "scale them to about -1 to 1")
  end
end

-- Guessing has a loss of ln C; a net that starts far above it has something out of scale.
local function check_start(found, compiled, prediction, y)
  local classes = prediction.ndim > 1 and prediction:shape(-1) or 1
  if compiled.loss.kind ~= "sparse" or classes < 2 then return end
  local ok, loss = pcall(function() return compiled.loss(prediction, y):item() end)
  if ok and loss > 3 * math.log(classes) then
    found:add("start", ("the loss before training is %.3g; guessing has %.3g"):format(loss, math.log(classes)),
      "look at the scale of the inputs and at the initialisers")
  end
end

-- ---- leakage -------------------------------------------------------------------------------------------------------------------------

local function fingerprints(dataset, visit)
  for batch in dataset:batches(PIECE) do
    if not core.is_tensor(batch.x) then return end
    local n = batch.x:shape(1)
    local bytes = core.to_bytes(batch.x:contiguous())
    local width = #bytes // n
    for i = 1, n do visit(bytes:sub((i - 1) * width + 1, i * width)) end
  end
end

local function find_leaks(found, train, validation)
  if #train + #validation > COMPARED then return end
  local known, common = {}, 0
  fingerprints(train, function(row) known[row] = true end)
  fingerprints(validation, function(row) common = common + (known[row] and 1 or 0) end)
  if common > 0 then
    found:add("leakage", ("%d of %d samples of the validation are in the training data, too"):format(common, #validation),
      "take them out of one: validation looks better than it is")
  end
end

--- Names what is wrong or suspicious before a training: loss against last activation, labels, scales, NaN, constant columns, imbalance,
--- samples that are in both parts. Nothing is changed; layers that were never called get their parameters.
---@param given any { data, y, validation =, rows = 2048 }, or a dataset
---@return table report a list of { kind, text, advice }; print shows it
return function(self, given, ...)
  local o = spec:read(given, ...)
  local compiled = rawget(self, "compiled")
  local dataset = feed.dataset("check", o.data, o.y, nil, self)
  local found = report.new("check", "nothing conspicuous")
  core.no_grad(function()
    local broken = find_nan(found, dataset)
    model.build(self, dataset:batches(1)().x)
    local n = math.min(#dataset, o.rows)
    local rows = ops.clamp(ops.round(ops.arange{ start = 0, stop = n, dtype = "f64" } * (#dataset / n)) + 1, { max = #dataset })
    local part = dataset:subset(rows:to "i64")
    local batch = part:batches(n)()
    look_at_columns(found, dataset, batch.x)
    local training = self.training
    self:eval()
    local restore <close> = setmetatable({}, { __close = function() self:train(training) end }) -- luacheck: ignore 211
    local prediction, first, seen, path = run(self, batch.x)
    check_scale(found, first, seen, path)
    if compiled and batch.y ~= nil and core.is_tensor(prediction) and core.is_tensor(batch.y) and not broken then
      check_loss(found, self, compiled, dataset, dataset.y, prediction)
      if not found:has "labels" then check_start(found, compiled, prediction, batch.y) end
    end
    if o.validation ~= nil then find_leaks(found, dataset, feed.dataset("check", o.validation, nil, nil, self)) end
  end)
  return found
end
