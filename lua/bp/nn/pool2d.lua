--- nn.max_pool2d, nn.avg_pool2d and the global pools, over images [batch][height][width][channels].
local core = require "bp.core"
local layer = require "bp.nn.layer"

local function fields()
  return {
    { "size", "pair", min = 1, default = { 2, 2 }, help = "height and width of the window; one number for both" },
    { "strides", "pair", min = 1, help = "steps of the window; default its size" },
    { "padding", "choice", choices = { "valid", "same" }, default = "valid", help = '"valid" drops what fills no window, "same" keeps it' },
  }
end

local function windowed(name, summary)
  local class = layer.define(name, summary, fields())
  function class:setup(o)
    rawset(self, "op_options", { size = o.size, stride = o.strides or o.size, padding = o.padding })
  end
  function class:forward(x)
    return (core.ops[name](x, self.op_options))
  end
  return class
end

local function global(name, summary, reduce)
  local class = layer.define(name, summary, {
    { "keepdims", "boolean", default = false, named = true, help = "give [batch][1][1][channels] instead of [batch][channels]" },
  })
  function class:forward(x)
    layer.need_dims(self, x:shape(), 4, "[batch][height][width][channels]")
    return reduce(x, { axes = { 2, 3 }, keepdims = self.options.keepdims })
  end
  return class
end

return {
  max_pool2d = windowed("max_pool2d", "Maximum over windows of an image."),
  avg_pool2d = windowed("avg_pool2d", "Mean over windows of an image; padding does not count."),
  global_max_pool2d = global("global_max_pool2d", "Maximum over all pixels of each channel.", core.ops.max),
  global_avg_pool2d = global("global_avg_pool2d", "Mean over all pixels of each channel.", core.ops.mean),
}
