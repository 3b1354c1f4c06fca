--- model:summary(): the layers with the shapes they give and their parameters. A layer used in several places is listed once.
local core = require "bp.core"
local module = require "bp.nn.module"
local options = require "bp.options"
local tree = require "bp.nn.tree"

local function with_commas(n)
  local text = tostring(n):reverse():gsub("(%d%d%d)", "%1,"):reverse()
  return (text:gsub("^,", ""))
end

-- Own parameters of each module: count, and how many of them are trained.
local function counts(self)
  local own, total, trained, fixed = {}, 0, 0, 0
  for _, entry in ipairs(tree.parameters(self)) do
    local n = entry.tensor:numel()
    own[entry.module] = (own[entry.module] or 0) + n
    total, trained = total + n, trained + (entry.tensor.requires_grad and n or 0)
  end
  for _, entry in ipairs(tree.buffers(self)) do
    local n = entry.tensor:numel()
    own[entry.module] = (own[entry.module] or 0) + n
    fixed = fixed + n
  end
  return own, total, trained, fixed
end

local function text_of(shape)
  local parts = { "?" }
  for i = 2, #shape do parts[i] = tostring(shape[i]) end
  return "[" .. table.concat(parts, "][") .. "]"
end

-- Output shape of every module, by running zeros of that shape through the model.
local function output_shapes(self, shape)
  local shapes = {}
  local training = self.training
  self:eval()
  local restore <close> = setmetatable({}, { __close = function() self:train(training) end }) -- luacheck: ignore 211
  core.pause(core.no_grad, function()
    core.scope(function()
      module.observe(function(one, _, output)
        if core.is_tensor(output) and not shapes[one] then shapes[one] = text_of(output:shape()) end
      end, function() self(core.ops.full{ shape = shape, value = 0 }) end)
    end)
  end)
  return shapes
end

local function table_text(rows)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, #cell) end
  end
  local lines = {}
  for i, row in ipairs(rows) do
    lines[#lines + 1] = ("%-" .. widths[1] .. "s  %-" .. widths[2] .. "s  %-" .. widths[3] .. "s  %" .. widths[4] .. "s")
      :format(table.unpack(row))
    if i == 1 then lines[#lines + 1] = ("-"):rep(widths[1] + widths[2] + widths[3] + widths[4] + 6) end
  end
  return lines
end

--- The layers with output shapes and parameter counts, as text.
---@param self table
---@param shape table|nil shape of one input without the batch ({28, 28, 1}); not needed once the model was called
---@return string text
local function summary(self, shape)
  local full
  if shape ~= nil then
    if not options.is_plain(shape) then
      core.error("summary: the shape is " .. options.describe(shape) .. "; expected a list: model:summary{28, 28, 1}")
    end
    full = { 1, table.unpack(shape) }
  elseif rawget(self, "built_for") then
    full = { 1, table.unpack(rawget(self, "built_for"), 2) }
  else
    core.error(self.class_name .. ": summary needs the shape of one input before the first call: model:summary{28, 28, 1}")
  end
  local shapes = output_shapes(self, full)
  local own, total, trained, fixed = counts(self)
  local rows = { { "layer", "kind", "output", "parameters" } }
  for _, entry in ipairs(tree.modules(self)) do
    local is_container = next(tree.children(entry.module)) ~= nil
    if not is_container or own[entry.module] then
      rows[#rows + 1] = { entry.path == "" and "(model)" or entry.path, entry.module.class_name, shapes[entry.module] or "-",
        with_commas(own[entry.module] or 0) }
    end
  end
  local lines = table_text(rows)
  lines[#lines + 1] = lines[2]
  lines[#lines + 1] = ("parameters: %s, trained: %s%s"):format(with_commas(total), with_commas(trained),
    fixed > 0 and (", running statistics: " .. with_commas(fixed)) or "")
  return table.concat(lines, "\n") .. "\n"
end

return summary
