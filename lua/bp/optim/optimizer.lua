--- What all optimizers share. The parameters of an optimizer lie in one block, their gradients in another, and each slot (momentum, ...) in
--- a third, so that a step is one op over each block, whatever the number of layers.
---
--- An optimizer is made with its parameters, optim.adam(net:parameters(), { lr = 1e-3 }), or without, optim.adam{ lr = 1e-3 }, for compile
--- to give it a model's. Groups of parameters with options of their own: optim.adam({ { params = a }, { params = b, lr = 1e-4 } }, { lr =
--- 1e-3 }).
local block = require "bp.optim.block"
local core = require "bp.core"
local capture = require "bp.capture"
local check_self = require "bp.methods"
local options = require "bp.options"
local schedule = require "bp.optim.schedule"

local ops = core.ops
local optimizer = {}

-- Options of every optimizer.
local function common(lr)
  return {
    { "lr", "number|function", alias = "learning_rate", default = lr, min = 0,
      help = "learning rate: a number, a schedule of optim.schedule, or a function (step) -> number" },
    { "weight_decay", "number", min = 0, default = 0,
      named = true, help = "adds weight_decay * w to the gradient (PyTorch's; Keras' l2 is half of it)" },
    { "clip_norm", "number", above = 0, named = true, help = "scales all gradients down together to at most this norm" },
    { "clip_value", "number", above = 0, named = true, help = "cuts each gradient off at plus and minus this" },
  }
end

local Optimizer = {}

local function is_optimizer(value)
  local meta = type(value) == "table" and getmetatable(value)
  return type(meta) == "table" and rawget(meta, "__index") == Optimizer
end

-- ---- making --------------------------------------------------------------------------------------------------------------------------

local function is_params(value)
  return type(value) == "table" and getmetatable(value) == nil
    and (core.is_tensor(value[1]) or options.is_plain(value[1]) and value[1].params ~= nil)
end

local function check_params(self, params)
  if #params == 0 then core.error(self.name .. ": no parameters; expected the list that net:parameters() gives") end
  for i, param in ipairs(params) do
    if not core.is_tensor(param) then
      core.error(("%s: parameter %d is %s; expected a tensor"):format(self.name, i, options.describe(param)))
    end
    if self.seen[param] then core.error(("%s: parameter %d is the same tensor as an earlier one"):format(self.name, i)) end
    self.seen[param] = true
  end
end

local function scalar(value, dtype)
  return core.pause(core.tensor, { value }, { dtype = dtype })
end

-- The rate that a schedule or function gives for a step.
local function rate_at(self, lr, step)
  local rate = lr(step)
  if type(rate) ~= "number" or rate ~= rate or rate < 0 then
    core.error(("%s: the learning rate function returned %s; expected a number at least 0"):format(self.name, options.describe(rate)))
  end
  return rate
end

