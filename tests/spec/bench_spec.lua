-- The bench's arithmetic agrees with the nets that it measures, and its nets are what they are said to be.
package.path = "tests/bench/?.lua;" .. package.path
local bp = require "bp"
local nets = require "nets"
local workloads = require "workloads"

local INPUT = { mlp_784 = { 2, 784 }, cnn_mnist = { 2, 28, 28, 1 }, lenet5 = { 2, 28, 28, 1 }, resnet20 = { 2, 32, 32, 3 },
  mlp_tiny = { 2, 10 }, gru_sequence = { 2, 40, 64 },
  batch_norm = { 2, 16, 16, 16 }, attention = { 2, 64, 128 }, depthwise = { 2, 28, 28, 32 } }

describe("the bench", function()
  it("counts the parameters of every net right", function()
    for name, build in pairs(nets.build) do
      local w = workloads.by_name[name]
      if nets.maker(name, w.needs) then
        bp.scope(function()
          local net = build()
          local x = INPUT[name] and bp.rand(table.unpack(INPUT[name])) or bp.randint(1, 20000, { 2, 80 })
          bp.no_grad(function() net(x) end)
          local count = 0
          for _, p in ipairs(net:parameters()) do count = count + p:numel() end
          -- The embedding is left out where only its used rows move.
          if w.touched then count = count - 20000 * 128 end
          assert.equal(w.parameters, count, name)
        end)
      end
    end
  end)

  it("counts multiply-adds as the literature does", function()
    assert.equal(47104, workloads.by_name.mlp_tiny.flops)
    assert.equal(2 * 128 * (2 * 784 * 512 + 3 * 512 * 512 + 3 * 512 * 10), workloads.by_name.mlp_784.flops)
    -- 28x28 -> 26x26x32 -> 24x24x64 -> 12x12x64 -> 128 -> 10
    local first, rest = 26 * 26 * 9 * 32, 24 * 24 * 9 * 32 * 64 + 9216 * 128 + 1280
    assert.equal(2 * 128 * (2 * first + 3 * rest), workloads.by_name.cnn_mnist.flops)
    assert.equal(2 * (first + rest), workloads.by_name.infer_cnn.flops)
    -- A 3x3 window over 4x4 with zeros around has 10 of 12 pairs inside on each axis.
    assert.equal(10 * 10 * 2 * 5, workloads.layer.conv(4, 2, 5, 3, { same = true })[1])
    -- "same" with stride 2 over 5: windows at -1, 1, 3.
    assert.equal(7 * 7, workloads.layer.conv(5, 1, 1, 3, { same = true, stride = 2 })[1])
  end)

  it("sets a limit that rises with slower memory", function()
    local w = workloads.by_name.cnn_mnist
    local compute, traffic = workloads.limit(w, { p = 100, cache = 100, memory = 10 })
    assert.near(w.flops / 1e11, compute, 1e-12)
    assert.near(28 * w.parameters / 1e10, traffic, 1e-12)
  end)
end)
