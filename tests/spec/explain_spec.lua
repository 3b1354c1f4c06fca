--- Understanding a net: attributions with known answers (linear nets), hooks on layers, gradients of intermediate values, pictures.
local bp = require "bp"
local bad = require "support.bad"
local check = require "support.check"
local files = require "support.files"
local nn, explain, ops = bp.nn, bp.explain, bp.ops
local near, equal = check.near, check.equal

-- y = x w + b: what each element adds to a score is exactly x_i w_i.
bp.seed(21)
local linear = nn.sequential{ nn.dense(3) }:build_for{ 5 }
local w = linear.layers[1].kernel:detach()
local x = bp.randn(4, 5)
local class = bp.tensor({ 1, 3, 2, 3 }, { dtype = "i64" })
local chosen = ops.take(w, class, { axis = 2 }):t() -- [4][5]

local function small_cnn()
  local net = nn.sequential{ nn.conv2d{ 3, 3, activation = "relu", padding = "same" }, nn.max_pool2d(2), nn.flatten(), nn.dense(2) }
  return net:build_for{ 6, 6, 1 }
end

describe("attributions of a linear net are exact:", function()
  it("saliency is the weights", function()
    near(explain.saliency{ linear, x, target = class, signed = true }, chosen, 1e-6)
    near(explain.saliency{ linear, x, target = 2 }, w[{ {}, 2 }]:abs():reshape(1, 5):expand{ 4, 5 }, 1e-6)
    local best = linear(x):argmax(-1)
    near(explain.saliency{ linear, x, signed = true }, ops.take(w, best, { axis = 2 }):t(), 1e-6)
  end)

  it("smooth_grad is the weights", function()
    near(explain.smooth_grad{ linear, x, target = class, samples = 3, signed = true }, chosen, 1e-5)
  end)

  it("integrated_gradients is (x - baseline) w, whatever the steps", function()
    local found, gap = explain.integrated_gradients{ linear, x, target = class, steps = 1 }
    near(found, x * chosen, 1e-5)
    near(gap, bp.zeros(4), 1e-5)
    local baseline = bp.randn(5)
    near((explain.integrated_gradients{ linear, x, target = class, baseline = baseline, steps = 3 }), (x - baseline) * chosen, 1e-5)
  end)

  it("occlusion is what the covered elements add", function()
    near(explain.occlusion{ linear, x, target = class, window = 1, stride = 1 }, x * chosen, 1e-5)
    near(explain.occlusion{ linear, x, target = class, window = 5, stride = 5 }, (x * chosen):sum(2):reshape(4, 1):expand{ 4, 5 }, 1e-5)
    -- windows {1,2} {2,3} {3,4} {4,5}: an element's drop is the mean over the windows that hold it
    local parts = x * chosen
    local overlapped = explain.occlusion{ linear, x, target = class, window = 2, stride = 1 }
    near(overlapped[{ {}, 1 }], parts[{ {}, 1 }] + parts[{ {}, 2 }], 1e-5)
    near(overlapped[{ {}, 3 }], parts[{ {}, 3 }] + (parts[{ {}, 2 }] + parts[{ {}, 4 }]) / 2, 1e-5)
  end)

  it("partial_dependence is a line of slope w", function()
    local r = explain.partial_dependence{ linear, x, column = 4, target = 2, values = { 0, 1, 3 } }
    local slope = w[{ 4, 2 }]:item()
    assert.is_true(math.abs(r.mean[2] - r.mean[1] - slope) < 1e-5 and math.abs(r.mean[3] - r.mean[1] - 3 * slope) < 1e-5)
    r = explain.partial_dependence{ linear, x, column = 1, points = 7 }
    assert.equal(7, #r.values)
    assert.is_true(r.values[1] >= x[{ {}, 1 }]:min():item() and r.values[7] <= x[{ {}, 1 }]:max():item() and r.values[1] < r.values[7])
  end)

  it("permutation_importance is twice the variance a column brings in, and nothing for one that is not used", function()
    bp.seed(5)
    local n = 4000
    local data = bp.randn(n, 3)
    local weights = bp.tensor{ { 2 }, { 0 }, { -1 } }
    local function model(input) return input:matmul(weights) end
    local function loss(prediction, target) return (prediction - target):square():mean() end
    local r = explain.permutation_importance{ model, data, model(data), loss = loss, repeats = 4, names = { "a", "b", "c" } }
    assert.equal(0, r.baseline)
    for c, variance in ipairs{ 4, 0, 1 } do
      assert.is_true(math.abs(r.mean[c] - 2 * variance) < 0.1 * variance + 1e-9, ("%d: %g"):format(c, r.mean[c]))
      assert.is_true(r.std[c] >= 0)
    end
    assert.same({ "a", "b", "c" }, r.names)
  end)
end)

describe("attributions of nets with kinks:", function()
  it("integrated_gradients add up to the difference of the scores", function()
    bp.seed(2)
    local net = nn.sequential{ nn.dense{ 16, activation = "tanh" }, nn.dense{ 8, activation = "relu" }, nn.dense(4) }:build_for{ 6 }
    local inputs, baseline = bp.randn(5, 6), bp.full({ 5, 6 }, 0.3)
    local found, gap = explain.integrated_gradients{ net, inputs, target = 2, baseline = baseline, steps = 400 }
    local difference = net(inputs)[{ {}, 2 }] - net(baseline)[{ {}, 2 }]
    near(found:sum(2), difference, 2e-3)
    near(gap, found:sum(2) - difference, 1e-5)
    local _, coarse = explain.integrated_gradients{ net, inputs, target = 2, baseline = baseline, steps = 3 }
    assert.is_true(gap:abs():max():item() < coarse:abs():max():item())
  end)

  it("grad_cam is the sum over channels that the paper gives", function()
    bp.seed(3)
    local net = small_cnn()
    local images = bp.rand(2, 6, 6, 1)
    local map = explain.grad_cam{ net, images, layer = net.layers[1], target = 1, upsample = false }
    local activation = net.layers[1](images)
    local leaf = activation:detach():requires_grad_()
    net.layers[4](net.layers[3](net.layers[2](leaf)))[{ {}, 1 }]:sum():backward()
    local weight = leaf.grad:mean{ axes = { 2, 3 }, keepdims = true }
    near(map, (activation * weight):sum(4):relu(), 1e-5)
    assert.same({ 2, 6, 6 }, map:shape())
    local name
    for path, one in net:modules() do
      if one == net.layers[2] then name = path end
    end
    local pooled = explain.grad_cam{ net, images, layer = name, target = 1 }
    assert.same({ 2, 6, 6 }, pooled:shape())
    local raw = explain.grad_cam{ net, images, layer = name, target = 1, upsample = false }
    assert.same({ 2, 3, 3 }, raw:shape())
    near(pooled[{ {}, 1, 1 }], raw[{ {}, 1, 1 }], 1e-6) -- corners stay
    near(pooled[{ {}, 2, 1 }], raw[{ {}, 1, 1 }] * 0.75 + raw[{ {}, 2, 1 }] * 0.25, 1e-6)
    net:freeze()
    near(explain.grad_cam{ net, images, layer = net.layers[1], target = 1, upsample = false }, map, 1e-6)
  end)

  it("a covered image loses its class where the class is", function()
    local function bright(images) -- score 1: the mean of the upper left quarter
      local s = images[{ {}, { 1, 4 }, { 1, 4 } }]:mean{ axes = { 2, 3, 4 } }
      return bp.stack({ s, -s }, { axis = 2 })
    end
    local map = explain.occlusion{ bright, bp.ones(1, 8, 8, 1), target = 1, window = 4, stride = 4 }
    assert.same({ 1, 8, 8 }, map:shape())
    near(map[{ 1, { 1, 4 }, { 1, 4 } }], bp.ones(4, 4), 1e-6)
    near(map[{ 1, { 5, 8 } }], bp.zeros(4, 8), 1e-6)
  end)

  it("leave the model as it was: mode, gradients, hooks; bytes are taken as numbers", function()
    local net = nn.sequential{ nn.rescaling(1 / 255), nn.flatten(), nn.dense(4), nn.dropout(0.5), nn.dense(2) }:build_for{ 4, 4, 1 }
    net:train()
    net.layers[4]:eval()
    local images = bp.randint(0, 255, { 3, 4, 4, 1 }, { dtype = "u8" })
    local first = explain.saliency{ net, images }
    assert.is_true(equal(first, explain.saliency{ net, images }))
    assert.is_true(net.training and not net.layers[4].training)
    for _, p in net:named_parameters() do assert.is_nil(p.grad) end
    bp.no_grad(function() assert.is_true(equal(first, explain.saliency{ net, images })) end)
  end)
end)

describe("hooks", function()
  local function net_of()
    bp.seed(9)
    return nn.sequential{ nn.dense{ 4, activation = "tanh" }, nn.dropout(0.5), nn.dense(2) }:build_for{ 3 }:eval()
  end
  local input = bp.randn(2, 3)

  it("see and replace what a layer gives", function()
    local net, seen = net_of(), {}
    local plain = net(input)
    local hook = net.layers[1]:on_forward(function(layer, inputs, output)
      seen = { layer, inputs[1], output }
      return output * 2
    end)
    local changed = net(input)
    assert.is_true(seen[1] == net.layers[1] and equal(seen[2], input))
    near(changed, (plain - net.layers[3].bias) * 2 + net.layers[3].bias, 1e-5)
    hook:remove()
    hook:remove()
    assert.is_true(equal(net(input), plain))
    do
      local second <close> = net.layers[1]:on_forward(function() seen = "again" end) -- luacheck: ignore 211
      net(input)
    end
    assert.equal("again", seen)
    seen = nil
    net(input)
    assert.is_nil(seen)
  end)

  it("see and replace what flows back, also through a layer that hands on its input", function()
    local net, seen = net_of(), nil
    net(input):sum():backward()
    local plain = net.layers[1].kernel.grad:clone()
    net:zero_grad()
    local hook = net.layers[2]:on_backward(function(layer, gradient)
      assert.equal(net.layers[2], layer)
      seen = gradient
      return gradient * 3
    end)
    net(input):sum():backward()
    near(seen, bp.ones(2, 2):matmul(net.layers[3].kernel:detach():t()), 1e-5)
    near(net.layers[1].kernel.grad, plain * 3, 1e-5)
    hook:remove()
    net:zero_grad()
    net(input):sum():backward()
    near(net.layers[1].kernel.grad, plain, 1e-6)
    bp.no_grad(function() net(input) end)
  end)

  it("are part of a captured step, and change it when they come and go", function()
    local net = net_of()
    local total, runs = bp.zeros(1), 0
    local function step(a)
      net:zero_grad()
      local y = net(a)
      y:sum():backward()
      return y, net.layers[1].kernel.grad + 0
    end
    local captured = bp.capture(step)
    local function both(a)
      local y, g = step(a)
      local z, h = captured(a)
      assert.is_true(equal(y, z) and equal(g, h))
      return y, g
    end
    for _ = 1, 3 do both(bp.randn(2, 3)) end
    local plain, slope = both(input)
    local forward = net.layers[1]:on_forward(function(_, _, y)
      runs = runs + 1
      bp.no_grad(function() total:add_(y:detach():sum()) end)
      return y * 2
    end)
    local backward = net.layers[3]:on_backward(function(_, g) return g * 5 end)
    local changed, steeper = both(input)
    assert.is_false(equal(plain, changed))
    near(steeper, slope * 10, 1e-5)
    local before, calls = total:item(), runs
    captured(input)
    captured(input)
    assert.equal(calls, runs) -- its Lua runs at the recording
    assert.is_true(math.abs(total:item() - before) > 1e-6) -- its tensors at every replay
    forward:remove()
    backward:remove()
    local again, gradient = both(input)
    assert.is_true(equal(again, plain) and equal(gradient, slope))
  end)

  it("work inside fit", function()
    local net = nn.sequential{ nn.dense{ 4, activation = "relu" }, nn.dense(1) }:build_for{ 3 }
    net:compile{ optimizer = "sgd", loss = "mse" }
    local largest = bp.zeros(1)
    local hook = net.layers[1]:on_forward(function(_, _, y)
      bp.no_grad(function() largest:copy_(ops.maximum(largest, y:detach():max())) end)
    end)
    net:fit{ bp.randn(64, 3), bp.randn(64, 1), epochs = 2, verbose = 0 }
    assert.is_true(largest:item() > 0)
    hook:remove()
    largest:fill_(0)
    net:fit{ bp.randn(64, 3), bp.randn(64, 1), epochs = 1, verbose = 0 }
    assert.equal(0, largest:item())
  end)

  it("on a tensor come in order, once each, with the whole gradient; retain_grad keeps it", function()
    local a = bp.tensor({ 1, 2 }, { requires_grad = true })
    local h = a * 3
    local order = {}
    h:on_grad(function(g)
      order[#order + 1] = g:totable()
      return g * 2
    end)
    h:on_grad(function(g) order[#order + 1] = g:totable() end)
    h:retain_grad();
    (h:square() + h):sum():backward()
    assert.same({ { 7, 13 }, { 14, 26 } }, order)
    near(h.grad, bp.tensor{ 7, 13 })
    near(a.grad, bp.tensor{ 42, 78 })
    -- a second order through a replaced gradient
    local b = bp.tensor({ 2 }, { requires_grad = true })
    local slope = bp.grad(function(p)
      local q = p:square()
      q:on_grad(function(g) return g * 10 end)
      return q:sum()
    end)
    near(slope(b), bp.tensor{ 40 })
  end)

  it("leave nothing behind", function()
    local core = require "support.core"
    local before = core.alive()
    do
      local net = net_of()
      net.layers[3]:on_backward(function() end)
      for _ = 1, 3 do net(input):sum():backward() end
      net(input) -- never walked back
    end
    assert.equal(before, core.alive())
  end)
end)

describe("retain_grad", function()
  it("keeps the deltas of a hidden layer", function()
    local net = nn.sequential{ nn.dense{ 3, activation = "sigmoid" }, nn.dense(1) }:build_for{ 2 }
    local a = bp.randn(4, 2)
    local hidden = net.layers[1](a):retain_grad()
    net.layers[2](hidden):sum():backward()
    near(hidden.grad, bp.ones(4, 1):matmul(net.layers[2].kernel:detach():t()), 1e-6)
  end)
end)

describe("pictures", function()
  it("are PNG and SVG", function()
    local folder <close> = files.folder()
    local map, images = bp.randn(3, 5, 7), bp.rand(3, 5, 7, 1)
    assert(explain.heatmap{ folder:at "a.png", map, images = images, zoom = 2 })
    local page = assert(require("bp.core").image_load(folder:at "a.png"))
    assert.same({ 10, 42, 3 }, page:shape())
    assert(explain.heatmap{ folder:at "a.svg", map, titles = { "boot <1>", "b", "c" } })
    local text = io.open(folder:at "a.svg"):read "a"
    assert.truthy(text:find "^<svg " and text:find("boot &lt;1&gt;", 1, true) and text:find("data:image/png;base64,iVBORw0KGgo", 1, true))
    assert.is_nil(io.open(folder:at "a.svg.png"))
    -- full colour where the map is largest, the image where it is 0
    local one = bp.zeros(1, 1, 2)
    one[{ 1, 1, 1 }] = 4
    assert(explain.heatmap{ folder:at "b.png", one, images = bp.full({ 1, 1, 2, 3 }, 51, { dtype = "u8" }), opacity = 1, zoom = 1 })
    assert.same({ { { 213, 94, 0 }, { 51, 51, 51 } } }, require("bp.core").image_load(folder:at "b.png"):totable())
    assert(explain.chart{ folder:at "c.svg", { mean = { 0.5, -0.1 }, std = { 0.1, 0.05 }, names = { "a", "b&b" } } })
    text = io.open(folder:at "c.svg"):read "a"
    assert.truthy(text:find("b&amp;b", 1, true) and select(2, text:gsub('class="f[12]"', "")) == 2)
    assert(explain.chart{ folder:at "d.svg", { values = { 0, 1, 2 }, mean = { 3, 4, 5 }, column = 2 }, title = "price" })
    assert.truthy(io.open(folder:at "d.svg"):read("a"):find("price", 1, true))
    local ok, message, code = explain.heatmap{ folder:at "no/such/a.png", map }
    assert.is_nil(ok)
    assert.equal("eio", code, message)
  end)
end)

describe("bp.explain refuses", function()
  local net = small_cnn()
  local function loss(p, y) return (p - y):mean() end
  bad.cases{
    { "a name that is not there", function() return explain.salience end, "bp.explain has no 'salience'", "did you mean 'saliency'?" },
    { "no model", function() explain.saliency{ nil, x } end, "explain.saliency", "option 'model' is missing" },
    { "a model that is a number", function() explain.saliency{ 3, x } end, "'model' is a number (3)", "a module or a function" },
    { "a class that is not there", function() explain.saliency{ linear, x, target = 4 } end, "target 4", "classes 1 to 3" },
    { "classes for other samples", function() explain.saliency{ linear, x, target = { 1, 2 } } end,
      "'target' is [2]", "each of 4 samples" },
    { "a target that is no score", function() explain.saliency{ linear, x, target = function(y) return y end } end,
      "[4][3]", "one number" },
    { "a class where there is one number", function()
      explain.saliency{ function(a) return a:sum(2) end, x, target = 2 }
    end, "gives one number", "no class" },
    { "a model that gives no tensor", function() explain.saliency{ function() return 1 end, x } end, "gives a number (1)", "a tensor" },
    { "a baseline of another shape", function() explain.integrated_gradients{ linear, x, baseline = bp.zeros(3) } end, "'baseline' is [3]",
      "[4][5]" },
    { "a stride above the window", function() explain.occlusion{ linear, x, window = 2, stride = 3 } end, "stride", "never be covered" },
    { "an unknown layer", function() explain.grad_cam{ net, bp.zeros(1, 6, 6, 1), layer = "conv2d_9" } end, "no layer 'conv2d_9'",
      "did you mean" },
    { "a layer without maps", function() explain.grad_cam{ net, bp.zeros(1, 6, 6, 1), layer = net.layers[4] } end, "gives [1][2]",
      "choose a convolution" },
    { "grad_cam of a function", function() explain.grad_cam{ print, x, layer = "a" } end, "'model' is a function", "a module" },
    { "a column too many", function() explain.partial_dependence{ linear, x, column = 6 } end, "column 6", "5 columns" },
    { "images for columns", function() explain.partial_dependence{ linear, bp.zeros(1, 2, 2, 1), column = 1 } end, "[1][2][2][1]",
      "[samples][columns]" },
    { "no loss", function() explain.permutation_importance{ linear, x, bp.zeros(4, 3) } end, "not compiled", "pass loss = function" },
    { "targets for other samples", function() explain.permutation_importance{ linear, x, bp.zeros(3, 3), loss = loss } end,
      "4 samples and y 3",
      "explain.permutation_importance" },
    { "another kind of picture", function() explain.heatmap{ "a.gif", bp.zeros(1, 2, 2) } end, '"a.gif"', ".png or .svg" },
    { "images of another size", function() explain.heatmap{ "a.png", bp.zeros(1, 2, 2), images = bp.zeros(1, 3, 2, 1) } end, "[1][3][2][1]",
      "[1][2][2] with 1 or 3 channels" },
    { "a map of one number", function() explain.heatmap{ "a.png", bp.zeros(1) } end, "the map is [1]", "[n][height][width]" },
    { "a chart of nothing", function() explain.chart{ "a.svg", {} } end, "no list 'mean'", "partial_dependence" },
    { "a hook that is no function", function() linear.layers[1]:on_forward(3) end, "dense:on_forward: the value is a number (3)",
      "function (layer, inputs, output)" },
    { "a hook on a leaf", function() bp.tensor({ 1 }, { requires_grad = true }):on_grad(print) end, "no result of an op", ".grad" },
    { "a hook without a gradient", function() bp.tensor(1):on_grad(print) end, "on_grad", "no gradient flows" },
    { "a gradient of another shape", function()
      local y = bp.tensor({ 1, 2 }, { requires_grad = true }) * 2
      y:on_grad(function() return bp.zeros(3) end)
      y:sum():backward()
    end, "on_grad", "f32 [3]", "f32 [2] is expected" },
    { "a gradient that is text", function()
      local y = bp.tensor({ 1, 2 }, { requires_grad = true }) * 2
      y:on_grad(function() return "no" end)
      y:sum():backward()
    end, "the function returned 'no'", "a gradient or nothing is expected" },
    { "a hook that fails", function()
      local y = bp.tensor({ 1, 2 }, { requires_grad = true }) * 2
      y:on_grad(function() error "broken" end)
      y:sum():backward()
    end, "a function given to on_grad or on_backward failed", "broken" },
    { "backward inside a hook", function()
      local y, z = bp.tensor({ 1, 2 }, { requires_grad = true }) * 2, bp.tensor({ 1 }, { requires_grad = true }) * 2
      y:on_grad(function() z:sum():backward() end)
      y:sum():backward()
    end, "another backward is running", "afterwards" },
  }
end)
