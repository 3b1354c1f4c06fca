--- Two hundred random architectures saved and loaded: the same predictions to the bit, the same file when saved again.
local bp = require "bp"
local core = require "bp.core"
local architectures = require "support.architectures"
local files = require "support.files"
local shell = require "support.shell"

local COUNT = 200

local function bits(tensor) return core.to_bytes(tensor:contiguous()) end

local function state(model)
  local all = {}
  for _, list in ipairs{ "named_parameters", "named_buffers" } do
    for name, tensor in model[list](model) do all[name] = tensor end
  end
  return all
end

local function check(seed, path)
  local model, x = architectures.draw(seed)
  local function fail(what) error(("seed %d: %s\n%s"):format(seed, what, tostring(model:summary())), 2) end
  local saved, message = model:save(path)
  if not saved then fail(message) end
  local text = core.read_file(path)

  -- what a program without our Lua sees
  local tensors, metadata = core.safetensors_load(path)
  if not tensors then fail(metadata) end
  if not metadata["bplua.model"] then fail "the architecture is not in the metadata" end
  for name, tensor in pairs(state(model)) do
    if not tensors[name] or bits(tensors[name]) ~= bits(tensor:detach()) then fail("the file's tensor " .. name .. " differs") end
    tensors[name] = nil
  end
  if next(tensors) then fail("the file has a tensor of nobody: " .. next(tensors)) end

  local loaded, why = bp.load(path)
  if not loaded then fail(why) end
  if loaded.training then fail "a loaded model is not in inference" end
  if bits(loaded:predict(x)) ~= bits(model:predict(x)) then fail "the predictions differ" end
  if bits(loaded(x)) ~= bits(model:eval()(x)) then fail "the results of a call differ" end
  if tostring(loaded:summary()) ~= tostring(model:summary()) then fail "the summaries differ" end
  local trainable, expected = #loaded:parameters{ trainable = true }, #model:parameters{ trainable = true }
  if trainable ~= expected then fail(("%d parameters are trained, before it were %d"):format(trainable, expected)) end
  if (rawget(loaded, "compiled") ~= nil) ~= (rawget(model, "compiled") ~= nil) then fail "one is compiled, the other is not" end

  assert(loaded:save(path .. ".again"))
  if core.read_file(path .. ".again") ~= text then fail "saved again, the file differs" end
end

describe("saving and loading", function()
  local folder = files.folder()
  teardown(function() folder:remove() end)

  it(("brings %d random architectures back"):format(COUNT), function()
    local kinds = {}
    for seed = 1, COUNT do
      check(seed, folder:at "m.safetensors")
      for _, module in architectures.draw(seed):modules() do kinds[module.class_name] = (kinds[module.class_name] or 0) + 1 end
    end
    for _, name in ipairs{ "dense", "conv2d", "max_pool2d", "avg_pool2d", "global_max_pool2d", "global_avg_pool2d", "flatten", "reshape",
      "dropout", "batch_norm", "activation", "leaky_relu", "elu", "gelu", "softmax", "rescaling", "lambda", "sequential",
      "SpecBranches", "model", "add", "multiply", "average", "maximum", "minimum", "subtract", "concat", "dot" } do
      assert(kinds[name], "no architecture had a " .. name)
    end
  end)

  it("goes on training as the original does", function()
    for seed = 1, 20 do
      local model, x = architectures.draw(seed)
      if rawget(model, "compiled") then
        model:save(folder:at "t.safetensors")
        local loaded = assert(bp.load(folder:at "t.safetensors"))
        local y = bp.ones_like(model:predict(x))
        if x.dtype == "u8" then x = x:to "f32" end
        for _, one in ipairs{ model, loaded } do
          bp.seed(1)
          one:unfreeze()
          one:fit{ x, y, epochs = 2, shuffle = false, verbose = 0 }
        end
        assert.equal(bits(model:predict(x)), bits(loaded:predict(x)), "seed " .. seed)
      end
    end
  end)

  it("writes what the safetensors package of Python reads", function()
    local peers = os.getenv "BP_PEERS"
    local python = peers and peers .. "/bin/python" or "python3"
    local model = architectures.draw(7)
    local path = folder:at "python.safetensors"
    assert(model:save(path))
    local r = shell.run(("%s tests/vectors/check_safetensors.py %s --metadata"):format(shell.quote(python), shell.quote(path)))
    if r.code == 77 or r.code == 126 or r.code == 127 then
      pending(("skipped: %s has no package safetensors (BP_PEERS may name an environment that has): %s"):format(python, r.err))
      return
    end
    assert.equal(0, r.code, r.err)
    for name, tensor in pairs(state(model)) do
      local line = ("\n%s [%s] %s\n"):format(name, table.concat(tensor:shape(), ", "), tensor.dtype == "f32" and "float32" or tensor.dtype)
      assert(r.out:find(line, 1, true), line .. r.out)
    end
    assert(r.out:find("bplua.model = {", 1, true), r.out)
  end)
end)
