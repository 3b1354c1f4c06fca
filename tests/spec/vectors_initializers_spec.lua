--- Initialisers: the moments and the reach of what they draw, as theory has them and as Keras draws them.
local bp = require "bp"
local vectors = require "support.vectors"
local init = bp.nn.init

-- mean, standard deviation, minimum, maximum
local function stats(w)
  local flat = w:to("f64"):reshape(-1)
  local mean = flat:mean():item()
  return { mean, math.sqrt((flat - mean):square():mean():item()), flat:min():item(), flat:max():item() }
end

-- Five standard errors: one run in a million would fail, and the seed is fixed.
local function near_within(expected, actual, error, what)
  assert(math.abs(expected - actual) <= 5 * error, ("%s: %g; expected %g +- %g"):format(what, actual, expected, 5 * error))
end

local function random(case)
  local about = case.about
  local shape, n = vectors.list(about.shape), 1
  for _, size in ipairs(shape) do n = n * size end
  local std = about.std or about.limit / math.sqrt(3)
  local reach = about.limit or about.truncated
  local keras = case.stats:totable()
  bp.seed(20)
  for dtype, margin in pairs{ f32 = 1e-6, f64 = 1e-12 } do
    local w = init[case.op](shape, { dtype = dtype })
    assert.same(shape, w:shape())
    assert.equal(dtype, w.dtype)
    local mine = stats(w)
    near_within(0, mine[1], std / math.sqrt(n), "mean")
    near_within(std, mine[2], std / math.sqrt(n), "deviation")
    near_within(keras[2], mine[2], 2 * std / math.sqrt(n), "deviation beside Keras' draw")
    for i, sign in pairs{ [3] = -1, [4] = 1 } do
      local edge = sign * mine[i] / reach
      assert(edge <= 1 + margin and edge > 0.98, ("the draw reaches %g of %g"):format(edge * reach, reach))
      assert(sign * keras[i] / reach > 0.98)
    end
  end
end

local function orthogonal(case)
  local about = case.about
  bp.seed(21)
  for dtype, margin in pairs{ f64 = 1e-12, f32 = 1e-5 } do
    local w = init.orthogonal(vectors.list(about.shape), { gain = about.gain, dtype = dtype })
    assert.same(vectors.list(about.shape), w:shape())
    local q = w:to("f64"):reshape(-1, about.shape[#about.shape]) / about.gain
    if q:shape(1) < q:shape(2) then q = q:t() end
    local product = q:t():matmul(q)
    for i, value in ipairs(stats(product - bp.eye(q:shape(2), { dtype = "f64" }))) do
      assert(math.abs(value - case.stats[i]:item()) < margin, ("%s: statistic %d is %g"):format(dtype, i, value))
    end
  end
end

local tests = { orthogonal = orthogonal }
for _, family in ipairs{ "glorot", "he", "lecun" } do
  tests[family .. "_uniform"], tests[family .. "_normal"] = random, random
end

describe("initialisers draw as Keras' do:", function()
  vectors.compare("initializers", tests, {})
end)
