--- Modules and layers: naming, building, shapes, modes, sharing, errors that name the layer.
local bp = require "bp"
local check = require "support.check"
local nn, near, fails = bp.nn, check.near, check.fails

local function names(iterator)
  local list = {}
  for name in iterator do list[#list + 1] = name end
  return list
end

describe("nn.module", function()
  local Net = nn.module("SpecNet", function(self, o)
    self.first = nn.dense{ o.units, activation = "relu" }
    self.blocks = { nn.dense(4), nn.sequential{ nn.dense(3), nn.dropout(0.5) } }
    self.gain = nn.parameter{ 1, 2, 3 }
    self.note = "plain"
    self:buffer("seen", bp.zeros(2))
  end)
  function Net:forward(x)
    local h = self.first(x)
    for _, block in ipairs(self.blocks) do h = block(h) end
    return h * self.gain
  end

  it("collects parameters by assignment, through lists, in order", function()
    local net = Net{ units = 5 }
    net(bp.randn(2, 7))
    assert.same({ "gain", "first.kernel", "first.bias", "blocks.1.kernel", "blocks.1.bias", "blocks.2.dense_1.kernel",
      "blocks.2.dense_1.bias" },
      names(net:named_parameters()))
    assert.same({ "seen" }, names(net:named_buffers()))
    assert.same({ "first", "blocks.1", "blocks.2" }, names(net:children()))
    assert.same({ "", "first", "blocks.1", "blocks.2", "blocks.2.dense_1", "blocks.2.dropout_1" }, names(net:modules()))
    assert.equal(7, #net:parameters())
    assert.equal(3 + 7 * 5 + 5 + 5 * 4 + 4 + 4 * 3 + 3, net:count())
    assert.equal("plain", net.note)
  end)

  it("has no parameters before the first call, and says so", function()
    fails("SpecNet: layer 'first' has no parameters yet", function() Net{ units = 5 }:parameters() end)
    local net = Net{ units = 5 }:build_for(7)
    assert.equal(7, #net:parameters())
  end)

  it("puts a tensor assigned anew in the old one's place", function()
    local net = Net{ units = 5 }:build_for{ 7 }
    net.gain = nn.parameter{ 4, 5, 6 }
    assert.equal("gain", names(net:named_parameters())[1])
    near(net.gain, bp.tensor{ 4, 5, 6 })
  end)

  it("takes numbers for a parameter in place", function()
    local net = Net{ units = 5 }:build_for{ 7 }
    local gain = net.gain
    net.gain = bp.tensor{ 7, 8, 9 }
    assert.equal(gain, net.gain)
    assert.is_true(net.gain.requires_grad)
    near(net.gain, bp.tensor{ 7, 8, 9 })
    fails("SpecNet: the parameter 'gain' is [3]; the tensor assigned to it is [2]", function() net.gain = bp.zeros(2) end)
  end)

  it("prints as a tree with the options that are not defaults", function()
    local model = nn.sequential{ nn.conv2d{ 4, 3, padding = "same" }, nn.sequential{ nn.relu(), nn.dense{ 2, activation = "tanh" } } }
    assert.equal([[sequential {
  conv2d_1: conv2d{ filters = 4, kernel_size = { 3, 3 }, padding = "same" }
  sequential_1: sequential {
    relu_1: relu
    dense_1: dense{ units = 2, activation = "tanh" }
  }
}]], tostring(model))
    assert.equal("SpecNet {\n  first: dense", tostring(Net{ units = 3 }):sub(1, 24))
  end)

  it("refuses names of its own methods, and classes that are not called", function()
    fails("'train' is a method of every module", function()
      nn.module("SpecBad", function(self) self.train = nn.dense(1) end)()
    end)
    fails("sequential: layer 2 is a dense (class); expected a layer; call it", function() nn.sequential{ nn.dense(1), nn.dense } end)
    fails("SpecEmpty: it has no forward", function() nn.module "SpecEmpty" ()(bp.zeros(1)) end)
  end)

  it("has modes that reach every module below", function()
    local net = Net{ units = 5 }:build_for{ 7 }
    assert.is_true(net.training)
    net:eval()
    for _, one in net:modules() do assert.is_false(one.training) end
    net:train()
    for _, one in net:modules() do assert.is_true(one.training) end
  end)

  it("freezes by pattern", function()
    local net = Net{ units = 5 }:build_for{ 7 }
    assert.equal(4, net:freeze "blocks.*")
    assert.equal(3, #net:parameters{ trainable = true })
    assert.is_false(net.blocks[1].kernel.requires_grad)
    assert.equal(1, net:unfreeze "blocks.1.kernel")
    assert.is_true(net.blocks[1].kernel.requires_grad)
    assert.equal(2, net:freeze "first")
    fails("no parameter is called 'nosuch'", net.freeze, net, "nosuch")
  end)

  it("gives and takes all values, and names what does not fit", function()
    local net = Net{ units = 5 }:build_for{ 7 }
    local saved = net:get_weights()
    bp.no_grad(function() net.gain:fill_(9) end)
    net:set_weights(saved)
    near(net.gain, bp.tensor{ 1, 2, 3 })
    saved.gian, saved.gain = saved.gain, nil
    fails("the model has no tensor 'gian' (did you mean 'gain'?)", net.set_weights, net, saved)
    saved.gian, saved.gain = nil, bp.zeros(4)
    fails("'gain' is [4]; expected [3]", net.set_weights, net, saved)
  end)

  it("names the layer in errors of ops, once, also after an error before", function()
    local net = Net{ units = 5 }:build_for{ 7 }
    for _ = 1, 2 do fails("SpecNet/first: linear: x is [2x8]", net, bp.zeros(2, 8)) end
    local text = check.message(function() return bp.zeros(2, 3):matmul(bp.zeros(2, 3)) end)
    assert.is_nil(text:find("SpecNet", 1, true))
  end)
end)

describe("nn.sequential", function()
  it("names layers by kind and number, or as they say", function()
    local model = nn.sequential{ nn.dense(4), nn.relu(), nn.dense{ 3, name = "head" }, nn.dense(2) }
    local found = {}
    for name in model:children() do found[#found + 1] = name end
    assert.same({ "dense_1", "relu_1", "head", "dense_2" }, found)
    assert.equal(model:layer(3), model:layer "head")
    assert.equal(model:layer(-1), model:layer "dense_2")
    fails("there is no layer 'haed' (did you mean 'head'?)", model.layer, model, "haed")
    fails("there is no layer 9; there are 4", model.layer, model, 9)
    fails("both called 'a'", function() nn.sequential{ nn.dense{ 1, name = "a" }, nn.dense{ 1, name = "a" } } end)
  end)

  it("builds at once for a given input, and grows with add", function()
    local model = nn.sequential{ input = { 6, 6, 1 }, nn.conv2d{ 2, 3 }, nn.flatten(), nn.dense(5) }
    assert.same({ 32, 5 }, model:layer(-1).kernel:shape())
    model:add(nn.dense(2))
    assert.same({ 3, 2 }, model(bp.zeros(3, 6, 6, 1)):shape())
  end)

  it("counts a layer that stands in several places once", function()
    local shared = nn.dense(4)
    local model = nn.sequential{ shared, nn.tanh(), shared }
    model(bp.randn(2, 4))
    assert.equal(20, model:count())
    assert.equal(2, #model:parameters())
    local x = bp.randn(2, 4)
    near(model(x), shared(shared(x):tanh()), 1e-7)
    assert.truthy(model:summary():find("parameters: 20, trained: 20", 1, true))
  end)

  it("takes a Lua function for a layer", function()
    local model = nn.sequential{ function(x) return x * 2 end }
    near(model(bp.ones(2)), bp.full({ 2 }, 2))
  end)
end)

describe("layers", function()
  before_each(function() bp.seed(5) end)

  it("dense: x w + b over the last dimension, two numbers are inputs and units", function()
    local one = nn.dense{ 3, 4, activation = "tanh" }
    assert.same({ 3, 4 }, one.kernel:shape())
    local x = bp.randn(5, 2, 3)
    near(one(x), (x:reshape(10, 3):matmul(one.kernel) + one.bias):tanh():reshape(5, 2, 4), 1e-6)
    assert.is_nil(nn.dense{ 3, 4, use_bias = false }.bias)
    fails("dense: unknown activation 'rellu' (did you mean 'relu'?)", nn.dense, { 3, activation = "rellu" })
    fails("unknown initialiser 'he_norml' (did you mean 'he_normal'?)", function() nn.dense{ 3, 4, kernel_init = "he_norml" } end)
  end)

  it("give the shapes that their options say", function()
    local cases = {
      { nn.conv2d{ 8, 3 }, { 2, 10, 9, 3 }, { 2, 8, 7, 8 } },
      { nn.conv2d{ 8, { 3, 5 }, 2, "same" }, { 2, 10, 9, 3 }, { 2, 5, 5, 8 } },
      { nn.conv2d{ 8, 3, strides = { 2, 1 }, dilation = 2 }, { 2, 10, 9, 3 }, { 2, 3, 5, 8 } },
      { nn.max_pool2d(2), { 2, 10, 9, 3 }, { 2, 5, 4, 3 } },
      { nn.max_pool2d{ 3, strides = 2, padding = "same" }, { 2, 10, 9, 3 }, { 2, 5, 5, 3 } },
      { nn.avg_pool2d{ { 2, 3 } }, { 2, 10, 9, 3 }, { 2, 5, 3, 3 } },
      { nn.global_max_pool2d(), { 2, 10, 9, 3 }, { 2, 3 } },
      { nn.global_avg_pool2d{ keepdims = true }, { 2, 10, 9, 3 }, { 2, 1, 1, 3 } },
      { nn.flatten(), { 2, 10, 9, 3 }, { 2, 270 } },
      { nn.flatten(), { 4 }, { 4, 1 } },
      { nn.reshape{ 5, -1 }, { 2, 10, 9 }, { 2, 5, 18 } },
      { nn.reshape(90), { 2, 10, 9 }, { 2, 90 } },
      { nn.batch_norm(), { 2, 10, 9, 3 }, { 2, 10, 9, 3 } },
    }
    for _, case in ipairs(cases) do assert.same(case[3], case[1](bp.randn(case[2])):shape(), tostring(case[1])) end
  end)

  it("refuse inputs of another shape, with their name", function()
    fails("conv2d 'conv2d': the input is [2][28][28]; expected [batch][height][width][channels]", nn.conv2d{ 2, 3 }, bp.zeros(2, 28, 28))
    fails("global_avg_pool2d", nn.global_avg_pool2d(), bp.zeros(2, 3))
    fails("dense: the input is a number (3); expected a tensor", nn.dense(2), 3)
    fails("conv2d: option 'padding' is \"sme\" (did you mean 'same'?)", nn.conv2d, { 2, 3, padding = "sme" })
    fails("conv2d: option 'filters' is a number (0); expected a whole number at least 1", nn.conv2d, { 0, 3 })
    fails("dropout: option 'rate' is a number (1); expected a number at least 0 and below 1", nn.dropout, 1)
    fails("dropout: option 'rate' is missing", nn.dropout)
    fails("batch_norm: unknown option 'momentum': Keras means", nn.batch_norm, { momentum = 0.9 })
  end)

  it("dropout: drops while training, keeps the mean, is the identity otherwise", function()
    local one, x = nn.dropout(0.3), bp.ones(200, 50)
    local y = one(x)
    local zeros = y:eq(0):sum():item() / y:numel()
    assert.near(0.3, zeros, 0.02)
    near(y, bp.where(y:eq(0), 0 * x, x / 0.7), 1e-6)
    assert.near(1, y:mean():item(), 0.02)
    assert.is_false(check.equal(y, one(x)))
    one:eval()
    assert.is_true(check.equal(x, one(x)))
  end)

  it("batch_norm: uses the batch while training and running statistics otherwise", function()
    local one, x = nn.batch_norm{ decay = 0.8 }, bp.randn(50, 3) * 4 + 2
    local y = one(x)
    near(y:mean{ axes = 1 }, bp.zeros(3), 1e-5)
    local mean, centred = x:mean{ axes = 1 }, x - x:mean{ axes = 1 }
    local variance = centred:square():sum{ axes = 1 } / 49
    near(one.running_mean, mean * 0.2, 1e-5)
    near(one.running_var, variance * 0.2 + 0.8, 1e-5)
    one:eval()
    near(one(x), (x - one.running_mean) / (one.running_var + 1e-5):sqrt(), 1e-5)
  end)

  it("activation layers are what their names say", function()
    local x = bp.tensor{ -2, -0.5, 0, 0.5, 2 }
    near(nn.leaky_relu(0.2)(x), bp.where(x:gt(0), x, x * 0.2), 1e-7)
    near(nn.elu{ alpha = 2 }(x), bp.where(x:gt(0), x, (x:exp() - 1) * 2), 1e-6)
    near(nn.softmax()(x:reshape(1, 5)):sum(), bp.tensor(1), 1e-6)
    near(nn.log_softmax()(x:reshape(1, 5)):exp(), nn.softmax()(x:reshape(1, 5)), 1e-6)
    for _, name in ipairs{ "relu", "gelu", "silu", "sigmoid", "tanh", "softplus" } do
      near(nn.activation(name)(x), bp.ops[name](x), 0)
      near(nn[name]()(x), bp.ops[name](x), 0)
      near(nn.dense{ 1, 1, activation = name, kernel_init = "ones" }(x:reshape(5, 1)), bp.ops[name](x):reshape(5, 1), 1e-6)
    end
    near(nn.dense{ 1, 1, activation = function(t) return t * 3 end, kernel_init = 1 }(bp.ones(1, 1)), bp.full({ 1, 1 }, 3), 1e-7)
  end)

  it("rescaling makes numbers of bytes", function()
    local y = nn.rescaling{ 1 / 255, -0.5 }(bp.tensor({ 0, 255 }, { dtype = "u8" }))
    assert.equal("f32", y.dtype)
    near(y, bp.tensor{ -0.5, 0.5 }, 1e-6)
  end)

  it("l1 and l2 add up over layers", function()
    local model = nn.sequential{ input = { 3 }, nn.dense{ 4, l2 = 0.1 }, nn.dense{ 2, l1 = 0.01, l2 = 0.2 } }
    local a, b = model:layer(1).kernel, model:layer(2).kernel
    near(model:penalty(), a:square():sum() * 0.1 + b:square():sum() * 0.2 + b:abs():sum() * 0.01, 1e-6)
    assert.is_nil(nn.sequential{ input = { 3 }, nn.dense(2) }:penalty())
  end)

  it("lambda takes functions and registered names", function()
    nn.register("spec_double", function(x) return x * 2 end)
    near(nn.lambda "spec_double" (bp.ones(2)), bp.full({ 2 }, 2))
    fails("no function is registered as 'spec_duble' (did you mean 'spec_double'?)", nn.lambda, "spec_duble")
  end)
end)

describe("summary", function()
  it("has shapes and counts, without changing anything", function()
    bp.seed(3)
    local model = nn.sequential{ nn.conv2d{ 4, 3 }, nn.batch_norm(), nn.flatten(), nn.dense(10) }
    local text = model:summary{ 8, 8, 2 }
    for _, expected in ipairs{ "conv2d_1%s+conv2d%s+%[%?%]%[6%]%[6%]%[4%]%s+76\n", "batch_norm_1.-16\n", "flatten_1.-%[%?%]%[144%]%s+0\n",
      "dense_1.-%[%?%]%[10%]%s+1,450\n", "parameters: 1,534, trained: 1,534, running statistics: 8" } do
      assert.truthy(text:find(expected), text)
    end
    assert.is_true(model.training)
    near(model:layer(2).running_mean, bp.zeros(4))
    assert.equal(text, model:summary())
    fails("summary needs the shape of one input", function() nn.sequential{ nn.dense(1) }:summary() end)
  end)
end)

describe("nn.init", function()
  before_each(function() bp.seed(1) end)
  local function deviation(t) return (t:square():mean() - t:mean():square()):sqrt():item() end

  it("has the variance that the fans give", function()
    local shape = { 3, 3, 20, 40 } -- fan_in 180, fan_out 360
    local expected = { glorot = 2 / 540, he = 2 / 180, lecun = 1 / 180 }
    for name, variance in pairs(expected) do
      for _, kind in ipairs{ "uniform", "normal" } do
        local t = nn.init[name .. "_" .. kind](shape)
        assert.near(1, deviation(t) / math.sqrt(variance), 0.03, name .. "_" .. kind)
        assert.near(0, t:mean():item(), 3 * math.sqrt(variance / t:numel()))
        local limit = kind == "uniform" and math.sqrt(3 * variance) or 2 * math.sqrt(variance) / 0.87962566103423978
        assert.is_true(t:abs():max():item() <= limit * (1 + 1e-6))
        assert.is_true(t:abs():max():item() > limit * 0.99)
      end
    end
  end)

  it("orthogonal has orthonormal rows or columns", function()
    for _, shape in ipairs{ { 7, 4 }, { 4, 7 }, { 3, 3, 2, 5 }, { 6, 6 } } do
      local t = nn.init.orthogonal(shape, { gain = 2, dtype = "f64" }):reshape(-1, shape[#shape])
      local small = t:shape(1) < t:shape(2) and t:matmul(t:t()) or t:t():matmul(t)
      near(small, bp.eye(small:shape(1), { dtype = "f64" }) * 4, 1e-12)
    end
    fails("a vector cannot be orthogonal", nn.init.orthogonal, { 3 })
  end)

  it("draws the same for the same seed, and from its own stream", function()
    bp.seed(9)
    local a = nn.init.he_normal{ 4, 4 }
    bp.seed(9)
    bp.randn(100)
    assert.is_true(check.equal(a, nn.init.he_normal{ 4, 4 }))
  end)
end)
