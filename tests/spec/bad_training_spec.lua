--- Misuse of layers, losses, optimizers, fit and what goes with it: each raises an error that says where, what was found, and how to
-- mend it; and leaves everything working.
local bp = require "bp"
local bad = require "support.bad"
local nn, optim, loss, callbacks = bp.nn, bp.optim, bp.nn.loss, bp.callbacks

local x = bp.ones(4, 5)
local y = bp.tensor({ 1, 2, 3, 1 }, { dtype = "i64" })
local logits = bp.zeros(4, 3)

local function model()
  local net = nn.sequential{ nn.dense(8), nn.dense(3) }
  return net:compile{ optimizer = "adam", loss = "sparse_categorical_crossentropy" }
end

local function built()
  local net = model()
  net(x)
  return net
end

local function images(...) return bp.ones(1, ...) end

describe("a layer refuses", function()
  local whole = "expected a whole number at least 1"
  bad.cases{
    { "no units", function() nn.dense{} end, "dense: option 'units' is missing", whole, "number of outputs" },
    { "0 units", function() nn.dense(0) end, "dense: option 'units' is a number (0)", whole },
    { "-3 units", function() nn.dense(-3) end, "a number (-3)", whole },
    { "1.5 units", function() nn.dense(1.5) end, "a number (1.5)", whole },
    { "nan units", function() nn.dense(0 / 0) end, "nan", whole },
    { "inf units", function() nn.dense(math.huge) end, "inf", whole },
    { "units as text", function() nn.dense "32" end, 'a string ("32")', whole },
    { "2^40 units", function() nn.dense(2 ^ 40)(x) end, "dense: out of memory", "more bytes wanted", "smaller" },
    { "an unknown option", function() nn.dense{ unit = 3 } end, "unknown option 'unit'", "did you mean 'units'?" },
    { "an unknown activation", function() nn.dense{ 3, activation = "rleu" } end, "unknown activation 'rleu'", "did you mean 'relu'?" },
    { "a number as activation", function() nn.dense{ 3, activation = 3 } end, "option 'activation' is a number (3)",
      "expected a string or a function" },
    { "an option given twice", function() nn.dense{ 3, units = 4 } end, "option 'units' is given twice", "dense" },
    { "values too many", function() nn.dense{ 3, 4, 5 } end, "3 values without a name", "at most 1: units" },
    { "a negative penalty", function() nn.dense{ 3, l2 = -1 } end, "option 'l2' is a number (-1)", "expected a number at least 0" },
    { "an unknown initialiser", function() nn.dense{ 3, kernel_init = "he_norma" }(x) end, "unknown initialiser 'he_norma'",
      "did you mean 'he_normal'?" },
    { "an initialiser without result", function() nn.dense{ 3, kernel_init = function() end }(x) end, "the initialiser returned nil",
      "expected a tensor" },
    { "an initialiser of another shape", function() nn.dense{ 3, kernel_init = function() return bp.ones(2, 2) end }(x) end,
      "the initialiser returned [2][2]", "expected the shape it was given, [5][3]" },
    { "a table as input", function() nn.dense(3)({ 1, 2 }) end, "the input is a table", "expected a tensor" },
    { "nothing as input", function() nn.dense(3)() end, "the input is nil", "expected a tensor" },
    { "inputs of another width", function()
      local net = built()
      net(bp.ones(4, 6))
    end, "sequential/dense_1: linear: x is [4x6] and w is [5x8]", "the last size of x must be w's first, 5" },
    { "no kernel size", function() nn.conv2d(3) end, "option 'kernel_size' is missing", "a whole number or a list of two" },
    { "a window of 0", function() nn.conv2d{ 3, 0 } end, "option 'kernel_size' is a number (0)", "at least 1" },
    { "a window of three sizes", function() nn.conv2d{ 3, { 3, 3, 3 } } end, "option 'kernel_size' is a table", "a list of two" },
    { "strides of 0", function() nn.conv2d{ 3, 3, strides = 0 } end, "option 'strides' is a number (0)", "at least 1" },
    { "a dilation of 0", function() nn.conv2d{ 3, 3, dilation = { 1, 0 } } end, "option 'dilation' is", "at least 1" },
    { "an unknown algorithm", function() nn.conv2d{ 3, 3, algorithm = "vinograd" } end, "option 'algorithm' is \"vinograd\"",
      "did you mean 'winograd'" },
    { "Winograd with a large kernel", function() nn.conv2d{ 3, 5, algorithm = "winograd" }(images(9, 9, 1)) end,
      'algorithm "winograd" needs a 3x3 kernel', "the kernel is 5x5", 'leave the algorithm "auto"' },
    { "an unknown padding", function() nn.conv2d{ 3, 3, padding = "sane" } end, "option 'padding' is \"sane\" (did you mean 'same'?)",
      'one of "valid", "same"' },
    { "images without channels", function()
      local net = nn.sequential{ nn.rescaling(1), nn.conv2d{ 3, 3 } }
      net(bp.ones(2, 5, 5))
    end, "sequential/conv2d_1: conv2d 'conv2d_1': the input is [2][5][5]", "expected [batch][height][width][channels]", "x:unsqueeze(-1)" },
    { "a window larger than the image", function() nn.conv2d{ 3, 7 }(images(5, 5, 1)) end,
      "a window of 7x7 does not fit into images [1x5x5x1]",
      'use padding="same", a smaller kernel' },
    { "another number of channels", function()
      local conv = nn.conv2d{ 3, 3 }
      conv(images(5, 5, 1))
      conv(images(5, 5, 2))
    end, "images [1x5x5x2] have 2 channels and weights [3x3x1x3] take 1", "weights [kh][kw][in][out]" },
    { "a pool of 0", function() nn.max_pool2d(0) end, "option 'size' is a number (0)", "at least 1" },
    { "a pool larger than the image", function() nn.avg_pool2d(3)(images(2, 2, 1)) end,
      "a window of 3x3 does not fit into images [1x2x2x1]", 'use padding="same"' },
    { "pooling rows", function() nn.max_pool2d(2)(x) end, "'x' has shape [4x5]", "[n][h][w][channels] are expected" },
    { "pooling rows globally", function() nn.global_avg_pool2d()(x) end, "the input is [4][5]",
      "expected [batch][height][width][channels]" },
    { "dropping everything", function() nn.dropout(1) end, "option 'rate' is a number (1)", "expected a number at least 0 and below 1" },
    { "dropping less than nothing", function() nn.dropout(-0.1) end, "option 'rate' is a number (-0.1)", "at least 0" },
    { "dropping an unknown share", function() nn.dropout() end, "option 'rate' is missing", "probability of zero" },
    { "dropping nan", function() nn.dropout(0 / 0) end, "nan", "at least 0 and below 1" },
    { "normalising one row", function() nn.batch_norm()(bp.ones(1, 3)) end, "'x' has shape [1x3]: one value per channel has no variance",
      "train with at least two rows" },
    { "normalising a vector", function() nn.batch_norm()(bp.ones(3)) end, "the input is [3]", "expected [batch]...[channels]" },
    { "reshaping to another size", function() nn.reshape{ 3, 3 }(bp.ones(2, 8)) end, "[2x8], 16 elements", "do not fill shape [2x3x3]" },
    { "softmax along nothing", function() nn.softmax(3)(x) end, "dimension 3 of a tensor with 2", "1 to 2 or -2 to -1 is expected" },
    { "a lambda that is not registered", function() nn.lambda "nope" end, "no function is registered as 'nope'",
      'nn.register("nope", function(x) ... end) before this' },
    { "a lambda that is no function", function() nn.lambda(3) end, "option 'fn' is a number (3)", "expected a function or a string" },
    { "what a lambda returned", function() nn.sequential{ nn.lambda(function() return 3 end), nn.dense(2) }(x) end,
      "sequential/dense_1: dense: the input is a number (3)", "expected a tensor" },
  }
end)

