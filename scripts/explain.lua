--- What a net looks at: bplua scripts/explain.lua [--quick]
-- Trains a small convolutional net on Fashion-MNIST, then draws where five explanations see the reasons for its answers: explain-NAME.png
-- for each, and explain.svg with names below. Ends with a table: which of four numbers about a picture a small net goes by.
local bp = require "bp"
local nn, optim, data, explain = bp.nn, bp.optim, bp.data, bp.explain
local quick = arg[1] == "--quick"
bp.seed(3)

local train, test = assert(data.fashion_mnist())
if quick then train, test = train:subset(bp.arange(2000)), test:subset(bp.arange(500)) end

local last_conv = nn.conv2d{ 32, 3, activation = "relu", padding = "same" }
local model = nn.sequential{
  nn.rescaling(1 / 255),
  nn.conv2d{ 16, 3, activation = "relu", padding = "same" }, nn.max_pool2d(2),
  last_conv, nn.max_pool2d(2),
  nn.flatten(), nn.dense{ 64, activation = "relu" }, nn.dense(10),
}
model:compile{ optimizer = optim.adam{ lr = 2e-3 }, loss = "sparse_categorical_crossentropy", metrics = { "accuracy" } }
model:fit{ train, epochs = quick and 1 or 3, batch_size = 64, verbose = 2 }
print("test:", model:evaluate(test))

local few = { 1, 2, 3, 4, 5, 6 }
local images = test:subset(few).x
local answers = model:predict(images):argmax(-1)
local titles = {}
for i = 1, #few do titles[i] = test.classes[answers[i]:item()] end

local smooth = explain.smooth_grad{ model, images, samples = 20 }
local integrated, gap = explain.integrated_gradients{ model, images, steps = 64 }
local maps = {
  saliency = explain.saliency{ model, images }, smooth_grad = smooth, integrated_gradients = integrated,
  occlusion = explain.occlusion{ model, images, window = 5, stride = 2 }, grad_cam = explain.grad_cam{ model, images, layer = last_conv },
}
for name, map in pairs(maps) do assert(explain.heatmap{ ("explain-%s.png"):format(name), map, images = images }) end
assert(explain.heatmap{ "explain.svg", maps.grad_cam, images = images, titles = titles })
print(("integrated gradients: the attributions add up to the difference of the scores within %.3f"):format(gap:abs():max():item()))

-- How much the answer suffers when the pixels called most important are blacked out, beside as many random ones.
local function without(map, share)
  local flat, kept = map:reshape(#few, -1), images:to "f32":reshape(#few, -1)
  local count = math.floor(flat:size(2) * share)
  local threshold = flat:sort{ axis = 2 }[{ {}, -count }]:reshape(#few, 1)
  return bp.where(flat:ge(threshold), bp.zeros(1), kept):reshape(#few, 28, 28, 1)
end
local function confidence(x) return model:predict(x):softmax(2):max{ axes = { 2 } }:mean():item() end
print(("confidence: %.2f; without the tenth that smooth_grad points at: %.2f; without a random tenth: %.2f"):format(confidence(images),
  confidence(without(smooth, 0.1)), confidence(without(bp.rand(#few, 28, 28, 1), 0.1))))

-- A table: mean brightness, width, height and a column of noise; is it footwear (classes 6, 8, 10)?
local function table_of(set, count)
  local x = set:subset(bp.arange(count)).x:to "f32":reshape(count, 28, 28) / 255
  local width = x:max{ axes = { 2 } }:gt(0.2):to "f32":mean{ axes = { 2 } }
  local height = x:max{ axes = { 3 } }:gt(0.2):to "f32":mean{ axes = { 2 } }
  local labels = set:subset(bp.arange(count)).y
  local shoe = labels:eq(6):logical_or(labels:eq(8)):logical_or(labels:eq(10)):to "f32"
  return bp.stack({ x:mean{ axes = { 2, 3 } }, width, height, bp.rand(count) }, { axis = 2 }), shoe:reshape(count, 1)
end
local x, y = table_of(train, 2000)
local names = { "brightness", "width", "height", "noise" }
local small = nn.sequential{ nn.dense{ 16, activation = "relu" }, nn.dense(1) }
small:compile{ optimizer = optim.adam{ lr = 1e-2 }, loss = "binary_crossentropy" }
small:fit{ x, y, epochs = 20, verbose = 0 }
local importance = explain.permutation_importance{ small, x, y, names = names }
for i, name in ipairs(names) do print(("%-10s %.3f +- %.3f"):format(name, importance.mean[i], importance.std[i])) end
assert(explain.chart{ "importance.svg", importance, title = "rise of the loss when shuffled: is it footwear?" })
assert(explain.chart{ "dependence.svg", explain.partial_dependence{ small, x, column = 3 }, title = "score of footwear by height" })
