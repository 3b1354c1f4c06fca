--- Attributions by the gradient of a score for its input.
local core = require "bp.core"
local options = require "bp.options"
local score = require "bp.explain.score"

local ops = core.ops
local gradients = {}

local signed_field = { "signed", "boolean", default = false, named = true, help = "the gradient itself instead of its size" }
local saliency_spec = options.define("explain.saliency", "How much the score changes with each element of the input.", score.with{
  signed_field })
local smooth_spec = options.define("explain.smooth_grad", "Saliency averaged over noisy copies of the input.", score.with{
  { "samples", "int", min = 1, default = 25, named = true, help = "copies" },
  { "noise", "number", above = 0, default = 0.15, named = true, help = "standard deviation of the noise, as a share of the range of x" },
  signed_field,
})
local integrated_spec = options.define("explain.integrated_gradients", "Shares of the difference to a baseline.", score.with{
  { "baseline", "number|tensor", default = 0, named = true, help = "the input that stands for nothing: a number or a tensor like x" },
  { "steps", "int", min = 1, default = 50, named = true, help = "points between the baseline and x" },
})

--- The size of the gradient of the score, element by element. Simonyan and others, "Deep Inside Convolutional Networks", 2014.
---@param given table { model, x, target =, signed = false }
---@return tensor attribution like x
function gradients.saliency(given, ...)
  local o = saliency_spec:read(given, ...)
  local restore <close> = score.inference(saliency_spec, o.model) -- luacheck: ignore 211
  local x = score.floats(saliency_spec, o.x)
  local found = score.gradient(score.of(saliency_spec, o, x), x)
  return o.signed and found or ops.abs(found)
end

--- Saliency averaged over copies of the input with noise (from the stream noise), which leaves out what depends on single points. Smilkov
--- and others, "SmoothGrad", 2017.
---@param given table { model, x, target =, samples = 25, noise = 0.15, signed = false }
---@return tensor attribution like x
function gradients.smooth_grad(given, ...)
  local o = smooth_spec:read(given, ...)
  local restore <close> = score.inference(smooth_spec, o.model) -- luacheck: ignore 211
  local x = score.floats(smooth_spec, o.x)
  local of_inputs = score.of(smooth_spec, o, x)
  core.no_grad(of_inputs, x) -- settles the classes by the input without noise
  local spread = (ops.max(x):item() - ops.min(x):item()) * o.noise
  local total = ops.full{ shape = x:shape(), value = 0, dtype = x.dtype }
  for _ = 1, o.samples do
    core.scope(function()
      local noise = ops.random_normal(core.stream "noise", { shape = x:shape(), std = spread, dtype = x.dtype })
      local found = score.gradient(of_inputs, x + noise)
      total:add_(o.signed and found or ops.abs(found))
    end)
  end
  return total / o.samples
end

--- The mean gradient on the straight way from a baseline to the input, times the way: the attributions of a sample add up to the difference
--- of its score to the baseline's (completeness), up to the error of the sum over `steps` midpoints, which the second result tells.
--- Sundararajan and others, "Axiomatic Attribution for Deep Networks", 2017.
---@param given table { model, x, target =, baseline = 0, steps = 50 }
---@return tensor attribution like x
---@return tensor gap [samples]: sum of the attributions minus the difference of the scores; more steps make it smaller
function gradients.integrated_gradients(given, ...)
  local o = integrated_spec:read(given, ...)
  local restore <close> = score.inference(integrated_spec, o.model) -- luacheck: ignore 211
  local x = score.floats(integrated_spec, o.x)
  local baseline = o.baseline
  if type(baseline) == "number" then
    baseline = ops.full{ shape = x:shape(), value = baseline, dtype = x.dtype }
  else
    local ok, expanded = pcall(ops.expand, ops.cast(baseline, { dtype = x.dtype }), { shape = x:shape() })
    if not ok then
      integrated_spec:fail("option 'baseline' is %s; expected the shape of x, %s", score.shape_text(baseline), score.shape_text(x))
    end
    baseline = expanded
  end
  local of_inputs = score.of(integrated_spec, o, x)
  local at_x, at_baseline = core.no_grad(function() return of_inputs(x), of_inputs(baseline) end)
  local way = x - baseline
  local total = ops.full{ shape = x:shape(), value = 0, dtype = x.dtype }
  for k = 1, o.steps do
    core.scope(function() total:add_((score.gradient(of_inputs, baseline + way * ((k - 0.5) / o.steps)))) end)
  end
  local attribution = total * way / o.steps
  local sum = ops.sum(ops.reshape(attribution, { shape = { x:size(1), -1 } }), { axes = { 2 } })
  return attribution, sum - (at_x - at_baseline)
end

return gradients
