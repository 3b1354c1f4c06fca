--- What all optimizers share. The parameters of an optimizer lie in one block, their gradients in another, and each slot (momentum, ...) in
--- a third, so that a step is one op over each block, whatever the number of layers.
---
--- An optimizer is made with its parameters, optim.adam(net:parameters(), { lr = 1e-3 }), or without, optim.adam{ lr = 1e-3 }, for compile
--- to give it a model's. Groups of parameters with options of their own: optim.adam({ { params = a }, { params = b, lr = 1e-4 } }, { lr =
--- 1e-3 }).
---
--- step() does, in this order: take the learning rate from its schedule; with accumulate = k, add the gradient to the last ones and go on
--- only in every k-th call, with their mean; clip; update; with ema = d, move the averages of the weights.
local block = require "bp.optim.block"
local core = require "bp.core"
local capture = require "bp.capture"
local check_self = require "bp.methods"
local options = require "bp.options"
local schedule = require "bp.optim.schedule"
local state = require "bp.optim.state"

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
    { "accumulate", "int", min = 1, default = 1, named = true,
      help = "calls of step() that make one update, with the mean of their gradients; clear the gradient before each" },
    { "ema", "number", above = 0, below = 1, named = true,
      help = "keeps an exponential moving average of the weights with this decay, 0.999 say: fit evaluates with it and leaves it in the "
        .. "model; see swap_average (Keras' use_ema, ema_momentum)" },
  }
end

local Optimizer = {}
optimizer.Optimizer = Optimizer

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

-- A slot as a class names it, "m" or { "size", fill = number }, filled for a block.
local function make_slot(one, slot, o)
  local made = block.slot(one)
  local fill = type(slot) == "table" and slot.fill or 0
  if type(fill) == "function" then fill = fill(o) end
  if fill ~= 0 then core.pause(function() made:fill_(fill) end) end
  return made, type(slot) == "table" and slot[1] or slot
end

