--- Saving and loading models: the same bits, every layer, shared layers, modules of one's own, and files that are not what they should be.
local bp = require "bp"
local check = require "support.check"
local shell = require "support.shell"
local nn, optim, fails = bp.nn, bp.optim, check.fails

describe("save and load", function()
  local folder, path
  setup(function()
    folder = shell.folder()
    path = folder .. "/model.safetensors"
  end)
  teardown(function() shell.remove(folder) end)

  local function round_trip(model, x)
    local expected = model:predict(x)
    assert(model:save(path))
    local loaded = assert(bp.load(path))
    assert.is_true(check.equal(expected, loaded:predict(x)))
    local names = {}
    for name in model:named_parameters() do names[#names + 1] = name end
    for name in loaded:named_parameters() do assert.equal(table.remove(names, 1), name) end
    assert.equal(0, #names)
    assert.is_false(loaded.training)
    return loaded
  end

  it("keeps every layer, option and bit", function()
    bp.seed(1)
    local model = nn.sequential{ name = "all",
      nn.rescaling{ 1 / 255, -0.5 }, nn.conv2d{ 4, { 3, 2 }, 2, "same", activation = "gelu", l2 = 1e-3 },
        nn.batch_norm{ decay = 0.7, eps = 1e-3 },
      nn.leaky_relu(0.3), nn.max_pool2d{ 2, padding = "same" }, nn.conv2d{ 3, 2, dilation = 2, padding = "same", use_bias = false },
      nn.avg_pool2d{ 2, strides = 1 }, nn.dropout(0.3), nn.reshape{ -1, 3 }, nn.flatten(), nn.elu{ alpha = 0.5 },
        nn.gelu{ approximate = true },
      nn.dense{ 6, activation = "silu", name = "head", kernel_init = "orthogonal" }, nn.softplus(), nn.tanh(), nn.sigmoid(), nn.silu(),
        nn.relu(),
      nn.activation "tanh", nn.softmax(), nn.log_softmax(), nn.sequential{ nn.dense(2) },
    }
    local x = bp.randint(0, 255, { 3, 12, 10, 2 }, { dtype = "u8" })
    model:compile{ optimizer = optim.sgd(0.01), loss = "mse" }
    model:fit{ x, bp.randn(3, 2), epochs = 3, verbose = 0 }
    local loaded = round_trip(model, x)
    assert.equal(model:summary(), loaded:summary())
    assert.equal("silu", loaded:layer("head").options.activation)
    assert.equal(0.7, loaded:layer("batch_norm_1").options.decay)
  end)

  it("keeps pools to one pixel and shared layers shared", function()
    bp.seed(2)
    local shared = nn.dense(4)
    local model = nn.sequential{ nn.conv2d{ 4, 3 }, nn.global_avg_pool2d(), shared, nn.relu(), nn.sequential{ shared, nn.relu() }, shared }
    local x = bp.randn(2, 5, 5, 1)
    local loaded = round_trip(model, x)
    assert.equal(loaded:layer(3), loaded:layer(6))
    assert.equal(loaded:layer(3), loaded:layer(5):layer(1))
    assert.equal(4, #loaded:parameters())
    round_trip(nn.sequential{ nn.conv2d{ 4, 3 }, nn.global_max_pool2d{ keepdims = true } }, x)
  end)

  it("keeps modules of one's own, with what they were called with", function()
    local Block = nn.module("SpecSaveBlock", function(self, units, inner)
      self.inner, self.out, self.gain = inner, nn.dense(units), nn.parameter{ 1, 2 }
      self:buffer("seen", bp.zeros(3))
    end)
    function Block:forward(x) return self.out(self.inner(x)) * self.gain end
    bp.seed(3)
    local model = nn.sequential{ Block(2, nn.sequential{ nn.dense{ 3, activation = "tanh" } }), nn.dense(1) }
    model(bp.randn(2, 4))
    bp.no_grad(function() model:layer(1).seen:fill_(7) end)
    local loaded = round_trip(model, bp.randn(5, 4))
    assert.equal(7, loaded:layer(1).seen[1]:item())
  end)

  it("keeps lambdas that were registered, and refuses others with the way out", function()
    local twice = nn.register("spec_save_twice", function(x) return x * 2 end)
    round_trip(nn.sequential{ nn.dense(2), nn.lambda(twice), nn.dense{ 2, activation = twice } }, bp.randn(2, 3))
    local model = nn.sequential{ nn.dense(2), function(x) return x end }
    model(bp.randn(2, 3))
    fails("save: sequential, layer 'lambda_1': option 'fn' is a Lua function, which a file cannot hold; give it a name with nn.register",
      model.save, model, path)
  end)

  it("keeps what compile was given, and what was frozen", function()
    bp.seed(4)
    local model = nn.sequential{ nn.dense(3), nn.dense(2) }
    local x, y = bp.randn(10, 4), bp.randint(1, 2, { 10 })
    model:compile{ optimizer = optim.adamw{ lr = optim.schedule.cosine{ 0.1, steps = 9 }, clip_norm = 2 },
      loss = nn.loss.cross_entropy{ label_smoothing = 0.1 }, metrics = { "accuracy", "top_k_accuracy" } }
    model:fit{ x, y, verbose = 0 }
    model:freeze "dense_1"
    local loaded = round_trip(model, x)
    assert.equal(tostring(model:evaluate{ x, y }), tostring(loaded:evaluate{ x, y }))
    local optimizer = rawget(loaded, "compiled").optimizer
    assert.equal("adamw", optimizer.name)
    assert.equal(2, optimizer.options.clip_norm)
    assert.near(0.1, optimizer:get_lr(), 1e-12)
    assert.equal(2, #loaded:parameters{ trainable = true })
    loaded:fit{ x, y, verbose = 0 }
  end)

  it("does not move the random streams", function()
    bp.seed(5)
    local model = nn.sequential{ input = { 4 }, nn.dense{ 3, kernel_init = "he_normal" } }
    assert(model:save(path))
    bp.seed(6)
    local a = nn.init.he_normal{ 2, 2 }
    bp.seed(6)
    assert(bp.load(path))
    assert.is_true(check.equal(a, nn.init.he_normal{ 2, 2 }))
  end)

  it("survives 200 random architectures", function()
    for seed = 1, 200 do
      bp.seed(seed)
      local function pick(list) return list[bp.randint(1, #list, { 1 }):item()] end
      local layers, images = {}, pick{ true, false }
      for _ = 1, pick{ 1, 2, 3 } do
        if images then
          layers[#layers + 1] = pick{ function() return nn.conv2d{ pick{ 1, 3, 5 }, pick{ 1, 2, 3 }, padding = "same",
            strides = pick{ 1, 2 } } end,
            function() return nn.batch_norm() end, function() return nn.max_pool2d{ 2, padding = "same" } end }()
        else
          layers[#layers + 1] = pick{ function() return nn.dense{ pick{ 1, 4, 9 }, activation = pick{ "relu", "tanh", "gelu" } } end,
            function() return nn.dropout(0.5) end, function() return nn.batch_norm{ scale = pick{ true, false } } end }()
        end
      end
      layers[#layers + 1] = nn.flatten()
      layers[#layers + 1] = nn.dense(2)
      round_trip(nn.sequential(layers), images and bp.randn(3, 7, 6, 2) or bp.randn(3, 5))
    end
  end)

  it("needs parameters to save", function()
    fails("sequential: layer 'dense_1' has no parameters yet", function() nn.sequential{ nn.dense(1) }:save(path) end)
    fails("save: the path is a number (3)", function() nn.sequential{ nn.dense{ 1, 1 } }:save(3) end)
    fails("bp.load: the path is nil", bp.load)
  end)

  describe("of files that are not models", function()
    local function refused(text, file)
      local model, message, code = bp.load(file or path)
      assert.is_nil(model)
      assert.truthy(message:find(text, 1, true), message)
      assert.truthy(message:find(file or path, 1, true), message)
      return code
    end
    local function with_model(json, tensors)
      assert(bp.save_tensors(path, tensors or { x = bp.zeros(1) }, { ["bplua.model"] = json }))
    end

    it("returns nil, message and code", function()
      assert.equal("eio", refused("No such file", folder .. "/missing.safetensors"))
      shell.write(path, "no model")
      assert.equal("eformat", refused(""))
      assert(bp.save_tensors(path, { x = bp.zeros(1) }))
      assert.equal("eformat", refused("it holds tensors but no model of bp; bp.load_tensors(path) reads the tensors"))
    end)

    it("names what is wrong in the architecture", function()
      local cases = {
        { "{", "the architecture in its metadata is no JSON object" },
        { "[1]", "has format nil" },
        { '{"format":99}', "the model has format 99; this bp" },
        { '{"format":1}', "a layer is described by a nil" },
        { '{"format":1,"model":{"class":"no_such_layer"}}',
          "it has a layer of the class 'no_such_layer', which this program does not define" },
        { '{"format":1,"model":{"class":"dense","options":{"units":-1}}}', "dense: option 'units' is a number (-1)" },
        { '{"format":1,"model":{"class":"dense","options":{"units":1,"colour":3}}}', "dense: unknown option 'colour'" },
        { '{"format":1,"model":{"class":"lambda","options":{"fn":{"function":"nowhere"}}}}', "the function 'nowhere' is not registered" },
        { '{"format":1,"model":{"class":"sequential","layers":[{"shared":7}]}}', "layer 7 is referred to before it comes" },
        { '{"format":1,"model":{"class":"dense","options":{"units":2}},"built":[["",[1,3]]]}', "the tensor 'kernel' is missing" },
        { '{"format":1,"model":{"class":"dense","options":{"units":2}},"built":[["x",[1,3]]]}', "its architecture names the layer 'x'" },
      }
      for _, case in ipairs(cases) do
        with_model(case[1])
        assert.equal("eformat", refused(case[2]), case[1])
      end
      with_model('{"format":1,"model":{"class":"dense","options":{"units":2}},"built":[["",[1,3]]]}',
        { kernel = bp.zeros(3, 4), bias = bp.zeros(2) })
      refused("the tensor 'kernel' is f32 [3][4]; the layer needs f32 [3][2]")
      assert(nn.sequential{ input = { 2 }, nn.dense(1) }:save(path)) -- all is well afterwards
      assert(bp.load(path))
    end)

    it("keeps the old file when saving fails", function()
      local model = nn.sequential{ input = { 2 }, nn.dense(1) }
      local ok, message, code = model:save "/nowhere/at/all.safetensors"
      assert.is_nil(ok)
      assert.equal("eio", code)
      assert.truthy(message:find("/nowhere/at/all.safetensors", 1, true))
    end)
  end)
end)
