--- rl.replay: the last so many steps, in memory of fixed size, drawn from at random. Drawing works inside bp.capture: how many steps there
--- are is a tensor, so a captured training step goes on drawing from what was added after it was recorded.
local capture = require "bp.capture"
local check_self = require "bp.methods"
local core = require "bp.core"
local json = require "bp.json"
local options = require "bp.options"
local policy = require "bp.rl.policy"

local ops = core.ops
local replay = {}

local spec = options.define("rl.replay", "A replay buffer: a ring of steps.", {
  { "capacity", "int", min = 1, required = true, help = "how many steps it holds; the oldest make room for new ones" },
  { "fields", "table", required = true, named = true,
    help = "what a step consists of: name = shape, as in { observation = {4}, action = { dtype = \"i64\" }, reward = {} }" },
  { "priority", "number", min = 0, max = 1, default = 0, named = true,
    help = "exponent of the priorities: 0 draws all steps alike, 1 in proportion to their priority (Schaul and others use 0.6)" },
  policy.stream_field,
})
local sample_spec = options.define("replay:sample", "Draws steps, with repetition.", {
  { "size", "int", min = 1, required = true, help = "how many" },
  { "beta", "number|tensor", default = 0.4, named = true,
    help = "with priorities: how far the weights undo the unequal chances, 0 not at all, 1 wholly; a tensor can change under capture" },
})

local KEY, PRIORITY, PLACE = "bplua.replay", "replay.priority", "replay.place"
local LEAST_PRIORITY = 1e-6 -- so that no step is out of reach

local Replay = {}
local meta = { __index = Replay, __name = "rl.replay", __len = function(self) return self.count end,
  __tostring = function(self) return ("rl.replay: %d of %d steps"):format(self.count, self.capacity) end }

-- Tensors that outlive scopes and belong to no capture.
local function new_tensor(shape, dtype) return core.pause(ops.full, { shape = shape, value = 0, dtype = dtype }) end

-- { 4, dtype = "u8" } -> {4}, "u8"
local function field_of(name, given)
  if not options.is_plain(given) then
    spec:fail("field '%s' is %s; expected its shape, a list of sizes with an optional dtype: { 4, dtype = \"f32\" }", name,
      options.describe(given))
  end
  local shape = {}
  for i, size in ipairs(given) do
    if not math.tointeger(size) or size < 1 then
      spec:fail("field '%s': size %d is %s; expected a whole number at least 1", name, i, options.describe(size))
    end
    shape[i] = math.tointeger(size)
  end
  for key in pairs(given) do
    if not math.tointeger(key) and key ~= "dtype" then spec:fail("field '%s': unknown entry '%s'; expected sizes and dtype", name, key) end
  end
  return shape, given.dtype or "f32"
end

