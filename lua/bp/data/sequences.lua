--- data.sequences: samples that are lists of ids of unlike lengths. A batch is as long as its longest sample, rounded up; with `bucket`,
--- samples of like length come together, so that little of a batch is padding.
local core = require "bp.core"
local dataset = require "bp.data.dataset"
local options = require "bp.options"
local ragged = require "bp.data.ragged"

local spec = options.define("data.sequences", "A dataset of sequences of unlike lengths.", {
  { "x", "table", required = true, help = "list of lists of ids" },
  { "y", "tensor|table", help = "targets: a tensor, or a list of labels" },
  { "padding", "int", default = 1, named = true, help = "what fills up the short ones, at the end" },
  { "max_length", "int", min = 1, named = true, help = "longer ones are cut at the end" },
  { "round", "int", min = 1, default = 8, named = true,
    help = "the length of a batch is a multiple of this: a captured step is recorded for every length it meets" },
  { "bucket", "int", min = 1, default = 50, named = true,
    help = "so many batches of a shuffled order are sorted by length together; 1: none" },
  { "weight", "tensor", named = true, help = "a weight for each sample" },
  { "classes", "table", named = true, help = "names of the classes, in the order of the labels" },
})

--- A dataset of sequences. Its batches have x: i64 [samples][steps].
---@param given table { x, y, padding = 1, max_length =, round = 8, bucket = 50, classes = }
---@return table dataset
local function sequences(given, ...)
  local o = spec:read(given, ...)
  local column = ragged.new("data.sequences", o)
  local y = o.y
  if options.is_plain(y) then y = core.tensor(y, { dtype = "i64" }) end
  return dataset.make("data.sequences", { x = column, y = y, weight = o.weight }, { classes = o.classes, bucket = o.bucket })
end

return sequences
