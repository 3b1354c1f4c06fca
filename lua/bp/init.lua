--- bp: neural networks, trained and run from Lua.
---
---     local bp = require "bp"
---     local x = bp.randn(8, 10)
---     local net = bp.nn.sequential{ bp.nn.dense{32, activation = "relu"}, bp.nn.dense(1) }
---     print(net(x))
local core = require "bp.core"
core.library()

local create = require "bp.create"
local grad = require "bp.grad"
local clip = require "bp.optim.clip"
local names = require "bp.names"
local ops = core.ops

local bp = {
  version = core.version,
  ops = ops,
  scope = core.scope,
  keep = core.keep,
  no_grad = core.no_grad,
  enable_grad = core.enable_grad,
  is_tensor = core.is_tensor,
  memory = core.memory,
  isa = core.isa,
  grad = grad.grad,
  checkgrad = grad.checkgrad,
  capture = require("bp.capture").capture,
  clip_grad_norm = clip.clip_grad_norm,
  clip_grad_value = clip.clip_grad_value,
  concat = ops.concat,
  stack = ops.stack,
  where = ops.where,
  one_hot = ops.one_hot,
  warning = require "bp.warning",
}
for name, fn in pairs(create) do bp[name] = fn end

--- Restarts every random stream, so that the same program gives the same bits.
---@param seed integer
function bp.seed(seed)
  core.seed(seed)
end

--- Sets or asks how many threads work on one op. The results do not depend on it.
---@param n integer|nil
---@return integer threads
function bp.threads(n)
  return core.threads(n)
end

--- Loads a model that model:save wrote: layers and weights; it predicts the same bits.
---@param path string
---@return table|nil model in inference mode
---@return string|nil message
---@return string|nil code
function bp.load(path)
  return require("bp.serialize").load(path)
end

--- Writes tensors into a safetensors file.
---@param path string
---@param tensors table by name
---@param metadata table|nil strings by name
---@return boolean|nil ok
---@return string|nil message
---@return string|nil code
function bp.save_tensors(path, tensors, metadata)
  return core.safetensors_save(path, tensors, metadata)
end

--- Reads all tensors of a safetensors file.
---@param path string
---@return table|nil tensors by name
---@return table|string metadata, or the message
---@return string|nil code
function bp.load_tensors(path)
  return core.safetensors_load(path)
end

--- What is known of a name ("nn.dense", "ops.softmax", "x:sum"), as text; ?name at the prompt.
---@param name string
---@return string|nil text
---@return string|nil message when nothing is known
function bp.help(name)
  return require("bp.help")(name)
end

-- Parts that load at first use.
local parts = { "nn", "optim", "data", "callbacks", "augment", "search", "metrics", "json", "checkpoint", "text", "rl", "explain" }
local is_part = {}
for _, name in ipairs(parts) do is_part[name] = true end
local strict = { nn = true, optim = true, data = true, callbacks = true, augment = true, search = true, metrics = true }

setmetatable(bp, {
  __index = function(self, key)
    if not is_part[key] then return nil end
    local part = require("bp." .. key)
    rawset(self, key, part)
    if strict[key] then names.strict(key, part) end
    return part
  end,
  -- Shows the parts, too, for completion.
  __pairs = function(self)
    for _, name in ipairs(parts) do
      if rawget(self, name) == nil then local _ = self[name] end
    end
    return next, self, nil
  end,
})
return names.strict("bp", bp, parts)