local function make_fields(self, fields)
  for name in pairs(fields) do
    if type(name) ~= "string" then spec:fail("option 'fields' is a list; expected { name = shape, ... }") end
    if name == "index" or name == "weight" then spec:fail("a field cannot be called '%s': sample gives that itself", name) end
    self.names[#self.names + 1] = name
  end
  if #self.names == 0 then spec:fail("option 'fields' is empty; expected { name = shape, ... }") end
  table.sort(self.names)
  for _, name in ipairs(self.names) do
    local shape, dtype = field_of(name, fields[name])
    self.shapes[name] = shape
    self.data[name] = new_tensor({ self.capacity, table.unpack(shape) }, dtype)
  end
end

--- A replay buffer.
---
---     local buffer = rl.replay{ 10000, fields = { observation = {4}, action = { dtype = "i64" }, reward = {}, done = {} } }
---     buffer:add{ observation = o, action = a, reward = r, done = false }
---     local batch = buffer:sample(64)       --> batch.observation [64][4], batch.action [64], ..., batch.index
---
--- With priority above 0 the batch has `weight` too, and buffer:set_priorities(batch.index, errors) says how much each step still has to
--- teach; new steps get the highest priority met. Schaul and others, "Prioritized Experience Replay", 2016 (proportional form).
---@param given table { capacity, fields = { name = {sizes, dtype = "f32"} }, priority = 0, stream = "noise" }
---@return table replay #replay is the number of steps in it
function replay.replay(given, ...)
  local o = spec:read(given, ...)
  local self = setmetatable({ capacity = o.capacity, exponent = o.priority, names = {}, shapes = {}, data = {}, count = 0, position = 0,
    stream = policy.stream(spec, o.stream), size = new_tensor({}, "f64") }, meta)
  make_fields(self, o.fields)
  if o.priority > 0 then
    self.priority, self.peak = new_tensor({ o.capacity }, "f64"), new_tensor({}, "f64")
    self.peak:fill_(1)
  end
  return self
end

-- ---- adding --------------------------------------------------------------------------------------------------------------------------

local function check_record(self, who, record)
  if capture.active() then
    core.error(who .. ": called inside a captured function, which would write the same place at every replay; add outside of it")
  end
  if not options.is_plain(record) then
    core.error(("%s: the step is %s; expected { %s = ... }"):format(who, options.describe(record), table.concat(self.names, " =, ")))
  end
  for key in pairs(record) do
    if not self.data[key] then core.error(("%s: unknown field '%s'%s"):format(who, tostring(key), options.hint(key, self.names))) end
  end
  for _, name in ipairs(self.names) do
    if record[name] == nil then core.error(("%s: the field '%s' is missing"):format(who, name)) end
  end
end

local function expect(who, name, found, expected)
  local a, b = policy.shape_text(found), policy.shape_text(expected)
  if a ~= b then core.error(("%s: the field '%s' is %s; expected %s"):format(who, name, a, b)) end
end

-- A value as a tensor of a field's dtype.
local function value_of(self, who, name, value)
  if core.is_tensor(value) then return value:detach() end
  if type(value) == "boolean" then value = value and 1 or 0 end
  if type(value) ~= "number" and not options.is_plain(value) then
    core.error(("%s: the field '%s' is %s; expected a number, a list or a tensor"):format(who, name, options.describe(value)))
  end
  return core.tensor(value, { dtype = self.data[name].dtype })
end

-- After n steps went in at the positions from `first` on.
local function advance(self, n)
  self.position = (self.position + n) % self.capacity
  self.count = math.min(self.count + n, self.capacity)
  self.size:fill_(self.count)
end

--- Takes in one step.
---@param step table a value for every field: number, boolean, list or tensor
function Replay:add(step)
  check_record(self, "replay:add", step)
  core.no_grad(core.scope, function()
    local values = {}
    for _, name in ipairs(self.names) do
      values[name] = value_of(self, "replay:add", name, step[name])
      expect("replay:add", name, values[name]:shape(), self.shapes[name])
    end
    local place = self.position + 1
    for _, name in ipairs(self.names) do self.data[name][place] = values[name] end
    if self.priority then self.priority[place] = self.peak end
    advance(self, 1)
  end)
end

--- Takes in many steps at once, oldest first.
---@param steps table a tensor (or list) for every field, steps along the first dimension
function Replay:add_batch(steps)
  check_record(self, "replay:add_batch", steps)
  core.no_grad(core.scope, function()
    local values, n = {}, nil
    for _, name in ipairs(self.names) do
      local value = value_of(self, "replay:add_batch", name, steps[name])
      if value.ndim == 0 then core.error(("replay:add_batch: the field '%s' is one number; expected [steps]..."):format(name)) end
      n = n or value:size(1)
      expect("replay:add_batch", name, value:shape(), { n, table.unpack(self.shapes[name]) })
      values[name] = value
    end
    local skip = math.max(0, n - self.capacity) -- what would be overwritten at once
    local done = skip
    self.position = (self.position + skip) % self.capacity
    while done < n do
      local part = math.min(n - done, self.capacity - self.position)
      local place = { { self.position + 1, self.position + part } }
      for _, name in ipairs(self.names) do self.data[name][place] = values[name][{ { done + 1, done + part } }] end
      if self.priority then self.priority[place] = self.peak end
      advance(self, part)
      done = done + part
    end
  end)
end

-- ---- drawing -------------------------------------------------------------------------------------------------------------------------

-- Positions from 1, each as likely as the other.
local function uniform(self, n)
  local u = ops.random_uniform(self.stream, { shape = { n }, dtype = "f64" })
  return ops.cast(ops.floor(u * self.size), { dtype = "i64" }) + 1
end

-- Positions in proportion to the priorities: one draw out of each n-th of their sum, found in the running sums by halving.
local function proportional(self, n)
  local sums = ops.cumsum(self.priority, { axis = 1 })
  local whole = ops.select(sums, { axis = 1, index = self.capacity })
  local u = ops.random_uniform(self.stream, { shape = { n }, dtype = "f64" })
  local target = (ops.arange{ start = 0, stop = n, step = 1, dtype = "f64" } + u) * (whole / n)
  local below = ops.full{ shape = { n }, value = 0, dtype = "i64" } -- how many running sums are at most the target
  local step = 1
  while step * 2 <= self.capacity do step = step * 2 end
  while step >= 1 do
    local probe = below + step
    local fits = ops.logical_and(ops.le(probe, self.capacity),
      ops.le(ops.take(sums, ops.minimum(probe, self.capacity), { axis = 1 }), target))
    below = ops.where(fits, probe, below)
    step = step // 2
  end
  local index = ops.minimum(below + 1, ops.cast(self.size, { dtype = "i64" }))
  return index, ops.take(self.priority, index, { axis = 1 }) / whole
end

--- Draws steps, with repetition.
---@param given any how many, or { size, beta = 0.4 }
---@return table batch a tensor for every field, `index` (i64, positions from 1), and with priorities `weight` (largest 1)
function Replay:sample(given, ...)
  local o = sample_spec:read(given, ...)
  if self.count == 0 then core.error "replay:sample: there is nothing in it yet; add steps first" end
  return core.no_grad(function()
    local batch = {}
    if self.priority then
      local chance
      batch.index, chance = proportional(self, o.size)
      local weight = ops.pow(chance * self.size, type(o.beta) == "number" and -o.beta or ops.neg(o.beta))
      batch.weight = ops.cast(weight / ops.max(weight), { dtype = "f32" })
    else
      batch.index = uniform(self, o.size)
    end
    for _, name in ipairs(self.names) do batch[name] = ops.take(self.data[name], batch.index, { axis = 1 }) end
    return batch
  end)
end

--- Says how much steps still have to teach, mostly the size of their error. Works inside bp.capture. A position that comes twice gets the
--- mean.
---@param index tensor i64 [n], the `index` of a batch
---@param priorities tensor [n], at least 0; signs are dropped
function Replay:set_priorities(index, priorities)
  if not self.priority then core.error "replay:set_priorities: the buffer has no priorities; make it with priority = 0.6" end
  for name, t in pairs{ index = index or false, priorities = priorities or false } do
    if not core.is_tensor(t) then
      core.error(("replay:set_priorities: %s is %s; expected a tensor"):format(name, options.describe(t)))
    end
  end
  expect("replay:set_priorities", "priorities", priorities:shape(), index:shape())
  core.no_grad(function()
    local new = ops.pow(ops.abs(ops.cast(priorities:detach(), { dtype = "f64" })) + LEAST_PRIORITY, self.exponent)
    local place = { axis = 1, size = self.capacity }
    local one = ops.full{ shape = new:shape(), value = 1, dtype = "f64" }
    local sum, times = ops.take_grad(new, index, place), ops.take_grad(one, index, place)
    self.priority:copy_(ops.where(ops.gt(times, 0), sum / ops.maximum(times, 1), self.priority))
    self.peak:copy_(ops.maximum(self.peak, ops.max(new)))
  end)
end

-- ---- saving --------------------------------------------------------------------------------------------------------------------------

--- What has to be kept to go on later: tensors by name.
---@return table tensors
function Replay:state()
  local tensors = { [PLACE] = core.tensor({ self.count, self.position }, { dtype = "i64" }) }
  for _, name in ipairs(self.names) do tensors[name] = self.data[name] end
  if self.priority then tensors[PRIORITY], tensors[PRIORITY .. ".peak"] = self.priority, self.peak end
  return tensors
end

--- Takes up a state that state() gave, of a buffer with the same fields and capacity.
---@param tensors table
function Replay:load_state(tensors)
  local mine = self:state()
  for name, t in pairs(mine) do
    local theirs = tensors[name]
    if not core.is_tensor(theirs) then
      core.error(("replay:load_state: the state has no tensor '%s'; it comes from another buffer"):format(name))
    end
    expect("replay:load_state", name, theirs:shape(), t:shape())
    if theirs.dtype ~= t.dtype then
      core.error(("replay:load_state: '%s' is %s; this buffer has %s"):format(name, theirs.dtype, t.dtype))
    end
  end
  local place = tensors[PLACE]:totable()
  if place[1] < 0 or place[1] > self.capacity or place[2] < 0 or place[2] >= self.capacity then
    core.error(("replay:load_state: %d steps at position %d do not lie in a ring of %d"):format(place[1], place[2], self.capacity))
  end
  core.pause(core.no_grad, function()
    for name, t in pairs(mine) do
      if name ~= PLACE then t:copy_(tensors[name]) end
    end
    self.count, self.position = place[1], place[2]
    self.size:fill_(self.count)
  end)
end

--- Writes the buffer into a safetensors file; an old file is replaced only when the new one is whole.
---@param path string
---@return boolean|nil ok
---@return string|nil message
---@return string|nil code
function Replay:save(path)
  if type(path) ~= "string" then core.error("replay:save: the path is " .. options.describe(path) .. "; expected a string") end
  return core.safetensors_save(path, self:state(), { [KEY] = json.encode{ format = 1, capacity = self.capacity } })
end

--- Reads what save wrote into this buffer, which has to have the same fields and capacity.
---@param path string
---@return boolean|nil ok
---@return string|nil message
---@return string|nil code
function Replay:load(path)
  if type(path) ~= "string" then core.error("replay:load: the path is " .. options.describe(path) .. "; expected a string") end
  local tensors, metadata, code = core.safetensors_load(path)
  if not tensors then return nil, metadata, code end
  if not metadata[KEY] then return nil, path .. ": it holds tensors but no replay buffer", "eformat" end
  local ok, message = pcall(self.load_state, self, tensors)
  if not ok then return nil, ("%s: %s"):format(path, tostring(message):gsub("^[^\n]-:%d+: ", "")), "eformat" end
  return true
end

check_self(Replay, "replay", function(value) return getmetatable(value) == meta end)

return replay
