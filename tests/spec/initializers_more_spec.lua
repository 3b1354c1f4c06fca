--- Initialisers beyond Keras' three families, and the preset of PyTorch.
local bp = require "bp"
local bad = require "support.bad"
local check = require "support.check"
local nn, init = bp.nn, bp.nn.init

local function deviation(w)
  local flat = w:to("f64"):reshape(-1)
  return math.sqrt((flat - flat:mean()):square():mean():item()), flat:min():item(), flat:max():item()
end

describe("nn.init", function()
  before_each(function() bp.seed(30) end)

  it("draws truncated normals", function()
    local std, low, high = deviation(init.truncated_normal({ 200, 200 }, { mean = 1, std = 0.5 }))
    assert.near(0.5 * 0.87962566, std, 0.01)
    assert.is_true(low >= 0 and low < 0.02 and high <= 2 and high > 1.98)
  end)

  it("scales variances by fans, of which the families are cases", function()
    for mode, fan in pairs{ fan_in = 9 * 20, fan_out = 9 * 60, fan_avg = 9 * 40 } do
      for _, distribution in ipairs{ "truncated_normal", "untruncated_normal", "uniform" } do
        local std = deviation(init.variance_scaling({ 3, 3, 20, 60 }, { scale = 3, mode = mode, distribution = distribution }))
        assert.near(1, std / math.sqrt(3 / fan), 0.03, mode .. " " .. distribution)
      end
    end
    for name, o in pairs{ he_normal = { 2 }, glorot_uniform = { 1, "fan_avg", "uniform" }, lecun_normal = {} } do
      bp.seed(31)
      local expected = init[name]{ 30, 40 }
      bp.seed(31)
      assert.is_true(check.equal(expected, init.variance_scaling({ 30, 40 }, o)), name)
    end
  end)

  it("makes identities, of convolutions too", function()
    assert.is_true(check.equal(bp.eye(3) * 2, init.identity({ 3, 3 }, 2)))
    local image = bp.randn(1, 5, 5, 3)
    local conv = nn.conv2d{ 3, 3, padding = "same", kernel_init = "identity" }
    assert.is_true(check.equal(image, conv(image)))
    assert.same({ 2, 4 }, init.identity{ 2, 4 }:shape())
  end)

  it("starts layers as PyTorch does, bias included, and saves that", function()
    for _, case in ipairs{ { nn.dense{ 400, init = "torch" }, bp.randn(1, 50), 50 },
      { nn.conv2d{ 300, 3, init = "torch" }, bp.randn(1, 5, 5, 8), 72 } } do
      local one, x, fan_in = table.unpack(case)
      one(x)
      for _, w in ipairs{ one.kernel, one.bias } do
        local _, low, high = deviation(w)
        local limit = 1 / math.sqrt(fan_in)
        assert.is_true(low >= -limit and low < -0.97 * limit and high <= limit and high > 0.97 * limit)
      end
    end
    local net, path = nn.sequential{ nn.dense{ 4, init = "torch" } }, os.tmpname()
    net(bp.ones(1, 3))
    assert(net:save(path))
    assert.equal("torch", assert(bp.load(path)):get_weights() and bp.load(path).layers[1].options.kernel_init)
    os.remove(path)
    local kept = nn.dense{ 4, init = "torch", bias_init = 0.5 }
    kept(bp.ones(1, 3))
    assert.equal(0.5, kept.bias[1]:item())
  end)

  bad.cases{
    { "an identity of a vector", function() init.identity{ 3 } end, "a shape of 1 dimensions", "expected at least 2" },
    { "an unknown mode", function() init.variance_scaling({ 3, 3 }, { mode = "fan" }) end, 'option \'mode\' is "fan"', '"fan_avg"' },
    { "a negative scale", function() init.variance_scaling({ 3, 3 }, -1) end, "option 'scale' is a number (-1)", "above 0" },
    { "an unknown preset", function() nn.dense{ 3, init = "tf" } end, 'option \'init\' is "tf"', '"keras", "torch"' },
  }
end)
