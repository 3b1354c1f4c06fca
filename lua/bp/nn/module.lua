--- Modules: things with parameters that map tensors to tensors. Every layer is one, and `nn.module` makes more.
---
---     local Net = nn.module("Net", function(self, o)
---       self.hidden = nn.dense{o.units, activation = "relu"}
---       self.out = nn.dense(1)
---     end)
---     function Net:forward(x) return self.out(self.hidden(x)) end
---     local net = Net{units = 32}
---     print(net(x))
---
--- Whatever is assigned to a module is looked at in the order of first assignment: modules become children, tensors that want a gradient
--- become parameters; plain lists are searched too. Layers build their parameters at the first call, when the shape of their input is
--- known.
local core = require "bp.core"
local graph = require "bp.nn.graph"
local options = require "bp.options"
local hooks = require "bp.nn.hooks"
local sequence = require "bp.nn.sequence"
local tree = require "bp.nn.tree"

local module = {}

--- Classes by name: what a saved model may be rebuilt from.
module.classes = {}

-- The base class: methods every module has.
local Module = {}
Module.__name = "module"
module.Module = Module

local reserved = { forward = true, build = true }

-- An instance keeps everything assigned to it in `values`, so that __newindex sees every assignment; `order` lists the names by first
-- assignment, `kinds` marks "parameter" and "buffer".
local function state_of(self)
  local state = rawget(self, "state")
  if not state then core.error("nn.module: this is a class, not a module; call it first: local net = Net{...}") end
  return state
end

local revision = 0

--- Counts every assignment of a parameter, buffer or child and every freezing: a captured step that was recorded before is out of date.
---@return integer revision
function module.revision() return revision end

--- Notes a change of some module's structure.
function module.touch() revision = revision + 1 end

-- net.dense_1.kernel = tensor writes the numbers into the parameter, which stays the tensor that optimizers and captured steps know.
local function overwrite(self, key, parameter, value)
  local found, expected = table.concat(value:shape(), "]["), table.concat(parameter:shape(), "][")
  if found ~= expected then
    core.error(("%s: the parameter '%s' is [%s]; the tensor assigned to it is [%s]"):format(self.class_name, key, expected, found))
  end
  core.pause(core.no_grad, function() parameter:copy_(value) end)
end

