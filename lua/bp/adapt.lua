--- Fitting the layers that measure their data (nn.normalization) to the training data of a fit, before its first step.
---@internal
local core = require "bp.core"
local module = require "bp.nn.module"
local tree = require "bp.nn.tree"

--- Adapts every layer that was not adapted yet, in the order in which they stand, each to what reaches it.
---@param model table
---@param dataset table the training part
---@param batch_size integer
return function(model, dataset, batch_size)
  local waiting = {}
  for _, entry in ipairs(tree.modules(model)) do
    local one = entry.module
    if one.adapt_begin and not one:adapted() and not one.options.mean then waiting[#waiting + 1] = one end
  end
  if #waiting == 0 then return end
  local training = model.training
  local restore <close> = setmetatable({}, { __close = function() model:train(training) end }) -- luacheck: ignore 211
  model:eval()
  for _, one in ipairs(waiting) do
    one:adapt_begin()
    for batch in dataset:batches(math.max(batch_size, 256)) do
      core.pause(core.no_grad, function()
        core.scope(function()
          module.observe(function(layer, inputs)
            if layer == one then one:adapt_batch(inputs[1]) end
          end, function() model(batch.x) end)
        end)
      end)
    end
    one:adapt_end()
  end
  module.touch()
end
