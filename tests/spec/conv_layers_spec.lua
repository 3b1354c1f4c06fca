--- Convolutions, pooling, resampling and noise: what stored vectors do not show, and misuse.
local bp = require "bp"
local bad = require "support.bad"
local check = require "support.check"
local nn = bp.nn

local series, image = bp.ones(2, 7, 4), bp.ones(2, 6, 7, 4)

describe("convolution layers", function()
  it("see nothing of what comes later, with causal padding", function()
    for _, layer in ipairs{ nn.conv1d{ 3, 3, padding = "causal", dilation = 2 }, nn.depthwise_conv1d{ 4, padding = "causal" },
      nn.separable_conv1d{ 2, 3, padding = "causal" } } do
      local x = bp.randn(1, 9, 2)
      local y = layer(x)
      local changed = x:clone()
      changed[{ {}, { 6, 9 } }] = 7
      local z = layer(changed)
      assert.is_true(check.equal(y[{ {}, { 1, 5 } }], z[{ {}, { 1, 5 } }]))
      assert.is_false(check.equal(y[{ {}, { 6, 6 } }], z[{ {}, { 6, 6 } }]))
    end
  end)

  it("of as many groups as channels is a depthwise convolution", function()
    local x = bp.randn(2, 6, 7, 4)
    local grouped = nn.conv2d{ 8, 3, groups = 4, padding = "same" }
    local depthwise = nn.depthwise_conv2d{ 3, depth_multiplier = 2, padding = "same" }
    grouped(x)
    depthwise(x)
    depthwise.kernel = grouped.kernel:detach():reshape(3, 3, 4, 2)
    assert.is_true(check.equal(grouped(x), depthwise(x)))
  end)

  it("fuse relu, and apply other activations after", function()
    local x = bp.randn(2, 6, 7, 4)
    for _, name in ipairs{ "depthwise_conv2d", "separable_conv2d", "conv2d_transpose" } do
      local function make(activation)
        bp.seed(1)
        if name == "depthwise_conv2d" then return nn[name]{ 3, activation = activation } end
        return nn[name]{ 5, 3, activation = activation }
      end
      local y = make(nil)(x)
      assert.is_true(check.equal(y:relu(), make "relu"(x)), name)
      assert.is_true(check.equal(y:tanh(), make "tanh"(x)), name)
    end
  end)

  it("take back the sizes that strided convolutions made smaller", function()
    for size = 4, 9 do
      local x = bp.randn(1, size, size + 1, 2)
      local down = nn.conv2d{ 3, 3, strides = 2, padding = "same" }(x)
      local shape = nn.conv2d_transpose{ 2, 3, strides = 2, padding = "same" }(down):shape()
      assert.same({ 1, (size + 1) // 2 * 2, (size + 2) // 2 * 2, 2 }, shape)
    end
  end)

  it("start as PyTorch's do with init = \"torch\": kernel and bias within 1 / sqrt(fan_in)", function()
    bp.seed(1)
    for _, case in ipairs{ { "conv1d", 32, 5 * 4, series }, { "conv1d_transpose", 32, 5 * 32, series },
      { "separable_conv1d", 64, 4, series }, { "conv2d_transpose", 32, 25 * 32, image },
      { "depthwise_conv2d", nil, 25, image }, { "separable_conv2d", 64, 4, image } } do
      local name, filters, fan_in, x = table.unpack(case, 1, 4)
      local layer = nn[name]{ filters = filters, kernel_size = 5, depth_multiplier = not filters and 16 or nil, init = "torch" }
      layer(x)
      local limit = 1 / math.sqrt(fan_in)
      for _, p in ipairs{ layer.pointwise_kernel or layer.kernel, layer.bias } do
        local most = p:abs():max():item()
        assert(most <= limit and most > 0.8 * limit, ("%s: %g of %g"):format(name, most, limit))
      end
      local window = name:find "2d" and 25 or 5
      if layer.pointwise_kernel then assert.is_true(layer.kernel:abs():max():item() <= 1 / math.sqrt(window)) end
    end
  end)

  it("add their penalties, both kernels of a separable one", function()
    local layer = nn.separable_conv2d{ 3, 3, l2 = 0.5, l1 = 0.1 }
    layer(bp.randn(1, 5, 5, 2))
    local k, p = layer.kernel, layer.pointwise_kernel
    local expected = (k:square():sum() + p:square():sum()) * 0.5 + (k:abs():sum() + p:abs():sum()) * 0.1
    assert.near(expected:item(), layer:penalty():item(), 1e-5)
  end)
end)

describe("noise layers", function()
  local x = bp.randn(4000, 10)

  it("are the identity at inference and at rate 0", function()
    for _, layer in ipairs{ nn.gaussian_noise(0.5), nn.gaussian_dropout(0.5), nn.alpha_dropout(0.5) } do
      assert.is_true(check.equal(x, layer:eval()(x)))
    end
    for _, layer in ipairs{ nn.gaussian_noise(0), nn.gaussian_dropout(0), nn.alpha_dropout(0), nn.spatial_dropout1d(0) } do
      assert.is_true(check.equal(series, layer(series)))
    end
    assert.is_true(check.equal(image, nn.spatial_dropout2d(0.5):eval()(image)))
  end)

  it("have the moments that their names promise", function()
    bp.seed(2)
    local function moments(t)
      local mean = t:mean():item()
      return mean, math.sqrt((t - mean):square():mean():item())
    end
    local mean, std = moments(nn.gaussian_noise(0.5)(x) - x)
    assert.near(0, mean, 0.01)
    assert.near(0.5, std, 0.01)
    mean, std = moments(nn.gaussian_dropout(0.2)(bp.ones(4000, 10)))
    assert.near(1, mean, 0.01)
    assert.near(0.5, std, 0.01)
    mean, std = moments(nn.alpha_dropout(0.3)(x))
    assert.near(0, mean, 0.03)
    assert.near(1, std, 0.03)
  end)

  it("drop a channel wherever it stands", function()
    bp.seed(3)
    local y = nn.spatial_dropout2d(0.5)(bp.ones(50, 6, 7, 4)):reshape(50, 42, 4)
    local least, most = y:min{ axes = { 2 } }, y:max{ axes = { 2 } }
    assert.is_true(check.equal(least, most))
    assert.same({ 0, 2 }, { least:min():item(), most:max():item() })
    assert.near(1, y:mean():item(), 0.2)
    local z = nn.spatial_dropout1d(0.25)(bp.ones(200, 7, 4))
    assert.is_true(check.equal(z:min{ axes = { 2 } }, z:max{ axes = { 2 } }))
    assert.near(1, z:mean():item(), 0.1)
  end)
end)

describe("pooling and resampling", function()
  it("to the size there is changes nothing", function()
    local x = bp.randn(2, 5, 7, 3)
    assert.is_true(check.equal(x, nn.adaptive_avg_pool2d{ 5, 7 }(x)))
    assert.is_true(check.equal(x, nn.adaptive_max_pool2d{ 5, 7 }(x)))
    assert.is_true(check.equal(x, nn.crop2d{ 1, 2 }(nn.zero_pad2d{ 1, 2 }(x))))
    assert.is_true(check.equal(x, nn.avg_pool2d{ 2 }(nn.upsample2d(2)(x))))
    check.near(x:mean{ axes = { 2, 3 } }, nn.adaptive_avg_pool2d(1)(x):reshape(2, 3))
  end)

  it("works on bytes, too", function()
    local x = bp.randint(0, 255, 1, 4, 4, 1):to "u8"
    assert.equal("u8", nn.zero_pad2d(1)(x).dtype)
    assert.equal("u8", nn.upsample2d(2)(x).dtype)
    check.near(nn.upsample2d{ 2, "bilinear" }(x:to "f32"), nn.upsample2d{ 2, "bilinear" }(x))
  end)
end)

describe("these layers refuse", function()
  local whole = "expected a whole number at least 1"
  bad.cases{
    { "a sequence for images", function() nn.depthwise_conv2d(3)(series) end, "the input is [2][7][4]",
      "expected [batch][height][width][channels]" },
    { "images for sequences", function() nn.conv1d{ 3, 3 }(image) end, "the input is [2][6][7][4]", "expected [batch][time][channels]" },
    { "a sequence without channels", function() nn.conv1d{ 3, 3 }(bp.ones(2, 7)) end, "the input is [2][7]", "x:unsqueeze(-1)" },
    { "a window of two sizes in a sequence", function() nn.conv1d{ 3, { 3, 3 } } end, "option 'kernel_size' is a table", whole },
    { "causal images", function() nn.conv2d{ 3, 3, padding = "causal" } end, 'option \'padding\' is "causal"', 'one of "valid", "same"' },
    { "a sequence that is too short", function() nn.conv1d{ 3, 9 }(series) end, "a window of 1x9 does not fit", 'padding="same"' },
    { "groups that do not share evenly", function() nn.conv2d{ 6, 3, groups = 3 }(image) end,
      "3 groups cannot share 4 input channels and 6 filters evenly", "expected multiples of 3" },
    { "no groups", function() nn.conv1d{ 6, 3, groups = 0 } end, "option 'groups' is a number (0)", whole },
    { "channels that changed", function()
      local layer = nn.depthwise_conv2d(3)
      layer(image)
      layer(bp.ones(1, 5, 5, 3))
    end, "[1x5x5x3] have 3 channels and weights [3x3x4x1] take 4", "[kh][kw][channels][multiplier]" },
    { "no multiplier", function() nn.depthwise_conv2d{ 3, depth_multiplier = 0 } end, "option 'depth_multiplier' is a number (0)", whole },
    { "output_padding that is too large", function() nn.conv2d_transpose{ 3, 3, strides = 2, output_padding = 2 } end,
      "option 'output_padding' is 2 with strides of 2", "expected less than the strides" },
    { "output_padding that does not come out",
      function() nn.conv2d_transpose{ 3, 4, strides = 2, padding = "same", output_padding = 0 }(image) end,
      "output_padding 0 makes 10 of 6", "expected another output_padding" },
    { "a sequence that is shorter than its window", function() nn.max_pool1d(9)(series) end, "a window of 1x9 does not fit into images",
      'padding="same"' },
    { "pooling to nothing", function() nn.adaptive_avg_pool2d(0) end, "option 'size' is a number (0)", "at least 1" },
    { "a pool without size", function() nn.adaptive_max_pool1d() end, "option 'size' is missing", "length of the result" },
    { "negative zeros", function() nn.zero_pad1d(-1) end, "option 'padding' is a number (-1)", "at least 0" },
    { "zeros on three sides", function() nn.zero_pad2d{ { 1, 2, 3 }, { 1, 1 } } end, "option 'padding' is a table",
      "{ { top, bottom }, { left, right } }" },
    { "half a zero", function() nn.zero_pad1d{ 0.5, 1 } end, "option 'padding'", "a whole number at least 0 or { before, after }" },
    { "cropping everything", function() nn.crop1d{ 4, 3 }(series) end, "the input is [2][7][4]; cutting 4 and 3 off dimension 2",
      "expected less" },
    { "growing by 0", function() nn.upsample2d(0) end, "option 'size' is a number (0)", "at least 1" },
    { "an unknown interpolation", function() nn.upsample2d{ 2, "cubic" } end, 'option \'interpolation\' is "cubic"',
      'one of "nearest", "bilinear"' },
    { "an order without all dimensions", function() nn.permute{ 1, 3 } end, "option 'dims' is { 1, 3 }", "expected each of 1 to 2 once" },
    { "an order of too few dimensions", function() nn.permute{ 2, 1 }(image) end, "the input is [2][6][7][4]",
      "expected 2 dimensions after the batch" },
    { "gates for an odd number", function() nn.glu()(bp.ones(2, 3)) end, "dimension -1 of [2][3] has 3 elements",
      "expected an even number" },
    { "slopes for another width", function()
      local layer = nn.prelu()
      layer(bp.ones(2, 3))
      layer(bp.ones(2, 4))
    end, "shapes [2x4] and [3] do not fit together", "reshape or unsqueeze" },
    { "an unknown way of sharing", function() nn.prelu "channels" end, "option 'share' is \"channels\"", 'one of "positions"' },
    { "dropping everything", function() nn.spatial_dropout2d(1) end, "option 'rate' is a number (1)", "below 1" },
    { "noise without width", function() nn.gaussian_noise() end, "option 'stddev' is missing", "standard deviation" },
    { "negative noise", function() nn.gaussian_noise(-1) end, "option 'stddev' is a number (-1)", "at least 0" },
    { "dropping channels of rows", function() nn.spatial_dropout1d(0.5)(bp.ones(2, 3)) end, "the input is [2][3]",
      "expected [batch][time][channels]" },
    { "an activation with a mistake", function() nn.dense{ 3, activation = "hard_sigmod" } end, "unknown activation 'hard_sigmod'",
      "did you mean 'hard_sigmoid'?" },
    { "text for a tensor", function() nn.max_pool1d(2) "text" end, 'max_pool1d: the input is a string ("text")', "expected a tensor" },
  }
end)
