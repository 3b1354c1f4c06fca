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

-- The shapes of a tensor, or of the tensors in a table.
local function output_text(output)
  if core.is_tensor(output) then return text_of(output:shape()) end
  if not options.is_plain(output) then return nil end
  local keys, parts = {}, {}
  for key in pairs(output) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for i, key in ipairs(keys) do parts[i] = output_text(output[key]) or "-" end
  return table.concat(parts, ", ")
end

-- Output shape of every module, by running zeros of that shape through the model.
local function output_shapes(self, inputs)
  local shapes = {}
  local training = self.training
  self:eval()
  local restore <close> = setmetatable({}, { __close = function() self:train(training) end }) -- luacheck: ignore 211
  core.pause(core.no_grad, function()
    core.scope(function()
      module.observe(function(one, _, output)
        if not shapes[one] then shapes[one] = output_text(output) end
      end, function() self(table.unpack(inputs())) end)
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
    local cells, total = {}, -2
    for c, cell in ipairs(row) do
      cells[c] = ("%" .. (c == 4 and "" or "-") .. widths[c] .. "s"):format(cell)
      total = total + widths[c] + 2
    end
    lines[#lines + 1] = (table.concat(cells, "  "):gsub("%s+$", ""))
    if i == 1 then lines[#lines + 1] = ("-"):rep(total) end
  end
  return lines
end

--- The layers with output shapes and parameter counts, as text.
---@param self table
---@param shape table|nil shape of one input without the batch ({28, 28, 1}); not needed once the model was called
---@return string text
local function summary(self, shape)
  local inputs
  if rawget(self, "ends") then
    inputs = function() return self:example() end
  elseif shape ~= nil then
    if not options.is_plain(shape) then
      core.error("summary: the shape is " .. options.describe(shape) .. "; expected a list: model:summary{28, 28, 1}")
    end
    inputs = function() return { self:stand_in{ 1, table.unpack(shape) } } end
  elseif rawget(self, "built_for") then
    inputs = function() return { self:stand_in{ 1, table.unpack(rawget(self, "built_for"), 2) } } end
  else
    core.error(self.class_name .. ": summary needs the shape of one input before the first call: model:summary{28, 28, 1}")
  end
  local shapes = output_shapes(self, inputs)
  local own, total, trained, fixed = counts(self)
  local rows = { { "layer", "kind", "output", "parameters" } }
  if rawget(self, "ends") then
    rows[1][5] = "of"
    for i, node in ipairs(self.ends.inputs.nodes) do
      rows[#rows + 1] = { self.input_names[i], "input", text_of(node.probes[1]), "0", "" }
    end
  end
  for _, entry in ipairs(tree.modules(self)) do
    local is_container = next(tree.children(entry.module)) ~= nil
    if not is_container or own[entry.module] then
      rows[#rows + 1] = { entry.path == "" and "(model)" or entry.path, entry.module.class_name, shapes[entry.module] or "-",
        with_commas(own[entry.module] or 0), rawget(self, "ends") and self:sources(entry.module) or nil }
    end
  end
  local lines = table_text(rows)
  lines[#lines + 1] = lines[2]
  lines[#lines + 1] = ("parameters: %s, trained: %s%s"):format(with_commas(total), with_commas(trained),
    fixed > 0 and (", running statistics: " .. with_commas(fixed)) or "")
  return table.concat(lines, "\n") .. "\n"
end

return summary