describe("a model refuses", function()
  local dot = "with ':'"
  bad.cases{
    { "what is no layer", function() nn.sequential{ nn.dense(1), "relu" } end, 'layer 2 is a string ("relu")', "expected a layer" },
    { "a class instead of a layer", function() nn.sequential{ nn.dense(1), nn.relu } end, "layer 2 is a relu (class)", "call it" },
    { "an unknown option", function() nn.sequential{ inputs = { 3 }, nn.dense(1) } end, "unknown option 'inputs'",
      "did you mean 'input'?" },
    { "an input of 0", function() nn.sequential{ input = { 0 }, nn.dense(1) } end, "option 'input' is a table",
      "whole numbers at least 1" },
    { "asking for parameters before there are any", function() model():parameters() end, "layer 'dense_1' has no parameters yet",
      "call the model once, or model:build_for{shape of one input}" },
    { "a layer by a wrong name", function() built():layer "dense_9" end, "there is no layer 'dense_9'", "did you mean 'dense_1'?" },
    { "a layer by a wrong number", function() built():layer(9) end, "there is no layer 9", "there are 2" },
    { "freezing nothing", function() built():freeze "convv*" end, "no parameter is called 'convv*'", "named_parameters() show the names" },
    { "weights of another model", function() built():set_weights{ foo = x } end, "the model has no tensor 'foo'",
      "there are: dense_1.kernel" },
    { "fit called with '.'", function() model().fit{ x, y } end, "model:fit: called on a table", dot },
    { "predict called with '.'", function() model().predict(x) end, "model:predict: called on a tensor f32 [4][5]", dot },
    { "compile called with '.'", function() model().compile{ loss = "mse" } end, "model:compile: called on a table", dot },
    { "summary called with '.'", function() model().summary() end, "model:summary: called on nil", dot },
    { "parameters called with '.'", function() model().parameters() end, "model:parameters: called on nil", dot },
    { "a class of its own without forward", function() nn.module "BadNoForward"()(x) end, "BadNoForward: it has no forward",
      "write function BadNoForward:forward(x)" },
    { "a field called like a method", function() nn.module("BadField", function(self) self.train = 3 end)() end,
      "'train' is a method of every module",
      "choose another name" },
    { "a parameter of integers", function() nn.parameter(y) end, "the tensor is i64", "expected f32 or f64" },
    { "a lambda in a file", function()
      local net = nn.sequential{ nn.lambda(function(v) return v end) }
      net(x)
      net:save "/dev/null"
    end, "layer 'lambda_1': option 'fn' is a Lua function, which a file cannot hold", 'nn.register("name", fn)' },
    { "a path that is none", function() built():save(3) end, "save: the path is a number (3)", "expected a string" },
    { "predicting nothing", function() built():predict() end, "predict: option 'data' is missing", "expected a value" },
    { "predicting other widths", function() built():predict(bp.ones(3, 7)) end, "sequential/dense_1: linear: x is [3x7] and w is [5x8]",
      "the last size of x must be w's first, 5" },
  }
end)

