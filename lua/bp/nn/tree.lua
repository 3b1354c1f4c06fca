--- Walks over the tree of modules. Names follow assignment: field, field.index for lists. A module or tensor reached twice counts once,
--- under the first name.
---@internal
local core = require "bp.core"

local tree = {}

--- Whether a value is a module (not a class).
---@param value any
---@return boolean
function tree.is_module(value)
  local meta = type(value) == "table" and getmetatable(value)
  return type(meta) == "table" and rawget(meta, "bp_module") == true
end


-- Visits a value, or what a plain list of them holds.
local function look(visit, name, value, kind, depth)
  local list = type(value) == "table" and getmetatable(value) == nil and value[1] ~= nil
  if not list or depth == 4 then return visit(name, value, kind) end
  for i, item in ipairs(value) do
    local own = core.is_tensor(item) and item.requires_grad and "parameter" or nil
    look(visit, ("%s.%d"):format(name, i), item, own, depth + 1)
  end
end

-- Calls visit(name, value, kind) for what was assigned to a module, looking into plain lists. `kind` is "parameter", "buffer" or nil.
local function each_value(self, visit)
  local state = rawget(self, "state")
  for _, name in ipairs(state.order) do
    local value = state.values[name]
    if value ~= nil then look(visit, tostring(name), value, state.kinds[name], 0) end
  end
end

local function name_of(self, name, child)
  return self.child_name and self:child_name(child) or name
end

--- Direct children.
---@param self table a module
---@return table list of { name =, module = }
function tree.children(self)
  local list, seen = {}, {}
  each_value(self, function(name, value)
    if tree.is_module(value) and not seen[value] then
      seen[value] = true
      list[#list + 1] = { name = name_of(self, name, value), module = value }
    end
  end)
  return list
end

local function join(path, name)
  return path == "" and name or path .. "." .. name
end

--- The module and all below it, parents first.
---@param self table a module
---@return table list of { path =, module = }
function tree.modules(self)
  local list, seen = {}, {}
  local function walk(path, one)
    seen[one] = true
    list[#list + 1] = { path = path, module = one }
    each_value(one, function(name, value)
      if not tree.is_module(value) then return end
      if seen[value] and rawget(value, "given_name") then return end
      name = name_of(one, name, value)
      if not rawget(value, "given_name") then rawset(value, "given_name", name) end
      if not seen[value] then walk(join(path, name), value) end
    end)
  end
  walk("", self)
  return list
end

-- All tensors of one kind, as { name =, tensor =, module = }.
local function tensors(self, wanted)
  local list, seen = {}, {}
  for _, entry in ipairs(tree.modules(self)) do
    each_value(entry.module, function(name, value, kind)
      if kind == wanted and not seen[value] then
        seen[value] = true
        list[#list + 1] = { name = join(entry.path, name), tensor = value, module = entry.module }
      end
    end)
  end
  return list
end

--- All parameters, as { name =, tensor =, module = }.
---@param self table a module
---@return table list
function tree.parameters(self) return tensors(self, "parameter") end

--- All buffers, in the same form.
---@param self table a module
---@return table list
function tree.buffers(self) return tensors(self, "buffer") end

--- Raises unless every layer below has its parameters.
---@param self table a module
function tree.require_built(self)
  for _, entry in ipairs(tree.modules(self)) do
    local one = entry.module
    if one.build and not rawget(one, "built_for") then
      core.error(("%s: layer '%s' has no parameters yet, they come with the first input; call the model once, or "
        .. "model:build_for{shape of one input}")
        :format(self.class_name, entry.path == "" and one.class_name or entry.path))
    end
  end
end

--- "conv2d_*" as a test of whole names; a name also matches what lies below it.
---@param pattern string|nil default everything
---@return function matches name -> boolean
local function matcher(pattern)
  if not pattern then return function() return true end end
  local text = "^" .. pattern:gsub("[%^%$%(%)%%%.%[%]%+%-%?]", "%%%0"):gsub("%*", ".*")
  return function(name) return name:find(text .. "$") ~= nil or name:find(text .. "%.") ~= nil end
end

tree.matcher = matcher

--- Marks parameters as trained or not.
---@param self table a module
---@param pattern string|nil
---@param on boolean
---@return integer count
function tree.set_trainable(self, pattern, on)
  tree.require_built(self)
  local matches, count = matcher(pattern), 0
  for _, entry in ipairs(tree.parameters(self)) do
    if matches(entry.name) then
      entry.tensor:requires_grad_(on)
      count = count + 1
    end
  end
  if count == 0 and pattern then
    core.error(("%s: no parameter is called '%s'; model:summary() and named_parameters() show the names"):format(self.class_name, pattern))
  end
  require("bp.nn.module").touch()
  return count
end

return tree
