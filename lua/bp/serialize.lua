--- Saving and loading models. A file is a safetensors file with the parameters and running statistics by name, and the architecture as JSON
--- in its metadata under "bplua.model":
---
---     { "format": 1, "model": { "class": "sequential",
---                  "layers": [ { "class": "dense", "name": "dense_1", "options": { "units": 32 } } ] },
---       "built": [ ["dense_1", [1, 10]] ], "frozen": [], "compile": { ... } }
---
--- Reading rebuilds the layers from the classes that the program has; a file never runs code.
local core = require "bp.core"
local init = require "bp.nn.initializers"
local json = require "bp.json"
local lambda = require "bp.nn.lambda"
local lora = require "bp.nn.lora"
local metrics = require "bp.metrics"
local module = require "bp.nn.module"
local optim = require "bp.optim"
local options = require "bp.options"
local outputs = require "bp.outputs"
local tree = require "bp.nn.tree"
local weights = require "bp.nn.weights"

local serialize = {}

local FORMAT = 1
local KEY = "bplua.model"
serialize.KEY = KEY

-- ---- model to table ------------------------------------------------------------------------------------------------------------------

local describe

-- A value of options or arguments as JSON can hold it. `where` names it in the error.
local function plain(value, where, seen)
  local kind = type(value)
  if kind == "number" or kind == "string" or kind == "boolean" then return value end
  if kind == "function" then
    local name = lambda.name_of(value)
    if name then return { ["function"] = name } end
    core.error(("save: %s is a Lua function, which a file cannot hold; give it a name with nn.register(\"name\", fn), here and before "
      .. "bp.load"):format(where))
  end
  if tree.is_module(value) then return { module = describe(value, where, seen) } end
  if options.is_plain(value) then
    local copy = {}
    for key, item in pairs(value) do copy[key] = plain(item, where .. "." .. tostring(key), seen) end
    if next(copy) == nil or #copy > 0 then return json.array(copy) end
    return copy
  end
  core.error(("save: %s is %s, which a file cannot hold; expected numbers, strings, booleans, lists or layers")
    :format(where, options.describe(value)))
end

-- A module as a table. One met before is a reference to the place where it came first.
function describe(self, where, seen)
  if seen[self] then return { shared = seen[self] } end
  seen.count = seen.count + 1
  seen[self] = seen.count
  local config = { class = self.class_name, name = rawget(self, "given_name") }
  if self.class_name == "sequential" and self.builtin then
    config.layers = json.array{}
    for i, one in ipairs(self.layers) do config.layers[i] = describe(one, ("%s, layer '%s'"):format(where, self.names[one]), seen) end
  elseif rawget(self, "steps") and self.builtin then
    config.graph = self:config(function(one) return describe(one, ("%s, layer '%s'"):format(where, self.names[one]), seen) end,
      function(value) return plain(value, where .. ": an argument of a layer", seen) end)
  elseif self.builtin then
    config.options = {}
    for key, value in pairs(self.options) do config.options[key] = plain(value, ("%s: option '%s'"):format(where, key), seen) end
  else
    local arguments = rawget(self, "state").arguments
    config.arguments = json.array{}
    for i = 1, arguments.n do
      config.arguments[i] = arguments[i] == nil and json.null or plain(arguments[i], ("%s: argument %d of %s")
        :format(where, i, self.class_name), seen)
    end
  end
  return config
end

local function loss_config(loss)
  if loss.name == "function" or loss.kind == "several" then return nil end
  local given = {}
  for key, value in pairs(loss.options) do
    if not core.is_tensor(value) then given[key] = value end
  end
  return { name = loss.name, options = given }
end

