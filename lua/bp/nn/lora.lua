--- model:lora: low-rank adapters (Hu et al., "LoRA: Low-rank adaptation of large language models", 2021). The weights W [in][out] of a
--- dense layer, also of those within attention, stay as they are; trained are A [in][rank] and B [rank][out]:
---
---     y = activation(x W + b + (alpha / rank) x A B)
---
--- B starts at zero, so that nothing changes at first. A is drawn as PyTorch's peft does (uniform, Kaiming with a = sqrt 5:
--- |A| <= 1 / sqrt(in)).
local core = require "bp.core"
local init = require "bp.nn.initializers"
local module = require "bp.nn.module"
local options = require "bp.options"
local tree = require "bp.nn.tree"
local weights = require "bp.nn.weights"

local lora = {}

local KEY = "bplua.lora"

local spec = options.define("lora", "Adds low-rank adapters to dense layers and freezes all else.", {
  { "rank", "int", min = 1, default = 8, help = "columns of A and rows of B" },
  { "alpha", "number", above = 0, named = true, help = "the adapters' part is multiplied with alpha / rank; default 2 rank" },
  { "pattern", "string", default = "*", named = true, help = "paths of the dense layers, `*` standing for anything: \"*.query\"" },
  { "train", "string", named = true, help = "parameters that are trained besides, such as a new head: \"dense_3\"" },
})

-- Adds the two parameters to a layer.
local function adapt(layer, rank, alpha)
  local shape = layer.kernel:shape()
  local bound = 1 / math.sqrt(shape[1])
  layer.lora_a = core.pause(function() return (init.uniform({ shape[1], rank }, { -bound, bound })):detach():requires_grad_(true) end)
  layer.lora_b = core.pause(function() return init.zeros({ rank, shape[2] }):detach():requires_grad_(true) end)
  rawset(layer, "adapter", { rank = rank, alpha = alpha })
end

-- The dense layers of a model whose paths match.
local function dense_layers(self, pattern)
  local matches, list = tree.matcher(pattern), {}
  for _, entry in ipairs(tree.modules(self)) do
    local path = entry.path == "" and entry.module.class_name or entry.path
    if entry.module.class_name == "dense" and entry.module.builtin and matches(path) then list[#list + 1] = entry end
  end
  return list
end

--- Adds low-rank adapters to the dense layers that a pattern names, and freezes everything else. Compile, or make an optimizer, after it.
---@param self table a model whose layers have their parameters
---@param given any { rank = 8, alpha = 2 rank, pattern = "*", train = }
---@return integer count how many layers have an adapter now
function lora.add(self, given, ...)
  local o = spec:read(given, ...)
  tree.require_built(self)
  local list = dense_layers(self, o.pattern)
  if #list == 0 then
    spec:fail("no dense layer is called '%s'; model:summary() shows the names", o.pattern)
  end
  tree.set_trainable(self, nil, false)
  for _, entry in ipairs(list) do
    if rawget(entry.module, "adapter") then spec:fail("layer '%s' has an adapter already; model:merge_lora() first", entry.path) end
    adapt(entry.module, o.rank, o.alpha or 2 * o.rank)
  end
  if o.train then tree.set_trainable(self, o.train, true) end
  return #list
end

local function adapted(self)
  local list = {}
  for _, entry in ipairs(tree.modules(self)) do
    if rawget(entry.module, "adapter") then list[#list + 1] = entry end
  end
  return list
end

--- What the adapters give for x, to be added to the layer's own result.
---@param layer table
---@param x table
---@return table y
function lora.forward(layer, x)
  local adapter = rawget(layer, "adapter")
  return core.ops.linear(core.ops.linear(x, layer.lora_a), layer.lora_b) * (adapter.alpha / adapter.rank)
end

--- Adds the adapters to the weights they belong to and takes them away: the model gives the same, as fast as before.
---@param self table
---@return integer count of layers
function lora.merge(self)
  local list = adapted(self)
  core.pause(core.no_grad, function()
    for _, entry in ipairs(list) do
      local one, adapter = entry.module, rawget(entry.module, "adapter")
      one.kernel:add_(one.lora_a:matmul(one.lora_b) * (adapter.alpha / adapter.rank))
      one.lora_a, one.lora_b = nil, nil
      rawset(one, "adapter", nil)
    end
  end)
  module.touch()
  return #list
end

--- What files say of the adapters: path, rank and alpha of each.
---@param self table
---@return table[] list
function lora.describe(self)
  local list = {}
  for i, entry in ipairs(adapted(self)) do
    local adapter = rawget(entry.module, "adapter")
    list[i] = { path = entry.path, rank = adapter.rank, alpha = adapter.alpha }
  end
  return list
end

--- Makes the adapters that describe told of, where there are none yet.
---@param self table
---@param list table[]
---@return string|nil path of a layer that is not there or no dense layer
function lora.apply(self, list)
  local by_path = {}
  for _, entry in ipairs(tree.modules(self)) do by_path[entry.path] = entry.module end
  for _, one in ipairs(list) do
    local layer = by_path[one.path]
    if not layer or layer.class_name ~= "dense" then return one.path end
    if not rawget(layer, "adapter") then adapt(layer, one.rank, one.alpha) end
  end
end

--- Writes the adapters alone, with whatever else is trained (a new head): a small file that goes with the model they were made for.
---@param self table
---@param path string
---@return boolean|nil ok
---@return string|nil message
---@return string|nil code
function lora.save(self, path)
  local list, tensors = lora.describe(self), {}
  if #list == 0 then core.error("save_lora: the model has no adapters; model:lora{ rank = 8 } adds them") end
  for _, entry in ipairs(tree.parameters(self)) do
    if entry.name:find "lora_[ab]$" or entry.tensor.requires_grad then tensors[entry.name] = entry.tensor:detach() end
  end
  return core.safetensors_save(path, tensors, { [KEY] = require("bp.json").encode{ format = 1, adapters = list } })
end

--- Takes up adapters that save_lora wrote; the model gets them where it has none.
---@param self table the model they were made for
---@param path string
---@return integer|nil count of tensors
---@return string|nil message
---@return string|nil code
function lora.load(self, path)
  tree.require_built(self)
  local tensors, metadata, code = core.safetensors_load(path)
  if not tensors then return nil, metadata, code end
  local config = metadata[KEY] and require("bp.json").decode(metadata[KEY])
  if type(config) ~= "table" or config.format ~= 1 then return nil, path .. ": it holds no adapters of model:save_lora", "eformat" end
  local mine, todo, missing = {}, {}, lora.apply(self, config.adapters)
  if missing then return nil, ("%s: the model has no dense layer '%s'"):format(path, missing), "eformat" end
  for _, entry in ipairs(weights.state(self)) do mine[entry.name] = entry.tensor end
  for name, value in pairs(tensors) do
    local own = mine[name]
    if not own or table.concat(own:shape(), " ") ~= table.concat(value:shape(), " ") then
      return nil, ("%s: the tensor '%s' [%s] has no place in the model"):format(path, name, table.concat(value:shape(), "][")), "eformat"
    end
    todo[#todo + 1] = { own, value }
  end
  core.pause(core.no_grad, function()
    for _, pair in ipairs(todo) do pair[1]:copy_(pair[2]) end
  end)
  return #todo
end

return lora