describe("a loss refuses", function()
  bad.cases{
    { "label 0", function() loss.cross_entropy(logits, y - 1) end, "label 0 in row 1 lies outside 1..3", "labels count from 1, so add 1" },
    { "a label above the classes", function() loss.cross_entropy(logits, y + 1) end, "label 4 in row 3 lies outside 1..3",
      "one output per class" },
    { "a label above the classes in fit", function() model():fit{ x, y + 1, verbose = 0, shuffle = false } end,
      "label 4 in row 3 lies outside 1..3", "one output per class" },
    { "labels of fractions", function() loss.cross_entropy(logits, y:to "f32") end, "the labels are f32", "expected whole numbers 1..3" },
    { "labels for other rows", function() loss.cross_entropy(logits, bp.ones(3, { dtype = "i64" })) end,
      "the prediction is [4][3], the labels [3]",
      "expected labels [4]" },
    { "a target of another shape", function() loss.mse(logits, bp.ones(4, 2)) end, "the prediction is [4][3], the target [4][2]",
      "expected the same shape" },
    { "a target that would broadcast", function() loss.mae(bp.ones(4, 1), bp.ones(4, 4)) end,
      "the prediction is [4][1], the target [4][4]", "expected the same shape" },
    { "no target", function() loss.mse(logits) end, "the target is nil", "expected a tensor" },
    { "an unknown option", function() loss.mse{ reductoin = "sum" } end, "unknown option 'reductoin'", "did you mean 'reduction'?" },
    { "an unknown reduction", function() loss.mse{ reduction = "avg" } end, "option 'reduction' is \"avg\"", 'expected one of "mean"' },
    { "weights for other rows", function() loss.mse(logits, logits, { weights = { 1, 2 } }) end,
      "the sample weights are [2] for a batch of 4", "one number per sample" },
    { "class weights for other classes", function() loss.cross_entropy(logits, y, { class_weights = { 1, 2 } }) end,
      "the class weights are [2] for 3 classes",
      "expected one number per class" },
    { "smoothing everything away", function() loss.cross_entropy{ label_smoothing = 1 } end, "option 'label_smoothing' is a number (1)",
      "below 1" },
  }
end)