-- What compile was given, as far as names can say it.
local function compile_config(self)
  local compiled = rawget(self, "compiled")
  if not compiled then return nil end
  local loss = compiled.loss.kind == "several" and compiled.loss:config(loss_config) or loss_config(compiled.loss)
  if not loss then return nil end
  local names, weighted = json.array{}, json.array{}
  if loss.outputs then
    for i, list in ipairs(outputs.metric_names(compiled.metrics, #loss.outputs, metrics.config)) do names[i] = json.array(list) end
  else
    for _, metric in ipairs(compiled.metrics) do
      local list = metric.weighted and weighted or names
      list[#list + 1] = metrics.config(metric)
    end
  end
  return { optimizer = compiled.optimizer:config(), loss = loss, metrics = names, weighted_metrics = #weighted > 0 and weighted or nil }
end

--- The architecture of a model as JSON text.
---@param self table a module whose layers all have their parameters
---@return string text
function serialize.architecture(self)
  tree.require_built(self)
  local built, frozen = json.array{}, json.array{}
  for _, entry in ipairs(tree.modules(self)) do
    local shape = rawget(entry.module, "built_for")
    if shape then built[#built + 1] = { entry.path, json.array(table.move(shape, 1, #shape, 1, {})) } end
  end
  for _, entry in ipairs(tree.parameters(self)) do
    if not entry.tensor.requires_grad then frozen[#frozen + 1] = entry.name end
  end
  local adapters = lora.describe(self)
  if #adapters == 0 then adapters = nil end
  return json.encode{
    format = FORMAT, version = core.version, model = describe(self, self.class_name, { count = 0 }),
    built = built, frozen = frozen, adapters = adapters, compile = compile_config(self),
  }
end

--- Writes the model into a safetensors file; an old file is replaced only when the new one is whole.
---@param self table
---@param path string
---@param more table|nil { tensors = more tensors by name, metadata = more strings by name }
---@return boolean|nil ok
---@return string|nil message
---@return string|nil code
function serialize.save(self, path, more)
  if type(path) ~= "string" then core.error("save: the path is " .. options.describe(path) .. "; expected a string") end
  local tensors, metadata = {}, { [KEY] = serialize.architecture(self) }
  for _, entry in ipairs(weights.state(self)) do tensors[entry.name] = entry.tensor:detach() end
  for name, tensor in pairs(more and more.tensors or {}) do tensors[name] = tensor end
  for name, text in pairs(more and more.metadata or {}) do metadata[name] = text end
  return core.safetensors_save(path, tensors, metadata)
end

-- ---- table to model ------------------------------------------------------------------------------------------------------------------

-- Errors about the contents of a file; load turns them into nil, message, code.
local function bad(message, ...)
  error({ bad_file = message:format(...) }, 0)
end

local rebuild

local function value_of(value, made)
  if type(value) ~= "table" then return value end
  if value["function"] then
    local fn = lambda.functions[value["function"]]
    if not fn then
      bad("the function '%s' is not registered; nn.register(%q, function(x) ... end) before bp.load", value["function"], value["function"])
    end
    return fn
  end
  if value.module then return rebuild(value.module, made) end
  local copy = {}
  for key, item in pairs(value) do copy[key] = value_of(item, made) end
  return copy
end

-- Modules are numbered as describe numbered them, so that shared ones are found again.
function rebuild(config, made)
  if type(config) ~= "table" then bad("a layer is described by a %s; expected an object", type(config)) end
  if config.shared then return made[config.shared] or bad("layer %s is referred to before it comes", tostring(config.shared)) end
  local class = module.classes[config.class]
  if not class then
    bad("it has a layer of the class '%s', which this program does not define; run what calls nn.module(%q, ...) before bp.load",
      tostring(config.class), tostring(config.class))
  end
  made.count = made.count + 1
  local place = made.count
  local self
  if config.graph then
    self = require "bp.nn.functional".from_config(config.graph, config.name ~= "model" and config.name or nil,
      function(one) return rebuild(one, made) end, function(value) return value_of(value, made) end, bad)
  elseif config.layers then
    local layers = { name = config.name ~= "sequential" and config.name or nil }
    for i, one in ipairs(config.layers) do layers[i] = rebuild(one, made) end
    self = class(layers)
  elseif class.builtin then
    self = class(value_of(config.options or {}, made))
  else
    local arguments = config.arguments or {}
    for i, item in ipairs(arguments) do
      if item == json.null then arguments[i] = nil else arguments[i] = value_of(item, made) end
    end
    self = class(table.unpack(arguments, 1, #config.arguments))
  end
  if config.name then rawset(self, "given_name", config.name) end
  made[place] = self
  return self
end

local function build_layers(self, built)
  local by_path = {}
  local function look()
    for _, entry in ipairs(tree.modules(self)) do by_path[entry.path] = entry.module end
  end
  look()
  for _, entry in ipairs(built or {}) do
    if not by_path[entry[1]] then look() end -- some layers make their children when they are built
    local one, shape = by_path[entry[1]], value_of(entry[2])
    if not one then bad("its architecture names the layer '%s', which is not in the model that was rebuilt", tostring(entry[1])) end
    if one.build and not rawget(one, "built_for") then core.pause(core.no_grad, function() one:build(shape) end) end
    rawset(one, "built_for", shape)
  end
end

local function fill(self, tensors)
  local mine = {}
  for _, entry in ipairs(weights.state(self)) do
    local value = tensors[entry.name]
    if not value then bad("the tensor '%s' is missing", entry.name) end
    local found, expected = table.concat(value:shape(), "]["), table.concat(entry.tensor:shape(), "][")
    if found ~= expected or value.dtype ~= entry.tensor.dtype then
      bad("the tensor '%s' is %s [%s]; the layer needs %s [%s]", entry.name, value.dtype, found, entry.tensor.dtype, expected)
    end
    mine[entry.name] = value
  end
  weights.set(self, mine)
end

local function compile(self, config)
  if not config then return end
  local function loss_of(one) return require("bp.nn.loss").get("load", one.name, value_of(one.options)) end
  local loss
  if config.loss.outputs then
    loss = {}
    for i, one in ipairs(config.loss.outputs) do loss[i] = loss_of(one) end
  else
    loss = loss_of(config.loss)
  end
  self:compile{
    optimizer = optim.from_config(config.optimizer), metrics = value_of(config.metrics), loss = loss,
    weighted_metrics = config.weighted_metrics and value_of(config.weighted_metrics),
    loss_weights = config.loss.weights and value_of(config.loss.weights) or nil,
  }
end

local function decode(text)
  local config, message = json.decode(text)
  if type(config) ~= "table" then bad("the architecture in its metadata is no JSON object: %s", tostring(message)) end
  if math.type(config.format) ~= "integer" or config.format > FORMAT then
    bad("the model has format %s; this bp (%s) reads up to %d; take a newer one", tostring(config.format), core.version, FORMAT)
  end
  return config
end

--- A model out of what a file held.
---@param tensors table by name
---@param metadata table strings by name
---@return table model in inference mode
function serialize.from_tensors(tensors, metadata)
  local config = decode(metadata[KEY])
  local self
  init.without_drawing(function()
    self = rebuild(config.model, { count = 0 })
    build_layers(self, config.built)
    local missing = lora.apply(self, config.adapters or {})
    if missing then bad("its architecture names an adapter of '%s', which is no dense layer of the model", missing) end
  end)
  fill(self, tensors)
  for _, name in ipairs(config.frozen or {}) do self:freeze(name) end
  compile(self, config.compile)
  return self:eval()
end

--- Loads a model that save wrote.
---@param path string
---@return table|nil model in inference mode, compiled as it was when saved
---@return table|string metadata strings by name, or the message
---@return string|nil code
---@return table|nil tensors all tensors of the file
function serialize.load(path)
  if type(path) ~= "string" then core.error("bp.load: the path is " .. options.describe(path) .. "; expected a string") end
  require "bp.nn"
  local tensors, metadata, code = core.safetensors_load(path)
  if not tensors then return nil, metadata, code end
  if not metadata[KEY] then
    return nil, ("%s: it holds tensors but no model of bp; bp.load_tensors(path) reads the tensors"):format(path), "eformat"
  end
  local ok, result = pcall(serialize.from_tensors, tensors, metadata)
  if ok then return result, metadata, nil, tensors end
  local message = type(result) == "table" and result.bad_file or tostring(result):gsub("^[^\n]-:%d+: ", "")
  return nil, ("%s: %s"):format(path, message), "eformat"
end

return serialize
