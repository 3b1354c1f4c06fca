--- model:load_weights: takes the weights of a file into a model that need not be the one that wrote it, and tells what fitted.
local core = require "bp.core"
local options = require "bp.options"
local tree = require "bp.nn.tree"
local weights = require "bp.nn.weights"

local spec = options.define("load_weights", "Takes over the weights of a file by name.", {
  { "path", "string", required = true, help = "a file of model:save, callbacks.checkpoint, bp.save_tensors or another program" },
  { "strict", "boolean", default = true, named = true, help = "every tensor has to be in both, with the same shape" },
  { "pattern", "string", named = true, help = "takes only these of the model, `*` standing for anything: \"conv*\"" },
  { "rename", "function", named = true, help = "function (name in the file) -> name in the model, or nil to leave it out" },
})

local Report = { __name = "load_weights report" }
Report.__index = Report

local SHOWN = 8

local function listed(title, list)
  if #list == 0 then return "" end
  local more = #list > SHOWN and (" and %d more"):format(#list - SHOWN) or ""
  return ("\n  %s: %s%s"):format(title, table.concat(list, ", ", 1, math.min(SHOWN, #list)), more)
end

function Report:__tostring()
  return ("%d tensors loaded"):format(#self.loaded) .. listed("missing in the file", self.missing)
    .. listed("unexpected in the file", self.unexpected) .. listed("of another shape", self.mismatched)
end

local function shape(tensor) return "[" .. table.concat(tensor:shape(), "][") .. "]" end

-- The tensors of the file under the names that the model may know them by; what a checkpoint keeps besides weights begins with @.
local function renamed(tensors, rename)
  local list = {}
  for name, tensor in pairs(tensors) do
    local new = name
    if rename then new = rename(name) end
    if new and new:sub(1, 1) ~= "@" then list[new] = tensor end
  end
  return list
end

local function sorted(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return list
end

-- What goes where.
local function plan(self, o, theirs)
  local report = setmetatable({ loaded = {}, missing = {}, unexpected = {}, mismatched = {} }, Report)
  local wanted, todo, known = tree.matcher(o.pattern), {}, {}
  for _, entry in ipairs(weights.state(self)) do
    known[entry.name] = true
    local value = wanted(entry.name) and theirs[entry.name]
    if not wanted(entry.name) then
      known[entry.name] = true
    elseif not value then
      table.insert(report.missing, entry.name)
    elseif shape(value) ~= shape(entry.tensor) then
      table.insert(report.mismatched, ("%s %s here, %s there"):format(entry.name, shape(entry.tensor), shape(value)))
    else
      table.insert(report.loaded, entry.name)
      todo[#todo + 1] = { entry.tensor, value }
    end
  end
  for _, name in ipairs(sorted(theirs)) do
    if not known[name] then table.insert(report.unexpected, name) end
  end
  return report, todo
end

--- Takes over the weights of a file by name. With strict = false what fits is taken, and the report tells of the rest.
---@param self table a model whose layers have their parameters
---@param given string|table the path, or { path, strict = true, pattern =, rename = }
---@return table|nil report loaded, missing, unexpected, mismatched: lists of names; print shows it
---@return string|nil message when the file cannot be read, or is not strictly the model's: then nothing is changed
---@return string|nil code
return function(self, given, ...)
  local o = spec:read(given, ...)
  tree.require_built(self)
  local tensors, message, code = core.safetensors_load(o.path)
  if not tensors then return nil, message, code end
  local report, todo = plan(self, o, renamed(tensors, o.rename))
  if o.strict and #report.missing + #report.unexpected + #report.mismatched > 0 then
    return nil, ("%s does not fit the model; strict = false takes what fits: %s"):format(o.path, tostring(report)), "eformat"
  end
  core.pause(core.no_grad, function()
    for _, pair in ipairs(todo) do pair[1]:copy_(pair[2]) end
  end)
  return report
end
