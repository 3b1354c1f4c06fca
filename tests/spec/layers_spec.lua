--- Every layer of bp.nn is checked alike, by its row in tests/support/layer_checks.lua: gradients against differences, a captured step
--- against an eager one to the bit, a file against the model that was saved, and an option that there is not.
local bp = require "bp"
local bad = require "support.bad"
local core = require "bp.core"
local files = require "support.files"
local layer_checks = require "support.layer_checks"
local nn = bp.nn

nn.register("spec_layer_checks", function(x) return x * x:sigmoid() end)

local function bits(t) return core.to_bytes(t:detach():contiguous()) end

-- Inputs of a row, as a list. Where only first order is compared there may be kinks, at ties and round numbers: numbers that keep apart.
local function inputs(row, dtype)
  bp.seed(17)
  local list = {}
  for i, shape in ipairs(row.shapes or { row.shape }) do
    local n = 1
    for _, size in ipairs(shape) do n = n * size end
    if row.gradient == 1 then
      list[i] = ((bp.randperm(n):to "f64" - n // 2) * 0.05 + 0.0131 * i):reshape(shape):to(dtype)
    else
      list[i] = bp.randn(shape):to(dtype)
    end
  end
  return list
end

-- The layer as a function of its inputs with numbers for results: what is dropped is the same in every call.
local function weighed(layer, x)
  bp.seed(23)
  local y = layer(table.unpack(x))
  local n = y:numel()
  return (y:reshape(-1) * (bp.arange(1, n):to(y.dtype) * 1.3):sin()):sum()
end

local function check_gradient(name, row)
  local layer = row.make(nn)
  layer(table.unpack(inputs(row, "f32")))
  local x = inputs(row, "f64")
  local function first(point) return weighed(layer, point) end
  local error_, where = bp.checkgrad(first, x)
  assert(error_ < 1e-6, ("%s: %.3g at %s"):format(name, error_, where))
  if row.gradient < 2 then return end
  local function second(point)
    local leaves = {}
    for i, t in ipairs(point) do leaves[i] = t.requires_grad and t or t:clone():requires_grad_() end
    local gradients = bp.grad(first)(leaves)
    local total
    for i, g in ipairs(gradients) do
      local term = (g:reshape(-1) * (bp.arange(1, g:numel()):to "f64" + i):cos()):sum()
      total = total and total + term or term
    end
    return total
  end
  error_, where = bp.checkgrad(second, x)
  assert(error_ < 1e-5, ("%s, second order: %.3g at %s"):format(name, error_, where))
end

local function check_capture(name, row)
  local x = inputs(row, "f32")
  local results = {}
  for i, wrap in ipairs{ function(fn) return fn end, bp.capture } do
    bp.seed(5)
    local layer = row.make(nn)
    layer(table.unpack(x)) -- builds it
    bp.seed(6)
    local step = wrap(function(...)
      local y = layer(...)
      return y, bp.grad(function(v) return layer(table.unpack(v)):square():sum() end)({ ... })
    end)
    results[i] = {}
    for call = 1, 3 do
      local y, gradients = step(table.unpack(x))
      results[i][call] = bits(y)
      for _, g in ipairs(gradients) do results[i][call] = results[i][call] .. bits(g) end
    end
  end
  for call = 1, 3 do assert(results[1][call] == results[2][call], ("%s: call %d is other bits when captured"):format(name, call)) end
end

local function model_of(row)
  local nodes = {}
  for i, shape in ipairs(row.shapes or { row.shape }) do nodes[i] = nn.input{ shape = { table.unpack(shape, 2) } } end
  return nn.model{ inputs = nodes, outputs = row.make(nn)(table.unpack(nodes)) }
end

local function check_file(name, row, folder)
  local x = inputs(row, "f32")
  bp.seed(7)
  local model = model_of(row)
  model:train()(table.unpack(x)) -- running statistics move
  assert(model:save(folder:at "one.safetensors"))
  local loaded = assert(bp.load(folder:at "one.safetensors"))
  assert(bits(loaded(table.unpack(x))) == bits(model:eval()(table.unpack(x))), name .. ": a loaded one gives other bits")
  assert(tostring(loaded) == tostring(model), name .. ": a loaded one has other options")
  assert(loaded:save(folder:at "two.safetensors"))
  local same = core.read_file(folder:at "one.safetensors") == core.read_file(folder:at "two.safetensors")
  assert(same, name .. ": saved again, the file differs")
end

describe("every layer", function()
  local folder = files.folder()
  teardown(function() folder:remove() end)

  it("has a row in tests/support/layer_checks.lua", function()
    for _, name in ipairs(layer_checks.layers(nn)) do
      assert(layer_checks.rows[name], ("nn.%s has no row in tests/support/layer_checks.lua: say there how it is made and what its input is")
        :format(name))
    end
  end)

  it("that is checked elsewhere names a spec that there is", function()
    for _, name in ipairs(layer_checks.layers(nn)) do
      local row = layer_checks.rows[name]
      local spec = row and row.elsewhere and row.elsewhere:match "^[%w_]+%.lua$"
      if spec then assert(core.read_file("tests/spec/" .. spec), ("nn.%s is checked in %s, which is not there"):format(name, spec)) end
    end
  end)

  for _, name in ipairs(layer_checks.layers(nn)) do
    local row = layer_checks.rows[name]
    if row and not row.elsewhere then
      it(name .. ": gradient of order " .. tostring(row.gradient), function()
        if type(row.gradient) == "number" then check_gradient(name, row) else assert(#row.gradient > 10, "a reason is needed") end
      end)
      it(name .. ": a captured step is the eager one to the bit", function() check_capture(name, row) end)
      it(name .. ": comes back from a file", function() check_file(name, row, folder) end)
      it(name .. ": refuses an unknown option", function()
        bad.raises(function() nn[name]{ unknown_option_of_nobody = 3 } end, name .. ": unknown option 'unknown_option_of_nobody'")
        bad.raises(function() nn[name]({}, 3, 4) end, name .. ": called with 3 values", "expected one table")
      end)
      if row.shape and name ~= "lambda" then -- a function of one's own may take anything
        it(name .. ": says so when its input is no tensor", function()
          local ok, message = pcall(function() row.make(nn) "text" end)
          assert(not ok and type(message) == "string" and message:find "text", name .. ": " .. tostring(message))
        end)
      end
    end
  end
end)
