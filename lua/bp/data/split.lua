--- Which samples go into which part of a dataset.
---@internal
local core = require "bp.core"
local options = require "bp.options"

local ops = core.ops
local split = {}

local spec = options.define("split", "Parts of a dataset.", {
  { "shuffle", "boolean", default = true, named = true, help = "shuffle the samples before, with the shuffle stream" },
  { "stratify", "boolean", named = true, help = "give every part the same mix of classes; by default where classes are known" },
})

-- Shares that add up to 1, or numbers of samples -> numbers of samples.
local function counts_of(shares, n)
  local sum, whole = 0, true
  for i, share in ipairs(shares) do
    if type(share) ~= "number" or share ~= share or share <= 0 or share == math.huge then
      spec:fail("part %d is %s; expected a share above 0, or a number of samples", i, options.describe(share))
    end
    sum, whole = sum + share, whole and math.type(share) == "integer"
  end
  if #shares == 0 then spec:fail("no parts; expected their shares, as in split{0.8, 0.2}") end
  if whole and not (#shares == 1 and sum == 1) then
    if sum ~= n then spec:fail("the parts have %d samples together; the dataset has %d", sum, n) end
    return table.move(shares, 1, #shares, 1, {})
  end
  if math.abs(sum - 1) > 1e-6 then spec:fail("the shares add up to %g; expected 1", sum) end
  -- cumulative rounding: no share is off by more than one sample, and all add up to n
  local counts, done, before = {}, 0, 0
  for i, share in ipairs(shares) do
    done = i == #shares and 1 or done + share
    local edge = math.floor(done * n + 0.5)
    counts[i], before = edge - before, edge
    if counts[i] == 0 then spec:fail("part %d (%g) of %d samples is empty; expected larger shares or more samples", i, share, n) end
  end
  return counts
end

local function has_labels(y)
  return core.is_tensor(y) and y.ndim == 1 and (y.dtype == "i64" or y.dtype == "i32" or y.dtype == "u8")
end

--- Reads the arguments of dataset:split.
---@param dataset table
---@param given any
---@return integer[] counts samples of each part
---@return table o { shuffle =, stratify = }
function split.read(dataset, given)
  if not options.is_plain(given) then
    spec:fail("the parts are %s; expected their shares, as in split{0.8, 0.2}", options.describe(given))
  end
  local named = {}
  for key, value in pairs(given) do
    if type(key) ~= "number" then named[key] = value end
  end
  local o = spec:read(named)
  local labels = has_labels(dataset.columns.y)
  if o.stratify and not labels then
    spec:fail("stratify needs labels; y is %s", options.describe(dataset.columns.y))
  end
  if o.stratify == nil then o.stratify = labels and dataset.notes.classes ~= nil end
  return counts_of(given, #dataset), o
end

-- Takes `count` of the n positions, evenly spread over their order: the k-th is taken where (k * count + n/2) / n, rounded down, goes up.
local function spread(positions, count)
  local n = positions:shape(1)
  local k = ops.arange{ start = 0, stop = n + 1, dtype = "f64" }
  local steps = ops.floor((k * count + 0.5 * n) / n)
  local taken = ops.ne(steps[{ { 2, n + 1 } }], steps[{ { 1, n } }])
  return ops.masked_select(positions, taken), ops.masked_select(positions, ops.logical_not(taken))
end

--- Positions 1..n dealt out to parts. With labels, the samples are put in order of class (at random within each) and each part is spread
--- evenly over that order, so that it has its share of every class, give or take one sample.
---@param labels table|nil tensor [n]
---@param n integer
---@param counts integer[]
---@param shuffle boolean
---@return table[] parts tensors of positions
function split.positions(labels, n, counts, shuffle)
  local order = ops.arange{ start = 1, stop = n + 1, dtype = "i64" }
  if shuffle then order = ops.random_permutation(core.stream "shuffle", { n = n }) end
  local parts = {}
  if not labels then
    local first = 1
    for i, count in ipairs(counts) do
      parts[i] = order[{ { first, first + count - 1 } }]
      first = first + count
    end
    return parts
  end
  local classes = ops.argsort(ops.take(labels, order, { axis = 1 }), { axis = 1 })
  local rest = ops.take(order, classes, { axis = 1 })
  for i = #counts, 2, -1 do parts[i], rest = spread(rest, counts[i]) end
  parts[1] = rest
  for i, part in ipairs(parts) do
    if shuffle then
      parts[i] = ops.take(part, ops.random_permutation(core.stream "shuffle", { n = counts[i] }), { axis = 1 })
    else
      parts[i] = ops.sort(part, { axis = 1 })
    end
  end
  return parts
end

return split
