--- Layers that normalise each sample by itself.
local bad = require "support.bad"
local bp = require "bp"
local vectors = require "support.vectors"
local near, leaf = vectors.near, vectors.leaf
local nn = bp.nn

local function parity(name)
  return function(case)
    local o = case.options
    for dtype, rtol in pairs{ f64 = 1e-9, f32 = 3e-4 } do
      local layer = nn[name]{ dims = o.dims, groups = o.groups, eps = o.eps }
      local x = leaf(case.x, dtype)
      layer:build_for(table.move(case.x:shape(), 2, case.x.ndim, 1, {}))
      layer.gamma = nn.parameter(case.gamma:to(dtype))
      if case.beta then layer.beta = nn.parameter(case.beta:to(dtype)) end
      local y = layer(x)
      near(case.y, y, dtype .. " y", rtol)
      y:backward{ grad = case.dy:to(dtype) }
      near(case.dx, x.grad, dtype .. " dx", rtol)
      near(case.dgamma, layer.gamma.grad, dtype .. " dgamma", rtol)
      if case.beta then near(case.dbeta, layer.beta.grad, dtype .. " dbeta", rtol) end
    end
  end
end

describe("normalisations agree with PyTorch and Keras:", function()
  vectors.compare("norms", { layer_norm = parity "layer_norm", rms_norm = parity "rms_norm", group_norm = parity "group_norm" }, {})
end)

local layers = {
  layer_norm = function() return nn.layer_norm() end,
  layer_norm_plain = function() return nn.layer_norm{ scale = false, center = false } end,
  rms_norm = function() return nn.rms_norm{ eps = 1e-3 } end,
  rms_norm_two = function() return nn.rms_norm(2) end,
  group_norm = function() return nn.group_norm(4) end,
  group_norm_plain = function() return nn.group_norm{ 2, center = false } end,
}

describe("a normalisation", function()
  for name, make in pairs(layers) do
    it(name .. ": captured is eager to the bit, with any number of threads", function()
      local results = {}
      for _, captured in ipairs{ false, true } do
        for _, threads in ipairs{ 1, 2, 3 } do
          bp.seed(7)
          bp.threads(threads)
          local layer, x = make(), bp.randn(70, 40, 36):requires_grad_(true)
          layer(x)
          for _, p in ipairs(layer:parameters()) do bp.no_grad(function() p:copy_(bp.randn(table.unpack(p:shape()))) end) end
          local function step()
            local y = layer(x)
            y:square():sum():backward()
            return y
          end
          if captured then
            step = bp.capture(step)
            step()
            layer:zero_grad()
            x:zero_grad()
          end
          results[#results + 1] = { step():detach():clone(), x.grad:clone() }
          for _, p in ipairs(layer:parameters()) do table.insert(results[#results], p.grad:clone()) end
        end
      end
      bp.threads(2)
      for i = 2, #results do
        for k, expected in ipairs(results[1]) do
          assert.is_true(expected:eq(results[i][k]):all():item(), ("run %d, tensor %d"):format(i, k))
        end
      end
    end)

    it(name .. ": a fused gradient is the one in simple ops", function()
      bp.seed(3)
      local layer, x = make(), bp.randn(5, 3, 8):to("f64"):requires_grad_(true)
      layer(x:to "f32")
      for key, p in layer:named_parameters() do layer[key] = nn.parameter(bp.randn(table.unpack(p:shape())):to "f64") end
      assert.is_true(bp.checkgrad(function(input) return layer(input):square():sum() end, x) < 1e-6)
    end)

    it(name .. ": survives saving", function()
      local path = os.tmpname()
      local model = nn.sequential{ make() }
      local x = bp.randn(2, 3, 8)
      model(x)
      for _, p in ipairs(model:parameters()) do bp.no_grad(function() p:copy_(bp.randn(table.unpack(p:shape()))) end) end
      assert(model:save(path))
      local loaded = assert(bp.load(path))
      os.remove(path)
      assert.is_true(model:predict(x):eq(loaded:predict(x)):all():item())
    end)
  end

  it("gives mean 0 and variance 1, or mean square 1", function()
    local x = bp.randn(6, 50) * 3 + 9
    local y = nn.layer_norm()(x)
    assert.near(0, y:mean{ axes = 2 }:abs():max():item(), 1e-5)
    assert.near(1, y:square():mean{ axes = 2 }:min():item(), 1e-4)
    assert.near(1, nn.rms_norm()(x):square():mean{ axes = 2 }:max():item(), 1e-4)
    local z = nn.group_norm{ 5 }(x:reshape(2, 3, 50)):reshape(2, 3, 5, 10)
    assert.near(0, z:mean{ axes = { 2, 4 } }:abs():max():item(), 1e-5)
  end)
end)

describe("normalisations refuse", function()
  bad.cases{
    { "an axis", function() nn.layer_norm{ axis = -1 } end, "layer_norm: unknown option 'axis'", "dims" },
    { "a shape", function() nn.layer_norm{ normalized_shape = { 3 } } end, "'normalized_shape'", "dims" },
    { "too many dims", function() nn.layer_norm(3)(bp.ones(2, 3)) end, "the input is [2][3]", "3 dimensions" },
    { "inputs with dims", function() nn.rms_norm{ 2, inputs = 4 } end, "'inputs' goes with dims = 1", "first call" },
    { "no groups", function() nn.group_norm() end, "group_norm: option 'groups' is missing", "must divide the channels" },
    { "groups that do not divide", function() nn.group_norm(3)(bp.ones(2, 4)) end, "its 4 channels", "cannot be cut into 3 equal groups" },
    { "a vector", function() nn.group_norm(1)(bp.ones(4)) end, "the input is [4]", "[batch]...[channels]" },
    { "another width", function()
      local layer = nn.layer_norm{ inputs = 4 }
      layer(bp.ones(2, 5))
    end, "layer_norm", "'scale'", "[4]", "[5]" },
    { "the op with a wrong scale", function() bp.ops.layer_norm(bp.ones(2, 3), bp.ones(2)) end, "layer_norm", "'scale'" },
    { "the op with dims beyond the input", function() bp.ops.rms_norm(bp.ones(3), { dims = 2 }) end, "rms_norm", "[3]", "2 dimensions" },
    { "the op with groups that do not divide", function() bp.ops.group_norm(bp.ones(2, 5), { groups = 2 }) end, "5 channels", "2 equal" },
  }
end)
