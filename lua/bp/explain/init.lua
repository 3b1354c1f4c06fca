--- bp.explain: what in its input a net goes by. Attributions by gradients (saliency, smooth_grad, integrated_gradients), by covering parts
--- (occlusion), by a layer's channels (grad_cam); for tables permutation_importance and partial_dependence; heatmap and chart draw them.
---
--- A model is any module, or a function of a batch. What is explained is one number per sample: by default the score of the class that the
--- model finds likeliest, with `target` that of another. Models are asked in inference mode and left as they were.
local core = require "bp.core"

local explain = {
  saliency = require("bp.explain.gradients").saliency,
  smooth_grad = require("bp.explain.gradients").smooth_grad,
  integrated_gradients = require("bp.explain.gradients").integrated_gradients,
  occlusion = require("bp.explain.occlusion").occlusion,
  grad_cam = require("bp.explain.grad_cam").grad_cam,
  permutation_importance = require("bp.explain.tables").permutation_importance,
  partial_dependence = require("bp.explain.tables").partial_dependence,
  heatmap = require("bp.explain.pictures").heatmap,
  chart = require("bp.explain.pictures").chart,
}

return setmetatable(explain, {
  __index = function(_, key)
    if type(key) ~= "string" then return nil end
    local known = {}
    for name in pairs(explain) do known[#known + 1] = name end
    table.sort(known)
    core.error(("bp.explain has no '%s'%s"):format(key, require("bp.options").hint(key, known)))
  end,
})
