--- The state of an optimizer: tensors by name, the slots by parameter, so that blocks, which depend on what was frozen when, do not show.
---
---     step  lr.1                 number of steps; learning rate of the first group
---     2.5.m                      slot m of the fifth parameter of the second group, as many elements as the parameter
---     lr.1.seen                  what its schedule remembers, where it does
---     2.product                  a number that the second group keeps
---     batches  averaged          of accumulate and ema
---@internal
local core = require "bp.core"
local options = require "bp.options"

local state = {}

-- Calls visit(name, tensor) for the slots of every parameter that has any.
local function each_slot(self, visit)
  for g, group in ipairs(self.groups) do
    local place = {}
    for i, param in ipairs(group.params) do place[param] = i end
    for _, entry in ipairs(group.blocks) do
      local one = entry.block
      for name, slot in pairs(entry.slots) do
        for i, param in ipairs(one.params) do
          visit(("%d.%d.%s"):format(g, place[param], name), slot[{ { one.offsets[i], one.offsets[i] + param:numel() - 1 } }])
        end
      end
    end
  end
end

-- The tensors that belong to no parameter.
local function shared(self)
  local tensors = { step = self.count, batches = self.batches, averaged = self.averaged }
  for g, group in ipairs(self.groups) do
    tensors["lr." .. g] = group.rate
    local lr = group.options.lr
    if type(lr) == "table" and lr.memory then tensors["lr." .. g .. ".seen"] = lr.memory end
    for name, value in pairs(group.scalars) do tensors[g .. "." .. name] = value end
  end
  return tensors
end

--- Everything there is to keep.
---@param self table optimizer
---@return table tensors by name
function state.tensors(self)
  local tensors = shared(self)
  for name, tensor in pairs(self.asleep or {}) do tensors[name] = tensor end
  each_slot(self, function(name, slot) tensors[name] = slot end)
  if self.class.more_state then self.class.more_state(self, tensors) end
  return tensors
end

local function copy(mine, theirs)
  core.pause(core.no_grad, function() mine:copy_(theirs:reshape(table.unpack(mine:shape()))) end)
end

-- The slots that this optimizer keeps of a parameter.
local function own_names(self)
  local names = {}
  for _, group in ipairs(self.groups) do
    for _, slot in ipairs(self.class.slots(group.options)) do names[type(slot) == "table" and slot[1] or slot] = true end
  end
  if self.batches then names.gathered = true end
  if self.averaged then names.average = true end
  return names
end

-- A parameter whose slots a state lacks was frozen when it was saved; but a slot that no parameter has, or one that is not kept here,
-- makes it another optimizer's.
local function check_kind(self, tensors)
  local mine, theirs = own_names(self), {}
  for name in pairs(tensors) do
    local g, i, slot = name:match "^(%d+)%.(%d+)%.(.+)$"
    if slot then
      theirs[slot] = true
      local group = self.groups[tonumber(g)]
      if not (group and group.params[tonumber(i)]) then
        core.error(("%s: the state has '%s', but there are fewer parameters here; it comes from another model"):format(self.name, name))
      end
    end
  end
  for name in pairs(mine) do
    if not theirs[name] then
      core.error(("%s: the state has no '%s' of any parameter; it comes from another optimizer, or one with other options")
        :format(self.name, name))
    end
  end
  for name in pairs(theirs) do
    if not mine[name] then
      core.error(("%s: the state has a '%s' of each parameter, which is not kept here; it comes from another optimizer, or one with other "
        .. "options"):format(self.name, name))
    end
  end
end

--- Takes up a state; nothing is changed when it does not fit.
---@param self table optimizer, its parameters awake as far as they are trained
---@param tensors table by name
function state.load(self, tensors)
  if type(tensors) ~= "table" then
    core.error(("%s: the state is %s; expected the table that state() gave"):format(self.name, options.describe(tensors)))
  end
  check_kind(self, tensors)
  local awake, pairs_to_copy = {}, {}
  local function take(name, mine)
    local theirs = tensors[name]
    if theirs:numel() ~= mine:numel() then
      core.error(("%s: the state's '%s' has %d elements, this optimizer's %d; it comes from another model")
        :format(self.name, name, theirs:numel(), mine:numel()))
    end
    pairs_to_copy[#pairs_to_copy + 1] = { mine, theirs }
  end
  for name, mine in pairs(shared(self)) do
    if not tensors[name] then
      core.error(("%s: the state has no tensor '%s'; it comes from another optimizer"):format(self.name, name))
    end
    take(name, mine)
  end
  each_slot(self, function(name, slot)
    awake[name] = true
    if tensors[name] then take(name, slot) end
  end)
  if self.class.load_more then self.class.load_more(self, tensors) end
  for _, entry in ipairs(pairs_to_copy) do copy(entry[1], entry[2]) end
  self.asleep = {}
  for name, tensor in pairs(tensors) do
    if name:match "^%d+%.%d+%." and not awake[name] then
      self.asleep[name] = core.pause(core.no_grad, function() return tensor:clone() end)
    end
  end
end

--- The tensors that a step changes, as they are: parameters in their blocks, slots, counters, rates.
---@param self table optimizer
---@return table list
function state.live(self)
  local list = {}
  for _, tensor in pairs(shared(self)) do list[#list + 1] = tensor end
  for _, group in ipairs(self.groups) do
    for _, entry in ipairs(group.blocks) do
      list[#list + 1] = entry.block.data
      for _, slot in pairs(entry.slots) do list[#list + 1] = slot end
    end
  end
  return list
end

--- Gives parameters that just woke what a state loaded earlier said of them.
---@param self table optimizer
function state.awake(self)
  if not self.asleep or next(self.asleep) == nil then return end
  each_slot(self, function(name, slot)
    local kept = self.asleep[name]
    if kept then
      copy(slot, kept)
      self.asleep[name] = nil
    end
  end)
end

return state
