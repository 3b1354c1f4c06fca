--- Grad-CAM: where in an image a layer found what speaks for a class.
local core = require "bp.core"
local options = require "bp.options"
local score = require "bp.explain.score"
local tree = require "bp.nn.tree"

local ops = core.ops
local grad_cam = {}

local spec = options.define("explain.grad_cam", "Where a convolutional layer found what speaks for a class.", score.with{
  { "layer", "string|table", required = true, named = true, help = "a layer of the model, or its name in model:summary()" },
  { "upsample", "boolean", default = true, named = true, help = "enlarge the map to the size of x; false leaves it at the layer's" },
})

local function layer_of(model, layer)
  if not tree.is_module(model) then spec:fail("option 'model' is %s; expected a module, with layers", options.describe(model)) end
  local names = {}
  for path, one in model:modules() do
    if one == layer or path ~= "" and path == layer then return one end
    names[#names + 1] = path ~= "" and path or nil
  end
  if type(layer) == "string" then spec:fail("the model has no layer '%s'%s", layer, options.hint(layer, names)) end
  spec:fail("option 'layer' is %s; it is no layer of the model", options.describe(layer))
end

--- [to][from]: each row takes a place of the larger grid out of the smaller by linear interpolation between the centres of its cells.
local function enlarging(from, to, dtype)
  local rows = {}
  for i = 1, to do
    local at = math.max(1, math.min(from, (i - 0.5) * from / to + 0.5))
    local low = math.min(math.floor(at), math.max(1, from - 1))
    local row = {}
    for k = 1, from do row[k] = k == low and 1 - (at - low) or k == low + 1 and at - low or 0.0 end
    rows[i] = row
  end
  return core.tensor(rows, { dtype = dtype })
end

--- The maps of a layer's channels, weighed by the mean gradient of the score for each channel and added up; what speaks against the class
--- is cut off: relu(sum_c mean(dS/dA_c) A_c). Selvaraju and others, "Grad-CAM", 2017.
---@param given table { model, x, layer =, target =, upsample = true }
---@return tensor map [n][height][width], at least 0
function grad_cam.grad_cam(given, ...)
  local o = spec:read(given, ...)
  local layer = layer_of(o.model, o.layer)
  local restore <close> = score.inference(spec, o.model) -- luacheck: ignore 211
  local x = score.floats(spec, o.x)
  local seen
  local hook <close> = layer:on_forward(function(_, _, y) -- luacheck: ignore 211
    if core.is_tensor(y) and not y.requires_grad then y = y:detach():requires_grad_(true) end -- nothing below it is trained
    seen = y
    return y
  end)
  local of_inputs = score.of(spec, o, x)
  local activation, slope = core.enable_grad(function()
    local scores = of_inputs(x)
    if not core.is_tensor(seen) or seen.ndim ~= 4 then
      spec:fail("the layer gives %s; expected [n][height][width][channels]: choose a convolution or pooling",
        core.is_tensor(seen) and score.shape_text(seen) or "nothing")
    end
    local found = scores.requires_grad and core.gradients(ops.sum(scores), seen)
    return seen:detach(), found or ops.full{ shape = seen:shape(), value = 0, dtype = seen.dtype }
  end)
  return core.no_grad(function()
    local weight = ops.mean(slope, { axes = { 2, 3 }, keepdims = true })
    local map = ops.relu(ops.sum(activation * weight, { axes = { 4 } }))
    if not o.upsample or x.ndim ~= 4 then return map end
    local down = enlarging(map:size(2), x:size(2), map.dtype)
    local across = enlarging(map:size(3), x:size(3), map.dtype)
    return ops.matmul(ops.matmul(down, map), ops.permute(across, { axes = { 2, 1 } }))
  end)
end

return grad_cam
