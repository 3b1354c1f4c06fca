--- nn.sequential: layers one after another.
---
---     local model = nn.sequential{ input = {10}, nn.dense{32, activation = "relu"}, nn.dense(1) }
---     model:layer(1).kernel, model:layer("dense_2").bias
---
--- Layers are called after their kind and a number (dense_1, dense_2); the option `name` of a layer overrides it. The same layer may stand
--- in several places: it has one set of parameters.
local core = require "bp.core"
local module = require "bp.nn.module"
local names = require "bp.nn.names"
local options = require "bp.options"
local tree = require "bp.nn.tree"

local spec = options.define("sequential", "Layers one after another; positional entries are the layers.", {
  { "input", "ints", min = 1, named = true, help = "shape of one input, without the batch: builds the parameters at once" },
  { "name", "string", named = true, help = "name of the model in summaries, messages and saved files" },
})

local Sequential = module.define("sequential")
Sequential.builtin = true

function Sequential.init(self, given, ...)
  if given == nil then given = {} end
  if not options.is_plain(given) then given = { given } end
  local layers, named = {}, {}
  for key, value in pairs(given) do
    if math.type(key) ~= "integer" then named[key] = value end
  end
  for i = 1, #given do
    local value = given[i]
    if type(value) == "function" then value = require("bp.nn.lambda").layer(value) end
    if not tree.is_module(value) then
      local hint = type(value) == "table" and (getmetatable(value) or {}).__name and "; call it: nn.dense(10)" or ""
      spec:fail("layer %d is %s; expected a layer%s", i, options.describe(value), hint)
    end
    layers[i] = value
  end
  local o = spec:read(named, ...)
  rawset(self, "options", o)
  if o.name then rawset(self, "given_name", o.name) end
  rawset(self, "names", names.assign(spec, layers))
  self.layers = layers
  if o.input then self:build_for(o.input) end
end

-- Names of children in paths: without "layers.".
function Sequential:child_name(child)
  return self.names[child]
end

function Sequential:forward(x)
  for _, one in ipairs(self.layers) do x = one(x) end
  return x
end

function Sequential:stand_in_dtype()
  local first = self.layers[1]
  return first and first:stand_in_dtype()
end

--- Adds a layer at the end.
---@param one table a layer
---@return table self
function Sequential:add(one)
  if not tree.is_module(one) then core.error("sequential: add takes a layer, not " .. options.describe(one)) end
  local layers = self.layers
  layers[#layers + 1] = one
  rawset(self, "names", names.assign(spec, layers))
  module.touch()
  return self
end

--- Puts another layer in the place of one, such as a new head on a trained model. Compile, or make an optimizer, after it.
---@param which integer|string from 1, negative from the end, or "dense_1"
---@param one table a layer
---@return table self
function Sequential:replace(which, one)
  if not tree.is_module(one) then core.error("sequential: replace takes a layer, not " .. options.describe(one)) end
  local old, layers = self:layer(which), self.layers
  for i, layer in ipairs(layers) do
    if layer == old then layers[i] = one end
  end
  rawset(self, "names", names.assign(spec, layers))
  module.touch()
  return self
end

--- A layer by place or name.
---@param which integer|string from 1, negative from the end, or "dense_1"
---@return table layer
function Sequential:layer(which)
  return names.find("sequential", self.layers, self.names, which)
end

return Sequential