describe("an optimizer refuses", function()
  local function leaf() return bp.zeros(2, { requires_grad = true }) end
  bad.cases{
    { "no parameters", function() optim.adam({}, { lr = 1 }) end, "adam: no parameters", "expected the list that net:parameters() gives" },
    { "one tensor for a list", function() optim.adam(leaf(), { lr = 1 }) end, "the parameters are a tensor f32 [2]",
      "expected a list of tensors" },
    { "what is no tensor", function() optim.sgd{ leaf(), "x" } end, 'parameter 2 is a string ("x")', "expected a tensor" },
    { "a parameter twice", function()
      local w = leaf()
      optim.sgd{ w, w }
    end, "parameter 2 is the same tensor as an earlier one", "sgd" },
    { "the result of an op", function() optim.sgd{ leaf() * 2 } end, "parameters: number 1 is the result of an op", "not a leaf" },
    { "a negative rate", function() optim.adam{ lr = -1 } end, "option 'lr' is a number (-1)",
      "expected a number at least 0 or a function" },
    { "a rate of nan", function() optim.adam{ lr = 0 / 0 } end, "nan", "expected a number at least 0 or a function" },
    { "a rate as text", function() optim.adam{ lr = "0.1" } end, 'a string ("0.1")', "expected a number" },
    { "a beta of 1", function() optim.adam{ beta1 = 1 } end, "option 'beta1' is a number (1)", "below 1" },
    { "an unknown option", function() optim.sgd{ momentun = 0.5 } end, "unknown option 'momentun'", "did you mean 'momentum'?" },
    { "a rate function that gives text", function() optim.sgd({ leaf() }, { lr = function() return "x" end }) end,
      'the learning rate function returned a string ("x")', "expected a number at least 0" },
    { "setting a rate that follows a schedule", function() optim.sgd{ lr = function() return 1 end }:set_lr(1) end,
      "its learning rate follows a schedule",
      "make it with a number" },
    { "a step without parameters", function() optim.adam():step() end, "it has no parameters yet",
      "make it with net:parameters(), or give it to compile" },
    { "a step without backward", function() optim.adam{ leaf() }:step() end, "no parameter has a gradient",
      "call loss:backward() before step()" },
    { "step called with '.'", function() optim.adam{ leaf() }.step() end, "optimizer:step: called on nil", "with ':'" },
    { "a schedule without its length", function() optim.schedule.step{ 0.1 } end, "option 'every' is missing",
      "expected a whole number at least 1" },
    { "a schedule of no steps", function() optim.schedule.cosine{ 0.1, steps = 0 } end, "option 'steps' is a number (0)", "at least 1" },
    { "clipping to 0", function() bp.clip_grad_norm({ leaf() }, 0) end, "max_norm is a number (0)", "expected a number above 0" },
    { "clipping nothing", function() bp.clip_grad_norm(nil, 1) end, "the parameters are nil", "expected a list of tensors" },
  }
end)

