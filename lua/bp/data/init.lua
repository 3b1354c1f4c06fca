--- bp.data: datasets and where they come from.
---
---     local train, test = assert(data.fashion_mnist())
---     local part, validation = train:split{0.9, 0.1}
---     for batch in part:batches{ 64, shuffle = true } do print(batch.x, batch.y) end
---
--- A file that is missing, damaged or foreign gives nil, message, code; wrong arguments raise.
local columns = require "bp.data.columns"
local core = require "bp.core"
local dataset = require "bp.data.dataset"
local options = require "bp.options"

local data = {
  idx = require "bp.data.idx",
  csv = require "bp.data.csv",
  images = require "bp.data.images",
  fashion_mnist = require "bp.data.fashion_mnist",
  sequences = require "bp.data.sequences",
}

local tensors_spec = options.define("data.tensors", "A dataset of tensors at hand.", {
  { "x", "tensor|table", required = true, help = "inputs, samples along the first dimension; a table of tensors where there are several" },
  { "y", "tensor|table", help = "targets; labels count from 1" },
  { "weight", "tensor", named = true, help = "a weight for each sample" },
  { "classes", "table", named = true, help = "names of the classes, in the order of the labels" },
})

--- A dataset of tensors at hand, which it keeps without copying.
---@param given table { x, y, weight =, classes = }
---@return table dataset
function data.tensors(given)
  local o = tensors_spec:read(given)
  return dataset.make("data.tensors", o, { classes = o.classes })
end

local padding_spec = options.define("data.padding_share", "How much of the batches of sequences is padding.", {
  { "dataset", "any", required = true, help = "made by data.sequences" },
  { "batch_size", "int", min = 1, default = 32, named = true, help = "samples of a batch" },
  { "bucket", "int", min = 1, default = 1, named = true, help = "so many batches are sorted by length together; 1: none" },
})

--- The share of padding in the batches of a dataset of sequences, taken in its own order.
---@param given table { dataset, batch_size = 32, bucket = 1 }
---@return number share 0 to 1
function data.padding_share(given, ...)
  local o = padding_spec:read(given, ...)
  local sequences = dataset.is_dataset(o.dataset) and columns.sequences(o.dataset.columns)
  if not sequences then padding_spec:fail("%s; expected a dataset made by data.sequences", options.describe(o.dataset)) end
  local steps, own = 0, 0
  for batch in o.dataset:batches{ o.batch_size, bucket = o.bucket } do
    local index = o.dataset.rows and core.ops.take(o.dataset.rows, batch.index, { axis = 1 }) or batch.index
    steps = steps + batch.x:numel()
    for _, row in ipairs(index:totable()) do own = own + sequences.lengths[row] end
  end
  return steps > 0 and 1 - own / steps or 0
end

--- Whether a value is a dataset.
---@param value any
---@return boolean
function data.is_dataset(value) return dataset.is_dataset(value) end

return data
