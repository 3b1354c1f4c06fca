--- Convolution in groups: the channels fall into as many parts as there are groups, and each part of the results sees its own part of the
--- inputs. As many groups as channels is a depthwise convolution, which has kernels of its own.
---@internal
local core = require "bp.core"

local ops = core.ops

--- Raises unless channels and filters can be shared out.
---@param self table the layer
---@param channels integer
---@param filters integer
---@param groups integer
local function check(self, channels, filters, groups)
  if channels % groups ~= 0 or filters % groups ~= 0 then
    core.error(("%s '%s': %d groups cannot share %d input channels and %d filters evenly; expected multiples of %d"):format(self.class_name,
      self:own_name(), groups, channels, filters, groups))
  end
end

--- conv2d of x [batch][h][w][in] with kernel [kh][kw][in/groups][out].
---@param x table
---@param kernel table
---@param bias table|nil
---@param groups integer
---@param o table options of the op conv2d
---@return table y
local function conv2d(x, kernel, bias, groups, o)
  if groups == 1 then return ops.conv2d(x, kernel, bias, o) end
  local shape = kernel:shape()
  if shape[3] == 1 and x:shape(4) == groups then
    local w = ops.reshape(kernel, { shape = { shape[1], shape[2], groups, shape[4] // groups } })
    return ops.depthwise_conv2d(x, w, bias, { stride = o.stride, padding = o.padding, dilation = o.dilation, activation = o.activation })
  end
  local parts, out = {}, shape[4] // groups
  for g = 1, groups do
    local from = ops.slice(x, { axis = 4, start = (g - 1) * shape[3] + 1, stop = g * shape[3] })
    local w = ops.slice(kernel, { axis = 4, start = (g - 1) * out + 1, stop = g * out })
    local b = bias and ops.slice(bias, { axis = 1, start = (g - 1) * out + 1, stop = g * out })
    parts[g] = ops.conv2d(from, w, b, o)
  end
  return ops.concat(parts, { axis = 4 })
end

return { check = check, conv2d = conv2d }