local function slots_of(self, group, one)
  local slots = {}
  for _, slot in ipairs(self.class.slots(group.options)) do
    local made, name = make_slot(one, slot, group.options)
    slots[name] = made
  end
  if self.options.accumulate > 1 then slots.gathered = block.slot(one) end
  if self.options.ema then
    slots.average = block.slot(one)
    core.pause(core.no_grad, function() slots.average:copy_(one.data) end)
  end
  return slots
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
      local one = block.of(by_dtype[dtype])
      group.blocks[#group.blocks + 1] = { block = one, slots = slots_of(self, group, one) }
      state.awake(self)
    end
  end
end

local function add_group(self, params, group_options)
  check_params(self, params)
  local lr, moving = group_options.lr, self.class.moving
  local group = { options = group_options, params = params, blocks = {}, dormant = params, scalars = {},
    rate = scalar(schedule.is_dynamic(lr) and rate_at(self, lr, 1) or lr, "f64") }
  group.now = self.options.accumulate > 1 and scalar(-1, "f64") or group.rate
  if moving and schedule.is_dynamic(group_options[moving]) then group.moved = scalar(0, "f64") end
  for name, value in pairs(self.class.scalars or {}) do group.scalars[name] = scalar(value, "f64") end
  self.groups[#self.groups + 1] = group
  wake(self, group)
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
---@param methods table { slots = function(o) -> names, update = function(w, g, slots, rate, step, o, group) }, and for some scalars =
--- numbers of a group by name, advance = function(scalars, rate, step, o) before an update, moving = the option that may be a schedule,
--- written = true when update is made of ops that know nothing of a negative rate
---@return function constructor
function optimizer.define(name, summary, lr, fields, methods)
  local all, own = {}, {}
  for _, field in ipairs(fields) do own[field[1]] = true end
  for _, field in ipairs(common(lr)) do
    if not own[field[1]] then all[#all + 1] = field end
  end
  table.move(fields, 1, #fields, #all + 1, all)
  local class = { name = name, spec = options.define(name, summary, all) }
  for key, value in pairs(methods) do class[key] = value end
  local meta = { __name = "optimizer " .. name, __index = Optimizer, __tostring = function() return name end }
  return function(first, second)
    local params, given = nil, first
    if second ~= nil or is_params(first) then params, given = first, second end
    if given ~= nil and not options.is_plain(given) then given = { given } end
    local self = setmetatable({ name = name, class = class, given = given or {}, options = class.spec:read(given), groups = {},
      seen = setmetatable({}, { __mode = "k" }), count = scalar(0, "i64") }, meta)
    if class.check then class.check(class.spec, self.options) end
    if self.options.accumulate > 1 then self.batches = scalar(0, "i64") end
    if self.options.ema then self.averaged = scalar(0, "i64") end
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

-- The number that a schedule or function gives for an option that lies in 0..1.
local function moved_at(self, name, fn, step)
  local value = fn(step)
  if type(value) ~= "number" or not (value >= 0 and value < 1) then
    core.error(("%s: the function for %s returned %s; expected a number at least 0 and below 1"):format(self.name, name,
      options.describe(value)))
  end
  return value
end

-- Writes the rate of the coming step; returns whether there is a schedule to follow. The same step gives the same rate however often this
-- runs.
local function follow_schedules(self)
  local dynamic = false
  for _, group in ipairs(self.groups) do
    local lr, moving = group.options.lr, self.class.moving
    if schedule.is_dynamic(lr) then
      dynamic = true
      core.pause(function() group.rate:fill_(rate_at(self, lr, self.count:item() + 1)) end)
    end
    if group.moved then
      dynamic = true
      core.pause(function() group.moved:fill_(moved_at(self, moving, group.options[moving], self.count:item() + 1)) end)
    end
  end
  return dynamic
end

-- What has to hold before every step, replayed or not.
local function check_weights(self)
  if self.averaged and self.averaged:item() ~= 0 then
    core.error(self.name .. ": the model holds the averages of its weights; take them out before step(): optimizer:swap_average(false)")
  end
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

-- With accumulate = k: the gradient becomes the mean of the last k in every k-th call; returns whether it does, as a number 0 or 1.
local function accumulate(self)
  local every = self.options.accumulate
  if every == 1 then return nil end
  ops.increment(self.batches)
  for one, slots, group in each_block(self) do
    ops.accumulate_step(one.grad, slots.gathered, group.rate, self.batches, group.now, { every = every })
  end
  return ops.cast(ops.eq(ops.mod(self.batches, every), 0), { dtype = "i64" })
end

-- An update made of ops that know nothing of a negative rate: done, and taken back unless it was due.
local function undone(due, data, cut, update)
  local before, yes = {}, ops.ne(due, 0)
  for name, slot in pairs(cut) do before[name] = slot:clone() end
  local old = data:clone()
  update()
  data:copy_(ops.where(yes, data, old))
  for name, slot in pairs(cut) do slot:copy_(ops.where(yes, slot, before[name])) end
end

local function update_blocks(self, due)
  local class = self.class
  for _, group in ipairs(self.groups) do
    if class.advance then class.advance(group.scalars, group.now, self.count, group.options) end
  end
  for one, slots, group in each_block(self) do
    local own = {}
    for name, slot in pairs(slots) do
      if name ~= "gathered" and name ~= "average" then own[name] = slot end
    end
    block.update(one, own, function(data, grad, cut)
      local function update() class.update(data, grad, cut, group.now, self.count, group.options, group) end
      if due and class.written then undone(due, data, cut, update) else update() end
    end)
    if slots.average then
      block.update(one, { average = slots.average }, function(data, _, cut)
        ops.average_step(cut.average, data, group.now, self.count, { decay = self.options.ema })
      end)
    end
  end
end

--- One step down the gradient that loss:backward() gathered. A parameter that no backward reached counts as having gradient zero; one that
--- is frozen stays as it is, and its slots too.
---@param closure function|nil for lbfgs: computes loss and gradient anew, and returns the loss
---@return number|nil loss that the function returned first
function Optimizer:step(closure)
  if #self.groups == 0 then core.error(self.name .. ": it has no parameters yet; make it with net:parameters(), or give it to compile") end
  if self.class.step then return self.class.step(self, closure, gather) end
  core.no_grad(function()
    gather(self)
    check_weights(self)
    if follow_schedules(self) or self.averaged then
      capture.before_replay(self, function()
        check_weights(self)
        follow_schedules(self)
      end)
    end
    local due = accumulate(self)
    clip(self)
    if due then self.count:add_(due) else ops.increment(self.count) end
    update_blocks(self, due)
  end)
end

--- Puts the averages of the weights that ema = d keeps in the place of the weights, or the weights back. Does nothing where that is already
--- so, or where no averages are kept. step() wants the weights.
---@param on boolean true: averages in; false: weights back
function Optimizer:swap_average(on)
  if not self.averaged or #self.groups == 0 or (self.averaged:item() ~= 0) == (on == true) then return end
  core.pause(core.no_grad, function()
    for one, slots in each_block(self) do
      if self.count:item() == 0 then slots.average:copy_(one.data) end
      local weights = one.data:clone()
      one.data:copy_(slots.average)
      slots.average:copy_(weights)
    end
    self.averaged:fill_(on and 1 or 0)
  end)
end

--- Runs fn with the averages of the weights in the model, and puts the weights back.
---@param fn function
---@param ... any handed to fn
---@return any ... what fn returns
function Optimizer:with_average(fn, ...)
  local before = self.averaged ~= nil and self.averaged:item() ~= 0
  local restore <close> = setmetatable({}, { __close = function() self:swap_average(before) end }) -- luacheck: ignore 211
  self:swap_average(true)
  return fn(...)
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

--- What has to be kept to go on later: tensors by name ("step", "lr.1", "2.5.m" for the slot m of the fifth parameter of the second group).
---@return table tensors
function Optimizer:state() return state.tensors(self) end

--- The tensors that a step changes, to be copied and put back.
---@return table list
function Optimizer:live() return state.live(self) end

--- Takes up a state that state() gave. Which parameters were frozen then and are now does not matter: what the state says of a parameter
--- that sleeps is kept until it is trained.
---@param tensors table
function Optimizer:load_state(tensors)
  for _, group in ipairs(self.groups) do wake(self, group) end
  state.load(self, tensors)
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
