--- conv2d: the choice of the algorithm, and that neither threads, nor the cut of few images, nor capturing shows in the bits.
local bp = require "bp"
local nn, ops = bp.nn, bp.ops

local function same(a, b) return a:eq(b):all():item() end
local function off(a, b) return ((a:to "f64" - b):abs():max() / b:abs():max()):item() end

--- y, dx, dw, db of one convolution.
local function all_of(x, w, b, o)
  x, w, b = x:detach():requires_grad_(), w:detach():requires_grad_(), b:detach():requires_grad_()
  local y = ops.conv2d(x, w, b, o)
  local weight = bp.linspace(-1, 1, y:numel()):reshape(table.unpack(y:shape())):to(y.dtype)
  ;(y * weight):sum():backward()
  return { y:detach(), x.grad, w.grad, b.grad }
end

local SHAPES = { -- x, kernel, options: large enough that few images are cut
  { { 1, 26, 26, 32 }, { 3, 3, 32, 64 } },
  { { 2, 26, 26, 32 }, { 3, 3, 32, 64 }, { algorithm = "direct" } },
  { { 3, 32, 32, 8 }, { 5, 5, 8, 16 }, { padding = "same" } },
  { { 2, 40, 40, 6 }, { 5, 5, 6, 16 }, { padding = "same" } },
  { { 1, 50, 44, 3 }, { 7, 5, 3, 16 }, { stride = { 2, 3 }, dilation = { 1, 2 } } },
  { { 1, 41, 37, 16 }, { 3, 3, 16, 24 }, { stride = 2, padding = "same" } },
  { { 1, 40, 40, 9 }, { 3, 2, 9, 33 }, { dilation = { 2, 3 }, stride = { 3, 1 } } },
  { { 5, 33, 30, 12 }, { 1, 1, 12, 70 }, { stride = { 1, 2 } } },
  { { 17, 14, 14, 16 }, { 3, 3, 16, 20 }, { padding = "same" } },
}

describe("conv2d", function()
  it("agrees with the plain sum in f64 whatever the cut, with the same bits for any number of threads", function()
    bp.seed(3)
    local before = bp.threads()
    for i, case in ipairs(SHAPES) do
      local x, w = bp.randn(table.unpack(case[1])), bp.randn(table.unpack(case[2]))
      local b = bp.randn(case[2][4])
      local exact = all_of(x:to "f64", w:to "f64", b:to "f64", case[3])
      local first
      for _, threads in ipairs{ 1, 2, 5 } do
        bp.threads(threads)
        local found = all_of(x, w, b, case[3])
        first = first or found
        for k, name in ipairs{ "y", "dx", "dw", "db" } do
          local error = k < 4 and off(found[k], exact[k]) or 0 -- db is a plain sum, of numbers that cancel here
          assert.is_true(error < 2e-5, ("%s of shape %d: off by %g"):format(name, i, error))
          assert.is_true(same(first[k], found[k]), ("%s of shape %d with %d threads: other bits"):format(name, i, threads))
        end
      end
      bp.threads(before)
    end
  end)

  it("gives an image the same result alone and among others", function()
    bp.seed(4)
    for _, case in ipairs(SHAPES) do
      local n = case[1][1]
      local x, w = bp.randn(19, table.unpack(case[1], 2)), bp.randn(table.unpack(case[2]))
      local y = ops.conv2d(x, w, nil, case[3])
      for _, i in ipairs{ 1, n, 19 } do
        assert.is_true(same(y[{ { i, i } }], ops.conv2d(x[{ { i, i } }]:clone(), w, nil, case[3])))
      end
    end
  end)

  it("takes Winograd's algorithm where asked, in gradients too, and says why where it cannot", function()
    bp.seed(5)
    local x, w, b = bp.randn(2, 9, 11, 5), bp.randn(3, 3, 5, 7), bp.randn(7)
    local exact = all_of(x:to "f64", w:to "f64", b:to "f64", { algorithm = "direct" })
    local direct, winograd = all_of(x, w, b, { algorithm = "direct" }), all_of(x, w, b, { algorithm = "winograd" })
    for k = 1, 3 do
      assert.is_true(off(winograd[k], exact[k]) < 1e-5 and off(direct[k], exact[k]) < 1e-5)
      assert.is_false(same(winograd[k], direct[k]), "the two round differently")
    end
    local f64 = all_of(x:to "f64", w:to "f64", b:to "f64")
    for k = 1, 3 do assert.is_true(same(f64[k], exact[k]), "auto is direct in f64") end
    for _, o in ipairs{ { stride = 2 }, { dilation = { 1, 2 } } } do
      o.algorithm = "winograd"
      assert.error_matches(function() ops.conv2d(x, w, nil, o) end, "needs a 3x3 kernel with stride 1 and dilation 1; .* is 3x3, stride")
    end
    assert.error_matches(function() ops.conv2d(x, bp.randn(5, 5, 5, 2), nil, { algorithm = "winograd" }) end, "here the kernel is 5x5")
    assert.error_matches(function() ops.conv2d(x, w, nil, { algorithm = "vinograd" }) end, "winograd")
    assert.error_matches(function() nn.conv2d{ 4, 3, algorithm = "fft" } end, "algorithm")
  end)

  it("trains the same captured and eager, with either algorithm", function()
    for _, algorithm in ipairs{ "auto", "direct", "winograd" } do
      local function train(capture)
        bp.seed(6)
        local net = nn.sequential{ nn.conv2d{ 16, 3, activation = "relu", algorithm = algorithm, padding = "same" },
          nn.conv2d{ 16, 3, activation = "relu", algorithm = algorithm }, nn.max_pool2d(2), nn.flatten(), nn.dense(3) }
        local x, y = bp.randn(6, 16, 16, 8), bp.randint(1, 3, { 6 })
        bp.no_grad(function() net(x) end)
        local opt = bp.optim.adam(net:parameters(), { lr = 1e-2 })
        local function step(a, b)
          local loss = nn.loss.cross_entropy(net(a), b)
          opt:zero_grad()
          loss:backward()
          opt:step()
          return loss
        end
        if capture then step = bp.capture(step) end
        local losses = {}
        for i = 1, 5 do losses[i] = step(x, y):item() end
        return losses
      end
      local eager = train(false)
      assert.same(eager, train(true))
      assert.is_true(eager[5] < eager[1])
    end
  end)
end)
