--- Blocks of parameters. The parameters of an optimizer lie in one block, their gradients in another, and each slot (momentum, ...) in a
--- third, so that a step is one op over each, whatever the number of layers.
---@internal
local core = require "bp.core"

local ops = core.ops
local block = {}

-- The block a parameter lies in.
local block_of = setmetatable({}, { __mode = "k" })

--- One block for these parameters: the one they already share, or a new one. Moving a parameter makes the block it leaves stale.
---@param params table list of tensors of one dtype
---@return table block { params, data, grad, offsets, stale }
function block.of(params)
  local one = block_of[params[1]]
  local same = one ~= nil and not one.stale and #one.params == #params
  for i = 1, same and #params or 0 do same = same and one.params[i] == params[i] end
  if same then return one end
  for _, param in ipairs(params) do
    if block_of[param] then block_of[param].stale = true end
  end
  local flat = core.pause(core.flatten, params)
  one = { params = params, data = flat.data, grad = flat.grad, offsets = flat.offsets }
  for _, param in ipairs(params) do block_of[param] = one end
  return one
end

--- A slot for every element of a block, zero.
---@param one table
---@return table tensor
function block.slot(one)
  return core.pause(ops.full, { shape = one.data:shape(), value = 0, dtype = one.data.dtype })
end

-- Where the parameters that are trained lie, as few ranges {first, last} as possible; nil when all are.
local function trained(one)
  local ranges, open, frozen = {}, nil, false
  for i, param in ipairs(one.params) do
    if not param.requires_grad then
      frozen, open = true, nil
    else
      if not open then
        open = { one.offsets[i] }
        ranges[#ranges + 1] = open
      end
      open[2] = (one.offsets[i + 1] or one.data:numel() + 1) - 1
    end
  end
  return frozen and ranges or nil
end

--- Calls update(data, grad, slots) for the parts of a block that are trained: mostly once, for the whole.
---@param one table
---@param slots table tensors by name
---@param update function
function block.update(one, slots, update)
  local ranges = trained(one)
  if not ranges then return update(one.data, one.grad, slots) end
  for _, range in ipairs(ranges) do
    local place, cut = { range }, {}
    for name, slot in pairs(slots) do cut[name] = slot[place] end
    update(one.data[place], one.grad[place], cut)
  end
end

return block