describe("compile and fit refuse", function()
  bad.cases{
    { "no loss", function() model():compile{} end, "compile: option 'loss' is missing", "a name, nn.loss.NAME{...}, or a function" },
    { "an unknown loss", function() model():compile{ loss = "mes" } end, "unknown loss 'mes'", "did you mean 'mse'?" },
    { "an unknown optimizer", function() model():compile{ loss = "mse", optimizer = "adm" } end, "unknown optimizer 'adm'",
      "did you mean 'adam'?" },
    { "an unknown metric", function() model():compile{ loss = "mse", metrics = { "acuracy" } } end, "unknown metric 'acuracy'",
      "did you mean 'accuracy'?" },
    { "a loss that is not reduced", function() model():compile{ loss = loss.mse{ reduction = "none" } } end,
      'the loss has reduction "none"', '"mean" or "sum"' },
    { "a model that is not compiled", function() nn.sequential{ nn.dense(1) }:fit{ x, y } end, "fit: the model is not compiled",
      "first model:compile{" },
    { "no targets", function() model():fit{ x } end, "there are no targets", "expected a dataset with y, { x, y }" },
    { "fewer targets than samples", function() model():fit{ x, bp.ones(3, { dtype = "i64" }) } end, "4 samples", "3" },
    { "no samples", function() model():fit{ bp.zeros(0, 5), bp.zeros(0, { dtype = "i64" }), verbose = 0 } end, "there are no samples",
      "the first dimension of x is 0" },
    { "a path as data", function() model():fit{ "train.csv" } end, 'the data is a string ("train.csv")',
      "expected a dataset, { x, y } or tensors" },
    { "a batch of 0", function() model():fit{ x, y, batch_size = 0 } end, "option 'batch_size' is a number (0)", "at least 1" },
    { "half a batch", function() model():fit{ x, y, batch_size = 1.5 } end, "option 'batch_size' is a number (1.5)", "a whole number" },
    { "negative epochs", function() model():fit{ x, y, epochs = -1 } end, "option 'epochs' is a number (-1)", "at least 0" },
    { "an unknown option", function() model():fit{ x, y, epoch = 3 } end, "unknown option 'epoch'", "did you mean 'epochs'?" },
    { "a split of more than all", function() model():fit{ x, y, validation_split = 1.5 } end,
      "option 'validation_split' is a number (1.5)", "below 1" },
    { "an unknown verbosity", function() model():fit{ x, y, verbose = 3 } end, "option 'verbose' is a number (3)", "at most 2" },
    { "a callback that is a function alone", function() model():fit{ x, y, verbose = 0, callbacks = function() end } end,
      "option 'callbacks' is a function", "expected a list of tables with functions", "on_epoch_end = function" },
    { "a callback that is none", function() model():fit{ x, y, verbose = 0, callbacks = { 3 } } end, "callback 1 is a number (3)",
      "a table with functions on_..." },
    { "a callback that is never called", function() model():fit{ x, y, verbose = 0, callbacks = { { on_epoch_ended = print } } } end,
      "callback 1 has 'on_epoch_ended', which is never called", "did you mean 'on_epoch_end'?" },
    { "watching a validation that there is not",
      function() model():fit{ x, y, verbose = 0, callbacks = { callbacks.early_stopping{} } } end,
      "the logs have no 'val_loss'", "give it validation or validation_split" },
    { "watching a wrong name", function() model():fit{ x, y, verbose = 0, callbacks = { callbacks.early_stopping{ monitor = "los" } } } end,
      "the logs have no 'los'", "did you mean 'loss'?" },
    { "sample weights for other samples", function() model():fit{ x, y, sample_weight = bp.ones(3), verbose = 0 } end, "4 samples", "3" },
    { "class weights for other classes", function() model():fit{ x, y, class_weight = { 1, 2 }, verbose = 0 } end,
      "the class weights are [2] for 3 classes", "one number per class" },
    { "class weights without classes", function()
      local net = nn.sequential{ nn.dense(1) }:compile{ loss = "mse" }
      net:fit{ x, bp.ones(4, 1), class_weight = { 1, 2 }, verbose = 0 }
    end, "class_weight needs a loss over classes; this one is mse", "use sample_weight" },
    { "a model without weights", function() nn.sequential{ nn.relu() }:compile{ loss = "mse" }:fit{ x, x, verbose = 0 } end,
      "the model has no parameter to train", "give it a layer with weights" },
    { "a model that is frozen", function()
      local net = built()
      net:freeze()
      net:fit{ x, y, verbose = 0 }
    end, "all parameters are frozen", "unfreeze()" },
    { "a transform without result", function() model():fit{ x, y, verbose = 0, transform = function() end } end, "transform returned nil",
      "expected x, or x and y" },
    { "an error in a callback, passed on", function()
      model():fit{ x, y, verbose = 0, callbacks = { { on_epoch_end = function() error "of mine" end } } }
    end, "of mine", "bad_training_spec.lua" },
  }
end)

