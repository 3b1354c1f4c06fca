--- bp.data: datasets and where they come from.
---
---     local train, test = assert(data.fashion_mnist())
---     local part, validation = train:split{0.9, 0.1}
---     for batch in part:batches{ 64, shuffle = true } do print(batch.x, batch.y) end
---
--- A file that is missing, damaged or foreign gives nil, message, code; wrong arguments raise.
local dataset = require "bp.data.dataset"
local options = require "bp.options"

local data = {
  idx = require "bp.data.idx",
  csv = require "bp.data.csv",
  images = require "bp.data.images",
  fashion_mnist = require "bp.data.fashion_mnist",
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

--- Whether a value is a dataset.
---@param value any
---@return boolean
function data.is_dataset(value) return dataset.is_dataset(value) end

return data
