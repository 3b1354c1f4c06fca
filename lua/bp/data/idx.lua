--- data.idx: the files of the MNIST family, plain or gzip'd.
local core = require "bp.core"
local dataset = require "bp.data.dataset"
local options = require "bp.options"

local ops = core.ops
local data = {}

local spec = options.define("data.idx", "Reads IDX files, plain or gzip'd.", {
  { "x", "string", required = true, help = "path of the samples" },
  { "y", "string", help = "path of the labels, counted from 0 in the file; they are shifted to count from 1" },
  { "classes", "table", named = true, help = "names of the classes, in order" },
})

-- Images [n][height][width] have one channel.
local function as_images(x)
  if x.ndim ~= 3 then return x end
  local shape = x:shape()
  shape[4] = 1
  return ops.reshape(x, { shape = shape })
end

-- Labels 0..C-1 as i64 1..C; nil and a message when one is not below the number of names.
local function as_labels(path, y, classes)
  if y.ndim ~= 1 or y.dtype == "f32" or y.dtype == "f64" then
    return nil, ("%s: holds %s of %d dimensions; labels are whole numbers of one"):format(path, y.dtype, y.ndim), "eformat"
  end
  y = ops.cast(y, { dtype = "i64" }) + 1
  local highest = y:shape(1) > 0 and ops.max(y):item() or 0
  if classes and highest > #classes then
    return nil, ("%s: label %d, counted from 0; there are %d classes"):format(path, highest - 1, #classes), "eformat"
  end
  return y
end

--- Reads one IDX file as a tensor, or samples and labels as a dataset.
---
---     local numbers = data.idx "numbers.idx.gz"
---     local train = data.idx{ "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz" }
---
--- A tensor keeps the numbers of the file. A dataset has images as [n][height][width][1] and labels from 1.
---@param given string|table a path, or { x, y, classes = names }
---@return table|nil tensor or dataset
---@return string|nil message
---@return string|nil code
function data.idx(given)
  if type(given) == "string" then return core.idx_load(given) end
  local o = spec:read(given)
  local x, message, code = core.idx_load(o.x)
  if not x then return nil, message, code end
  local y
  if o.y then
    y, message, code = core.idx_load(o.y)
    if y then y, message, code = core.no_grad(as_labels, o.y, y, o.classes) end
    if not y then return nil, message, code end
    if y:shape(1) ~= x:shape(1) then
      return nil, ("%s has %d samples, %s %d labels; expected as many"):format(o.x, x:shape(1), o.y, y:shape(1)), "eformat"
    end
  end
  return dataset.make("data.idx", { x = core.no_grad(as_images, x), y = y }, { classes = o.classes })
end

return data.idx
