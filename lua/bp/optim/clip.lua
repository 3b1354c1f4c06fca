--- bp.clip_grad_norm and bp.clip_grad_value, for loops of one's own.
local core = require "bp.core"
local options = require "bp.options"

local clip = {}

local function gradients(who, params)
  if core.is_tensor(params) then params = { params } end
  if not options.is_plain(params) then
    core.error(("%s: the parameters are %s; expected a list of tensors"):format(who, options.describe(params)))
  end
  local grads = {}
  for _, param in ipairs(params) do
    if param.grad then grads[#grads + 1] = param.grad end
  end
  return grads
end

local function positive(who, name, value)
  if type(value) ~= "number" or value ~= value or value <= 0 then
    core.error(("%s: %s is %s; expected a number above 0"):format(who, name, options.describe(value)))
  end
  return value
end

--- Scales the gradients of all parameters together by min(1, max_norm / (norm + 1e-6)).
---@param params table list of tensors, as net:parameters() gives
---@param max_norm number
---@return table|nil norm before clipping, a 0-d tensor; nil when there is no gradient
function clip.clip_grad_norm(params, max_norm)
  local grads = gradients("clip_grad_norm", params)
  positive("clip_grad_norm", "max_norm", max_norm)
  if #grads == 0 then return nil end
  grads[#grads + 1] = { max_norm = max_norm }
  return core.ops.clip_norm(table.unpack(grads))
end

--- Cuts every gradient off at plus and minus a limit.
---@param params table list of tensors
---@param limit number
function clip.clip_grad_value(params, limit)
  positive("clip_grad_value", "limit", limit)
  for _, grad in ipairs(gradients("clip_grad_value", params)) do grad:clamp_{ min = -limit, max = limit } end
end

return clip