-- Takes in the parameters of a group that are trained and were not before: a block for each dtype among them.
local function wake(self, group)
  local by_dtype, dormant = {}, {}
  for _, param in ipairs(group.dormant) do
    local list = dormant
    if param.requires_grad then
      list = by_dtype[param.dtype] or {}
      by_dtype[param.dtype] = list
    end
    list[#list + 1] = param
  end
  group.dormant = dormant
  for _, dtype in ipairs{ "f32", "f64" } do
    if by_dtype[dtype] then
      local one, slots = block.of(by_dtype[dtype]), {}
      for _, name in ipairs(self.class.slots(group.options)) do slots[name] = block.slot(one) end
      group.blocks[#group.blocks + 1] = { block = one, slots = slots }
    end
  end
end

local function add_group(self, params, group_options)
  check_params(self, params)
  local lr = group_options.lr
  local group = { options = group_options, params = params, blocks = {}, dormant = params,
    rate = scalar(schedule.is_dynamic(lr) and rate_at(self, lr, 1) or lr, "f64") }
  wake(self, group)
  self.groups[#self.groups + 1] = group
end

--- Gives the optimizer its parameters; for optimizers made without.
---@param params table list of tensors, or of groups { params =, lr =, ... }
---@return table self
function Optimizer:bind(params)
  if #self.groups > 0 then core.error(self.name .. ": it already has parameters") end
  if options.is_plain(params[1]) and params[1].params then
    for _, group in ipairs(params) do
      local given = {}
      for key, value in pairs(self.given) do given[key] = value end
      for key, value in pairs(group) do
        if key ~= "params" then given[key] = value end
      end
      add_group(self, group.params, self.class.spec:read(given))
    end
  else
    add_group(self, params, self.options)
  end
  return self
end

--- Defines an optimizer.
---@param name string
---@param summary string
---@param lr number default learning rate
---@param fields table[] options beside the common ones; one that names a common option replaces it
---@param methods table { slots = function(o) -> names, update = function(w, g, slots, rate, step, o) }
---@return function constructor
function optimizer.define(name, summary, lr, fields, methods)
  local all, own = {}, {}
  for _, field in ipairs(fields) do own[field[1]] = true end
  for _, field in ipairs(common(lr)) do
    if not own[field[1]] then all[#all + 1] = field end
  end
  table.move(fields, 1, #fields, #all + 1, all)
  local class = { name = name, spec = options.define(name, summary, all), slots = methods.slots, update = methods.update }
  local meta = { __name = "optimizer " .. name, __index = Optimizer, __tostring = function() return name end }
  return function(first, second)
    local params, given = nil, first
    if second ~= nil or is_params(first) then params, given = first, second end
    if given ~= nil and not options.is_plain(given) then given = { given } end
    local self = setmetatable({ name = name, class = class, given = given or {}, options = class.spec:read(given), groups = {},
      seen = setmetatable({}, { __mode = "k" }), count = scalar(0, "i64") }, meta)
    if params ~= nil then
      if not options.is_plain(params) then
        class.spec:fail("the parameters are %s; expected a list of tensors", options.describe(params))
      end
      self:bind(params)
    end
    return self
  end
end

-- ---- a step --------------------------------------------------------------------------------------------------------------------------

local function each_block(self)
  local g, b = 1, 0
  return function()
    while self.groups[g] do
      b = b + 1
      local entry = self.groups[g].blocks[b]
      if entry then return entry.block, entry.slots, self.groups[g] end
      g, b = g + 1, 0
    end
  end
end

-- Writes the rate of the coming step; returns whether there is a schedule to follow. The same step gives the same rate however often this
-- runs.
local function follow_schedules(self)
  local dynamic = false
  for _, group in ipairs(self.groups) do
    local lr = group.options.lr
    if schedule.is_dynamic(lr) then
      dynamic = true
      core.pause(function()
        group.rate:fill_(rate_at(self, lr, self.count:item() + 1))
      end)
    end
  end
  return dynamic
end

--- Forgets the gradients gathered so far.
function Optimizer:zero_grad()
  for _, group in ipairs(self.groups) do wake(self, group) end
  for one in each_block(self) do core.zero_grads(one.params) end
end

-- Makes the blocks of gradients readable.
local function gather(self)
  local reached = 0
  for _, group in ipairs(self.groups) do wake(self, group) end
  for one in each_block(self) do
    if one.stale then
      core.error(("%s: its parameters were taken over by an optimizer made later; make one optimizer for each set of parameters")
        :format(self.name))
    end
    reached = reached + core.gather_grads(one.params, one.grad)
  end
  if reached == 0 then core.error(self.name .. ": no parameter has a gradient; call loss:backward() before step()") end
end

-- Cuts or scales the gradients as clip_value and clip_norm say; the norm is over all parameters together.
local function clip(self)
  local grads = {}
  for one in each_block(self) do grads[#grads + 1] = one.grad end
  local o = self.options
  if o.clip_value then
    for _, grad in ipairs(grads) do grad:clamp_{ min = -o.clip_value, max = o.clip_value } end
  end
  if o.clip_norm then
    grads[#grads + 1] = { max_norm = o.clip_norm }
    ops.clip_norm(table.unpack(grads))
  end
end

--- One step down the gradient that loss:backward() gathered. A parameter that no backward reached counts as having gradient zero; one that
--- is frozen stays as it is, and its slots too.
function Optimizer:step()
  if #self.groups == 0 then core.error(self.name .. ": it has no parameters yet; make it with net:parameters(), or give it to compile") end
  core.no_grad(function()
    gather(self)
    if follow_schedules(self) then capture.before_replay(self, function() follow_schedules(self) end) end
    clip(self)
    ops.increment(self.count)
    for one, slots, group in each_block(self) do
      block.update(one, slots, function(data, grad, cut)
        self.class.update(data, grad, cut, group.rate, self.count, group.options)
      end)
    end
  end)
end

-- ---- learning rate and state ---------------------------------------------------------------------------------------------------------

--- The learning rate of the last step, or of the first when there was none yet.
---@param group integer|nil which group of parameters (default 1)
---@return number rate
function Optimizer:get_lr(group)
  local one = self.groups[group or 1]
  if one then return one.rate:item() end
  local lr = self.options.lr
  return schedule.is_dynamic(lr) and lr(1) or lr
end

--- Sets the learning rate, also of a captured step. Fails for a rate that follows a schedule.
---@param rate number
---@param group integer|nil which group (default all)
function Optimizer:set_lr(rate, group)
  if type(rate) ~= "number" or rate ~= rate or rate < 0 then
    core.error(("%s: the learning rate is %s; expected a number at least 0"):format(self.name, options.describe(rate)))
  end
  if schedule.is_dynamic(self.options.lr) then
    core.error(self.name .. ": its learning rate follows a schedule, which would overwrite this; make it with a number")
  end
  if #self.groups == 0 then self.options.lr = rate end
  for i, one in ipairs(self.groups) do
    if group == nil or group == i then
      one.options.lr = rate
      core.pause(function() one.rate:fill_(rate) end)
    end
  end
end

--- Number of steps done.
---@return integer count
function Optimizer:steps() return math.tointeger(self.count:item()) end

-- The slots of each parameter: calls visit(name, tensor) with "2.5.m" for slot m of the fifth parameter of the second group. Slots that
-- hold something else than a number for each element belong to the block: "2.block1.m".
local function each_slot(self, visit)
  for g, group in ipairs(self.groups) do
    local place = {}
    for i, param in ipairs(group.params) do place[param] = i end
    for b, entry in ipairs(group.blocks) do
      local one = entry.block
      for name, slot in pairs(entry.slots) do
        local whole = slot:numel() ~= one.data:numel()
        if whole then visit(("%d.block%d.%s"):format(g, b, name), slot) end
        for i, param in ipairs(whole and {} or one.params) do
          visit(("%d.%d.%s"):format(g, place[param], name), slot[{ { one.offsets[i], one.offsets[i] + param:numel() - 1 } }])
        end
      end
    end
  end
end

--- What has to be kept to go on later: tensors by name ("step", "lr.1", "2.5.m" for the slot m of the fifth parameter of the second group).
---@return table tensors
function Optimizer:state()
  local tensors = { step = self.count }
  for g, group in ipairs(self.groups) do tensors["lr." .. g] = group.rate end
  each_slot(self, function(name, slot) tensors[name] = slot end)
  return tensors
end

--- Takes up a state that state() gave.
---@param tensors table
function Optimizer:load_state(tensors)
  for _, group in ipairs(self.groups) do wake(self, group) end
  for name, mine in pairs(self:state()) do
    local theirs = tensors[name]
    if not theirs then core.error(("%s: the state has no tensor '%s'; it comes from another optimizer"):format(self.name, name)) end
    if theirs:numel() ~= mine:numel() then
      core.error(("%s: the state's '%s' has %d elements, this optimizer's %d; it comes from another model")
        :format(self.name, name, theirs:numel(), mine:numel()))
    end
    core.pause(core.no_grad, function() mine:copy_(theirs) end)
  end
  for _, group in ipairs(self.groups) do
    if not schedule.is_dynamic(group.options.lr) then group.options.lr = group.rate:item() end
  end
end

--- What it was made with, as plain data, for saving.
---@return table config { name, options }
function Optimizer:config()
  local plain = {}
  for key, value in pairs(self.options) do
    local kind = type(value)
    if kind == "number" or kind == "boolean" or kind == "string" then plain[key] = value end
    if kind == "table" and value.config then plain[key] = value:config() end
  end
  return { name = self.name, options = plain }
end

check_self(Optimizer, "optimizer", is_optimizer)

return optimizer