local function assign(self, key, value)
  local state = state_of(self)
  if type(key) == "string" and Module[key] ~= nil and not reserved[key] then
    core.error(("%s: '%s' is a method of every module; choose another name"):format(self.class_name, key))
  end
  local kind, old = nil, state.values[key]
  if core.is_tensor(value) then
    kind = state.kinds[key] or (value.requires_grad and "parameter") or nil
    if state.kinds[key] == "parameter" and not value.requires_grad then return overwrite(self, key, old, value) end
  end
  if old == nil and value ~= nil then
    local known = false
    for _, name in ipairs(state.order) do known = known or name == key end
    if not known then state.order[#state.order + 1] = key end
  end
  state.values[key], state.kinds[key] = value, kind
  if kind or tree.is_module(value) then module.touch() end
end

local function make_class(name, init)
  local class = setmetatable({ class_name = name, init = init }, {
    __index = Module,
    __name = name .. " (class)",
    __call = function(class, ...) return class:new(...) end,
  })
  class.meta = {
    __name = name,
    __index = function(self, key)
      local value = rawget(self, "state").values[key]
      if value ~= nil then return value end
      return class[key]
    end,
    __newindex = assign,
    __call = function(self, ...) return self:call(...) end,
    __tostring = function(self) return self:describe() end,
    __pairs = function(self)
      local list, i = tree.parameters(self), 0
      return function()
        i = i + 1
        if list[i] then return list[i].name, list[i].tensor end
      end
    end,
    __methods = class, -- for completion
    bp_module = true,
  }
  return class
end

--- A class of modules.
---@param name string what it is called in summaries, messages and saved files
---@param init function|nil init(self, ...) receives what the class is called with and assigns layers and parameters
---@return table class call it to make a module; define class:forward(...) on it
function module.define(name, init)
  if type(name) ~= "string" or name == "" then core.error("nn.module: the name is " .. options.describe(name) .. "; expected a string") end
  if init ~= nil and type(init) ~= "function" then
    core.error("nn.module: the second value is " .. options.describe(init) .. "; expected a function (self, ...)")
  end
  local class = make_class(name, init)
  module.classes[name] = class
  return class
end

function Module.new(class, ...)
  local self = setmetatable({ state = { values = {}, order = {}, kinds = {}, arguments = table.pack(...) } }, class.meta)
  rawset(self, "training", true)
  if class.init then class.init(self, ...) end
  return self
end

-- ---- calling -------------------------------------------------------------------------------------------------------------------------

local function shape_of(x)
  return core.is_tensor(x) and x:shape() or nil
end

-- Runs build(shape) once. Nothing of it belongs to a capture, and what it makes outlives scopes.
local function build(self, shape)
  core.pause(core.no_grad, function() self:build(shape) end)
  rawset(self, "built_for", shape)
end

-- The first call tells a layer the shape of its input; other modules remember it for summary().
local function first_call(self, x)
  local shape = shape_of(x)
  if shape and (x.dtype == "i64" or x.dtype == "i32") then rawset(self, "seen_dtype", x.dtype) end
  if shape and self.build then
    build(self, shape)
  elseif self.build then
    core.error(("%s: the input is %s; expected a tensor"):format(self.class_name, options.describe(x)))
  elseif shape then
    rawset(self, "built_for", shape)
  end
end

--- What stands for an input where only its shape is known: zeros, or the first id for what takes ids.
---@param shape table with the batch
---@return table tensor
function Module:stand_in(shape)
  local dtype = self:stand_in_dtype()
  return core.ops.full{ shape = shape, value = dtype and 1 or 0, dtype = dtype or "f32" }
end

--- The dtype of such an input, nil for f32.
---@return string|nil dtype
function Module:stand_in_dtype() return self.wants_dtype or rawget(self, "seen_dtype") end

--- Builds the parameters for inputs of a shape, without waiting for the first call.
---@param shape table|integer of one input, without the batch: {28, 28, 1}
---@return table self
function Module:build_for(shape)
  local full = { 1, table.unpack(type(shape) == "table" and shape or { shape }) }
  if self.build then
    build(self, full)
    if #tree.children(self) == 0 then return self end
  end
  local training = self.training
  self:eval()
  core.pause(core.no_grad, function() self:call(self:stand_in(full)) end)
  return self:train(training)
end

local watching -- penalties of results (activity_l1, activity_l2), while they are gathered
local watch
local observer

--- Has fn(module, inputs, output) called after every module's forward while body runs.
---@param fn function
---@param body function
function module.observe(fn, body)
  local before = observer
  local restore <close> = setmetatable({}, { __close = function() observer = before end }) -- luacheck: ignore 211
  observer = fn
  body()
end

--- Runs forward; net(x) is short for it. The first call of a layer builds its parameters for the shape it sees. Called on nodes (nn.input),
--- it gives nodes: see bp.nn.graph.
---@param ... any what forward takes
---@return any ... what forward returns
function Module:call(...)
  if self.forward == nil then
    core.error(("%s: it has no forward; write function %s:forward(x) ... end"):format(self.class_name, self.class_name))
  end
  local first, second = ...
  if (type(first) == "table" or type(second) == "table") and (graph.symbolic(first) or graph.symbolic(second)) then
    return graph.call(self, ...)
  end
  -- while a module runs, core knows its path ("Net/hidden"), so that errors can name it
  local _ <close> = core.where_push(self:own_name())
  if self.takes_tensor and not core.is_tensor((...)) then
    core.error(("%s: the input is %s; expected a tensor"):format(self.class_name, options.describe((...))))
  end
  if not rawget(self, "built_for") then first_call(self, (...)) end
  local own, with_lengths = rawget(self, "hooks"), sequence.lengths((...))
  local watched = watching and rawget(self, "watched")
  if not observer and not own and not with_lengths and not watched then return self:forward(...) end
  local result = table.pack(self:forward(...))
  if with_lengths then sequence.carry((...), result[1]) end
  if own then hooks.run(self, own, table.pack(...), result) end
  if watched then watch(self, result[1]) end
  if observer then observer(self, table.pack(...), result[1]) end
  return table.unpack(result, 1, result.n)
end

--- Has fn(layer, inputs, output) called after every forward of this layer; `inputs` is a list of what it was called with. A value that fn
--- returns takes the place of the output.
---
--- Inside a captured function (model:fit and bp.capture) hooks run while the step is recorded and not at its replays: what a hook computes
--- with tensors, say seen:copy_(output) into a tensor kept outside, is part of the step and repeated every time; print, counters and other
--- Lua are not, and values cannot be read. Adding or removing a hook has all captured steps recorded anew. Hooks are not saved.
---@param fn function
---@return table hook hook:remove() ends it; so does leaving the block of local hook <close>
function Module:on_forward(fn) return hooks.add(self, "forward", fn) end

--- Has fn(layer, gradient) called by every backward that passes this layer, with the gradient for its output (the first, if there are
--- several), once that is whole. A tensor that fn returns goes further back instead. Captured functions as in on_forward.
---@param fn function
---@return table hook hook:remove() ends it; so does leaving the block of local hook <close>
function Module:on_backward(fn) return hooks.add(self, "backward", fn) end

--- The name the module goes by inside its parent ("conv2d_1"), or that of its class.
---@return string name
---@private
function Module:own_name()
  return rawget(self, "given_name") or self.class_name
end

-- ---- parameters ----------------------------------------------------------------------------------------------------------------------

--- The parameters, each once, in the order of assignment. Fails while a layer has none yet because it was never called.
---@param filter table|nil { trainable = true }: only those whose gradient is wanted (default: all)
---@return table tensors a list
function Module:parameters(filter)
  tree.require_built(self)
  local list = {}
  for _, entry in ipairs(tree.parameters(self)) do
    if not (filter and filter.trainable) or entry.tensor.requires_grad then list[#list + 1] = entry.tensor end
  end
  return list
end

--- The parameters by name.
---@return function iterator gives name ("conv2d_1.kernel"), tensor
function Module:named_parameters()
  local list, i = tree.parameters(self), 0
  return function()
    i = i + 1
    if list[i] then return list[i].name, list[i].tensor end
  end
end

--- The tensors that belong to the state but are not trained (running statistics), by name.
---@return function iterator gives name, tensor
function Module:named_buffers()
  local list, i = tree.buffers(self), 0
  return function()
    i = i + 1
    if list[i] then return list[i].name, list[i].tensor end
  end
end

--- Makes a tensor part of the state without training it: it is saved and loaded with the parameters.
---@param name string the field it is assigned to
---@param tensor table
function Module:buffer(name, tensor)
  state_of(self).kinds[name] = "buffer"
  self[name] = tensor
end

--- Direct children: modules assigned to this one, or held in plain lists.
---@return function iterator gives name, module
function Module:children()
  local list, i = tree.children(self), 0
  return function()
    i = i + 1
    if list[i] then return list[i].name, list[i].module end
  end
end

--- This module and all below it, each once.
---@return function iterator gives path ("" for this one), module
function Module:modules()
  local list, i = tree.modules(self), 0
  return function()
    i = i + 1
    if list[i] then return list[i].path, list[i].module end
  end
end

--- Switches to training (dropout drops, batch norm uses the batch). New modules start in training; fit switches by itself.
---@param on boolean|nil false for the opposite (default true)
---@return table self
function Module:train(on)
  for _, entry in ipairs(tree.modules(self)) do rawset(entry.module, "training", on ~= false) end
  return self
end

--- Switches to inference: the opposite of train().
---@return table self
function Module:eval() return self:train(false) end

--- Stops the training of parameters.
---@param pattern string|nil names as in named_parameters, `*` standing for anything ("conv2d_*"); default all
---@return integer count how many parameters it names
function Module:freeze(pattern) return tree.set_trainable(self, pattern, false) end

--- Takes up the training of parameters again.
---@param pattern string|nil as in freeze
---@return integer count
function Module:unfreeze(pattern) return tree.set_trainable(self, pattern, true) end

--- Forgets the gradients gathered so far.
function Module:zero_grad()
  for _, entry in ipairs(tree.parameters(self)) do entry.tensor:zero_grad() end
end

--- Number of elements in all parameters.
---@return integer count
function Module:count()
  local n = 0
  for _, entry in ipairs(tree.parameters(self)) do n = n + entry.tensor:numel() end
  return n
end

--- Runs fn(...) and gives its first result, and what the layers' activity_l1 and activity_l2 options add to the loss, or nil.
---@param fn function|table
---@return any result
---@return table|nil penalty a 0-d tensor
function module.with_activity(fn, ...)
  local before = watching
  local restore <close> = setmetatable({}, { __close = function() watching = before end }) -- luacheck: ignore 211
  watching = {}
  local result, total = fn(...), nil
  for _, penalty in ipairs(watching) do total = total and total + penalty or penalty end
  return result, total
end

function watch(self, y)
  if core.is_tensor(y) then watching[#watching + 1] = require "bp.nn.layer".activity_penalty(self, y) end
end

--- What the layers' l1, l2, bias_l1 and bias_l2 options add to the loss: the sum over weights of l1*|w| + l2*w^2. Norms are left out.
---@return table|nil penalty a 0-d tensor, nil when no layer asks for any
function Module:penalty()
  local total
  for _, entry in ipairs(tree.modules(self)) do
    local own = entry.module.own_penalty and entry.module:own_penalty()
    if own then total = total and total + own or own end
  end
  return total
end

--- Applies the layers' max_norm options: scales weights that are too long down. fit does this after every step; so does a loop of one's own
--- that calls it.
function Module:constrain()
  for _, entry in ipairs(tree.modules(self)) do
    local one = entry.module
    local own = rawget(one, "options")
    if own and own.max_norm then core.no_grad(require "bp.nn.layer".constrain, one) end
  end
end

return module