describe("augmentation and search refuse", function()
  local search, augment = bp.search, bp.augment
  bad.cases{
    { "an unknown option", function() augment.rotate{ degree = 3 } end, "augment.rotate: unknown option 'degree'",
      "did you mean 'degrees'?" },
    { "rows for images", function() augment.compose{ augment.rotate(3) }(x) end, "the images are [4][5]",
      "expected [batch][height][width][channels]" },
    { "what is no stage", function() augment.compose{ 3 } end, "stage 1 is a number (3)", "expected augment.rotate{...}" },
    { "a window larger than the image", function() augment.compose{ augment.crop(9) }(images(5, 5, 1)) end,
      "the window is [9][9], the images are [5][5]",
      "expected a smaller window" },
    { "a probability above 1", function() augment.flip{ p = 2 } end, "option 'p' is a number (2)", "at most 1" },
    { "an unknown direction", function() search.study{ direction = "up" } end, "option 'direction' is \"up\"", '"minimize", "maximize"' },
    { "an empty space", function() search.study():optimize{ space = {}, objective = print } end, "the space is empty",
      "expected a dimension for each name" },
    { "a number as a dimension", function() search.study():optimize{ space = { lr = 3 }, objective = print } end, "'lr' is a number (3)",
      "expected search.float, search.int or search.choice" },
    { "a search in which nothing works", function()
      search.study{ verbose = false }:optimize{ trials = 2, space = { a = search.int{ 1, 3 } }, objective = function() return "x" end }
    end, "none of 2 trials gave a value", "expected a number" },
  }
end)

describe("what is allowed but hardly meant", function()
  local warning = bp.warning
  local function warnings(fn)
    local before, list = warning.handler, {}
    warning.handler = function(message) list[#list + 1] = message end
    local ok, message = pcall(fn)
    warning.handler = before
    assert(ok, message)
    return list
  end

  it("is warned of: accuracy on a regression", function()
    local list = warnings(function() nn.sequential{ nn.dense(1) }:compile{ loss = "mse", metrics = { "accuracy" } } end)
    assert.equal(1, #list)
    assert.match("accuracy counts predictions that equal the target exactly", list[1])
    assert.match('"mae" or "r2"', list[1])
    bad.still_works()
  end)

  it("is warned of: probabilities where logits are expected", function()
    local list = warnings(function()
      nn.sequential{ nn.dense(3), nn.softmax() }:compile{ loss = loss.cross_entropy{ from_logits = true } }
    end)
    assert.equal(1, #list)
    assert.match("ends in softmax, but sparse_categorical_crossentropy expects logits", list[1])
  end)

  it("is silent where all is well", function()
    assert.same({}, warnings(function()
      model():compile{ loss = "sparse_categorical_crossentropy", metrics = { "accuracy" } }
      nn.sequential{ nn.dense(3), nn.softmax() }:compile{ loss = "sparse_categorical_crossentropy" }
    end))
  end)
end)
