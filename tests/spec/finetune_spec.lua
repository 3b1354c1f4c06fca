--- Fine-tuning: freezing by pattern, a new head, rates by group, weights by name, low-rank adapters.
local bp = require "bp"
local check = require "support.check"
local shell = require "support.shell"
local nn, optim, fails = bp.nn, bp.optim, check.fails

local function network(classes)
  return nn.sequential{ input = { 6, 6, 1 }, nn.conv2d{ 3, 3, activation = "relu" }, nn.flatten(),
    nn.dense{ 8, activation = "tanh" }, nn.dense(classes or 4) }
end

local function batch()
  return bp.randn(24, 6, 6, 1), bp.randint(1, 4, { 24 })
end

local function compile(model, optimizer)
  return model:compile{ optimizer = optimizer or optim.adam{ lr = 0.02 }, loss = "sparse_categorical_crossentropy" }
end

describe("fine-tuning", function()
  local folder
  setup(function() folder = shell.folder() end)
  teardown(function() shell.remove(folder) end)
  before_each(function() bp.seed(5) end)

  it("freeze by pattern keeps those weights, a thaw trains them again", function()
    local model, x, y = network(), batch()
    assert.equal(2, model:freeze "conv*")
    local before = model:get_weights()
    compile(model):fit{ x, y, verbose = 0 }
    assert.is_true(check.equal(before["conv2d_1.kernel"], model.conv2d_1 or model:layer(1).kernel))
    assert.is_false(check.equal(before["dense_1.kernel"], model:layer(3).kernel))
    model:unfreeze "conv*"
    model:fit{ x, y, verbose = 0 }
    assert.is_false(check.equal(before["conv2d_1.kernel"], model:layer(1).kernel))
    fails("no parameter is called 'convv*'", model.freeze, model, "convv*")
  end)

  it("replace puts another head on", function()
    local model, x = network(), batch()
    local body = model:layer("dense_1").kernel
    model:replace("dense_2", nn.dense(7))
    assert.same({ 24, 7 }, model(x):shape())
    assert.is_true(rawequal(body, model:layer("dense_1").kernel))
    assert.same({ 8, 7 }, model:layer("dense_2").kernel:shape())
    model:replace(-1, nn.dense{ 2, name = "head" })
    assert.same({ 24, 2 }, model(x):shape())
    assert.equal("head", model:layer(-1):own_name())
    fails("there is no layer 'dense_9'", model.replace, model, "dense_9", nn.dense(2))
    fails("replace takes a layer, not a number", model.replace, model, 1, 5)
  end)

  it("groups give parameters rates of their own", function()
    local model, x, y = network(), batch()
    local groups = model:groups{ { "conv*", lr = 0 }, { "*.bias", lr = 0.5 } }
    assert.same({ 2, 2, 2 }, { #groups[1].params, #groups[2].params, #groups[3].params })
    local before = model:get_weights()
    compile(model, optim.sgd(groups, { lr = 0.1 })):fit{ x, y, batch_size = 24, verbose = 0 }
    assert.is_true(check.equal(before["conv2d_1.kernel"], model:layer(1).kernel))
    assert.is_false(check.equal(before["dense_2.bias"], model:layer(-1).bias))
    local opt = model.compiled.optimizer
    assert.same({ 0, 0.5, 0.1 }, { opt:get_lr(1), opt:get_lr(2), opt:get_lr(3) })
    fails("called 'nothing*'", model.groups, model, { { "nothing*", lr = 1 } })
    fails("expected a list whose entries are { \"pattern\"", model.groups, model, { "conv*" })
    fails("groups: entry 2 is", model.groups, model, { { "conv*" }, { lr = 1 } })
  end)

  it("load_weights takes what fits and reports the rest", function()
    local path = folder .. "/a.safetensors"
    local first = network(4)
    assert(first:save(path))
    local same = network(4)
    assert.equal(6, #assert(same:load_weights(path)).loaded)
    for name, tensor in pairs(first:get_weights()) do assert.is_true(check.equal(tensor, same:get_weights()[name]), name) end

    local other = nn.sequential{ input = { 6, 6, 1 }, nn.conv2d{ 3, 3 }, nn.flatten(), nn.dense(8), nn.dense(9), nn.batch_norm() }
    local before = other:get_weights()
    local nothing, message, code = other:load_weights(path)
    assert.same({ nil, "eformat" }, { nothing, code })
    assert.match("does not fit the model; strict = false takes what fits", message)
    for name, tensor in pairs(before) do assert.is_true(check.equal(tensor, other:get_weights()[name]), name) end
    local report = assert(other:load_weights{ path, strict = false })
    assert.same({ "conv2d_1.kernel", "conv2d_1.bias", "dense_1.kernel", "dense_1.bias" }, report.loaded)
    assert.same({ "batch_norm_1.gamma", "batch_norm_1.beta", "batch_norm_1.running_mean", "batch_norm_1.running_var" }, report.missing)
    assert.same({ "dense_2.kernel [8][9] here, [8][4] there", "dense_2.bias [9] here, [4] there" }, report.mismatched)
    assert.match("^4 tensors loaded\n  missing in the file: batch_norm_1.gamma", tostring(report))
    assert.is_true(check.equal(first:layer(1).kernel, other:layer(1).kernel))

    report = assert(network():load_weights{ path, strict = false, pattern = "dense_1",
      rename = function(name) return (name:gsub("dense_2", "dense_7")) end })
    assert.same({ "dense_1.kernel", "dense_1.bias" }, report.loaded)
    assert.same({ "dense_7.bias", "dense_7.kernel" }, report.unexpected)
    assert.equal("eio", select(3, network():load_weights(folder .. "/none")))
    fails("option 'path' is missing", network().load_weights, network())
  end)
end)

describe("lora", function()
  local folder
  setup(function() folder = shell.folder() end)
  teardown(function() shell.remove(folder) end)
  before_each(function() bp.seed(6) end)

  it("changes nothing at first, trains the adapters alone, and merges into the same function", function()
    local model, x, y = network(), batch()
    local expected, frozen = model:predict(x), model:get_weights()
    assert.equal(2, model:lora{ rank = 2, alpha = 6 })
    assert.is_true(check.equal(expected, model:predict(x)))
    assert.equal(4, #model:parameters{ trainable = true })
    local history = compile(model):fit{ x, y, epochs = 8, verbose = 0 }
    assert.is_true(history.loss[8] < history.loss[1])
    for name, tensor in pairs(frozen) do assert.is_true(check.equal(tensor, model:get_weights()[name]), name) end
    local trained = model:predict(x)
    assert.is_false(check.equal(expected, trained))
    assert.equal(2, model:merge_lora())
    check.near(trained, model:predict(x), 1e-5)
    assert.equal(6, #model:parameters())
    assert.equal(0, model:merge_lora())
  end)

  it("is x W + b + alpha / rank x A B, with gradients to match", function()
    local dense = nn.dense{ 3, activation = "sigmoid" }
    dense:build_for(4)
    dense:lora{ rank = 2, alpha = 5 }
    dense.lora_b = bp.randn(2, 3)
    local x = bp.randn(5, 4)
    local w = dense.kernel + dense.lora_a:matmul(dense.lora_b) * 2.5
    check.near((x:matmul(w) + dense.bias):sigmoid(), dense(x), 1e-6)
    local function value(a) return ((x:matmul(dense.kernel) + dense.bias + x:matmul(a):matmul(dense.lora_b) * 2.5):sigmoid()):sum() end
    dense(x):sum():backward()
    local expected = bp.grad(function(p) return value(p.a) end){ a = dense.lora_a:detach() }
    check.near(expected.a, dense.lora_a.grad, 1e-5)
    assert.is_nil(dense.kernel.grad)
  end)

  it("survives saving, loading and resuming, and adapters go into a file of their own", function()
    local model, x, y = network(), batch()
    assert(model:save(folder .. "/base.safetensors"))
    model:lora{ rank = 3, pattern = "dense_1", train = "dense_2" }
    compile(model):fit{ x, y, epochs = 3, verbose = 0 }
    local expected = model:predict(x)
    assert(model:save(folder .. "/whole.safetensors"))
    local again = assert(bp.load(folder .. "/whole.safetensors"))
    assert.is_true(check.equal(expected, again:predict(x)))
    assert.equal(4, #again:parameters{ trainable = true })

    assert(model:save_lora(folder .. "/adapters.safetensors"))
    local tensors = assert(bp.load_tensors(folder .. "/adapters.safetensors"))
    local names = {}
    for name in pairs(tensors) do names[#names + 1] = name end
    table.sort(names)
    assert.same({ "dense_1.lora_a", "dense_1.lora_b", "dense_2.bias", "dense_2.kernel" }, names)
    local base = assert(bp.load(folder .. "/base.safetensors"))
    assert.equal(4, assert(base:load_lora(folder .. "/adapters.safetensors")))
    assert.is_true(check.equal(expected, base:predict(x)))
    assert.equal("eformat", select(3, base:load_lora(folder .. "/base.safetensors")))
    local small = nn.sequential{ input = 3, nn.dense(2) }
    assert.match("has no place in the model", select(2, small:load_lora(folder .. "/adapters.safetensors")))
  end)

  it("reaches the projections of attention", function()
    if not nn.multi_head_attention then return pending "no attention" end
    local model = nn.sequential{ input = { 5, 8 }, nn.multi_head_attention(2), nn.flatten(), nn.dense(2) }
    local x = bp.randn(4, 5, 8)
    local expected = model:predict(x)
    assert.equal(1, model:lora{ rank = 2, pattern = "*.query" })
    assert.is_true(check.equal(expected, model:predict(x)))
    model:merge_lora()
    assert.equal(4, model:lora{ rank = 2, pattern = "multi_head_attention_1" })
    compile(model):fit{ x, bp.randint(1, 2, { 4 }), epochs = 2, verbose = 0 }
    local trained = model:predict(x)
    assert(model:save(folder .. "/attention.safetensors"))
    assert.is_true(check.equal(trained, assert(bp.load(folder .. "/attention.safetensors")):predict(x)))
  end)

  it("says what is wrong", function()
    local model = network()
    fails("no dense layer is called 'conv*'", model.lora, model, { pattern = "conv*" })
    fails("the model has no adapters", model.save_lora, model, folder .. "/x")
    model:lora{ rank = 1, pattern = "dense_1" }
    fails("layer 'dense_1' has an adapter already", model.lora, model, { rank = 1 })
    fails("lora: option 'rank' is", model.lora, model, { rank = 0 })
  end)
end)
