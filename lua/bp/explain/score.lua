--- The number that is explained: one per sample, out of what a model gives.
---@internal
local core = require "bp.core"
local options = require "bp.options"
local tree = require "bp.nn.tree"

local ops = core.ops
local score = {}

--- Options that all explanations share.
score.fields = {
  { "model", "any", required = true, help = "a module, or a function of a batch" },
  { "x", "tensor", required = true, help = "[samples]... the inputs to be explained" },
  { "target", "int|table|tensor|function", named = true,
    help = "whose score: a class (from 1), one for each sample, or a function of the output; default the class found likeliest" },
}

--- The shared options and more.
---@param more table[] fields
---@return table[] fields
function score.with(more)
  local all = table.move(score.fields, 1, #score.fields, 1, {})
  return table.move(more, 1, #more, #all + 1, all)
end

--- "[2][3]"
---@param t table tensor
---@return string text
function score.shape_text(t) return t.ndim == 0 and "one number" or "[" .. table.concat(t:shape(), "][") .. "]" end

--- Checks the model; puts it into inference until the value is closed.
---@param spec table of the caller
---@param model any
---@return userdata|table closing
function score.inference(spec, model)
  local meta = getmetatable(model)
  if not tree.is_module(model) then
    if type(model) ~= "function" and not (type(meta) == "table" and meta.__call) then
      spec:fail("option 'model' is %s; expected a module or a function", options.describe(model))
    end
    return setmetatable({}, { __close = function() end })
  end
  local training = {}
  for _, entry in ipairs(tree.modules(model)) do training[entry.module] = entry.module.training end
  model:eval()
  return setmetatable({}, { __close = function()
    for one, was in pairs(training) do rawset(one, "training", was) end
  end })
end

--- The input as floats; whole numbers (pixels) become f32.
---@param spec table
---@param x table
---@return table tensor
function score.floats(spec, x)
  if x.ndim == 0 or x:numel() == 0 then spec:fail("option 'x' is %s; expected [samples]..., at least one", score.shape_text(x)) end
  if x.dtype == "f32" or x.dtype == "f64" then return x:detach() end
  return ops.cast(x, { dtype = "f32" })
end

-- i64 [n] classes out of what target is.
local function classes_of(spec, target, n)
  if type(target) == "number" then return ops.full{ shape = { n }, value = target, dtype = "i64" } end
  if not core.is_tensor(target) then target = core.tensor(target, { dtype = "i64" }) end
  if target.ndim ~= 1 or target:size(1) ~= n then
    spec:fail("option 'target' is %s; expected one class, or one for each of %d samples", score.shape_text(target), n)
  end
  return ops.cast(target, { dtype = "i64" })
end

--- A function that takes inputs to their scores [n]. Classes that are not given are settled once, by the inputs themselves.
---@param spec table
---@param o table options: model, target
---@param x table the inputs as they are
---@return function of_inputs (x) -> tensor [n], differentiable
function score.of(spec, o, x)
  local n, target = x:size(1), o.target
  local function output_of(input)
    local y = o.model(input)
    if not core.is_tensor(y) then spec:fail("the model gives %s; expected a tensor", options.describe(y)) end
    return y
  end
  if type(target) == "function" then
    return function(input)
      local s = target(output_of(input))
      if not core.is_tensor(s) or s:numel() ~= input:size(1) then
        spec:fail("the function 'target' gave %s; expected one number for each of %d samples", options.describe(s), input:size(1))
      end
      return ops.reshape(s, { shape = { -1 } })
    end
  end
  local classes
  return function(input)
    local y = output_of(input)
    if y.ndim == 1 or y.ndim == 2 and y:size(2) == 1 then
      if target ~= nil and target ~= 1 then spec:fail("the model gives one number; there is no class to choose as 'target'") end
      return ops.reshape(y, { shape = { -1 } })
    end
    if y.ndim ~= 2 then
      spec:fail("the model gives %s; expected [samples][classes], or pass target = function (output)", score.shape_text(y))
    end
    classes = classes or target ~= nil and classes_of(spec, target, n) or ops.argmax(y:detach(), { axis = 2 })
    local low, high = ops.min(classes):item(), ops.max(classes):item()
    if low < 1 or high > y:size(2) then
      spec:fail("target %d; the model gives scores for the classes 1 to %d", low < 1 and low or high, y:size(2))
    end
    return ops.reshape(ops.gather(y, ops.unsqueeze(classes, { axis = 2 }), { axis = 2 }), { shape = { -1 } })
  end
end

--- The gradient of the scores for their inputs.
---@param of_inputs function as score.of gives
---@param x table
---@return tensor gradient like x
---@return tensor scores [n]
function score.gradient(of_inputs, x)
  return core.enable_grad(function()
    local leaf = x:detach():requires_grad_(true)
    local scores = of_inputs(leaf)
    if not scores.requires_grad then return ops.full{ shape = x:shape(), value = 0, dtype = x.dtype }, scores end
    local found = core.gradients(ops.sum(scores), leaf)
    return found or ops.full{ shape = x:shape(), value = 0, dtype = x.dtype }, scores:detach()
  end)
end

return score
