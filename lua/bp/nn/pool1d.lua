--- nn.max_pool1d, nn.avg_pool1d and the global pools, over sequences [batch][time][channels].
local core = require "bp.core"
local layer = require "bp.nn.layer"

local ops = core.ops

local function windowed(name, summary, op)
  local class = layer.define(name, summary, {
    { "size", "int", min = 1, default = 2, help = "length of the window" },
    { "strides", "int", min = 1, help = "step of the window; default its size" },
    { "padding", "choice", choices = { "valid", "same" }, default = "valid", help = '"valid" drops what fills no window, "same" keeps it' },
  })
  function class:setup(o)
    rawset(self, "op_options", { size = { 1, o.size }, stride = { 1, o.strides or o.size }, padding = o.padding })
  end
  function class:forward(x)
    layer.need_dims(self, x:shape(), 3, "[batch][time][channels]")
    return ops.squeeze((op(ops.unsqueeze(x, { axis = 2 }), self.op_options)), { axes = { 2 } })
  end
  return class
end

local function global(name, summary, reduce)
  local class = layer.define(name, summary, {
    { "keepdims", "boolean", default = false, named = true, help = "give [batch][1][channels] instead of [batch][channels]" },
  })
  function class:forward(x)
    layer.need_dims(self, x:shape(), 3, "[batch][time][channels]")
    return reduce(x, { axes = { 2 }, keepdims = self.options.keepdims })
  end
  return class
end

return {
  max_pool1d = windowed("max_pool1d", "Maximum over windows of a sequence.", ops.max_pool2d),
  avg_pool1d = windowed("avg_pool1d", "Mean over windows of a sequence; padding does not count.", ops.avg_pool2d),
  global_max_pool1d = global("global_max_pool1d", "Maximum over all steps of each channel.", ops.max),
  global_avg_pool1d = global("global_avg_pool1d", "Mean over all steps of each channel.", ops.mean),
}
