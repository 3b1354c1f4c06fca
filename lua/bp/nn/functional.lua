--- nn.model: a graph of layers with any number of inputs and outputs.
---
---     local title, body = nn.input{100, name = "title"}, nn.input{500, name = "body"}
---     local shared = nn.dense{64, activation = "relu"}
---     local both = nn.concat()(shared(title), nn.dense{64}(body))
---     local model = nn.model{ inputs = {title, body}, outputs = { priority = nn.dense(1)(both), topic = nn.dense(20)(both) } }
---     local y = model(title_batch, body_batch)           -- y.priority, y.topic
---
--- Inputs and outputs are one node, a list, or named ones. What the model takes and gives has that form: one tensor, a list, or a table by
--- name; several inputs may also be given one by one. A layer called in several places has one set of parameters. Any node may be an input
--- or an output, so that a part of a model is a model: nn.model{ inputs = model.inputs, outputs = model:node "dense_1" }.
local core = require "bp.core"
local graph = require "bp.nn.graph"
local module = require "bp.nn.module"
local names = require "bp.nn.names"
local options = require "bp.options"

local spec = options.define("model", "A graph of layers.", {
  { "inputs", "any", required = true, named = true, help = "a node, a list of nodes, or nodes by name" },
  { "outputs", "any", required = true, named = true, help = "a node, a list of nodes, or nodes by name" },
  { "name", "string", named = true, help = "name of the model in summaries, messages and saved files" },
})

local Model = module.define("model")
Model.builtin = true

-- ---- putting together ----------------------------------------------------------------------------------------------------------------

-- One node, a list or nodes by name -> { kind =, nodes = list, keys = what stands for each in a table }.
local function ends(what, value)
  if graph.is_node(value) then return { kind = "one", nodes = { value }, keys = { 1 } } end
  if not options.is_plain(value) or next(value) == nil then
    spec:fail("%s is %s; expected a node, as nn.input{...} and layers called on nodes give, a list of them, or nodes by name", what,
      options.describe(value))
  end
  local side = { kind = #value > 0 and "list" or "named", nodes = {}, keys = {} }
  for key in pairs(value) do side.keys[#side.keys + 1] = key end
  if side.kind == "list" then
    for i = 1, math.max(#value, #side.keys) do side.keys[i] = i end
  else
    table.sort(side.keys, function(a, b) return tostring(a) < tostring(b) end)
  end
  for i, key in ipairs(side.keys) do
    if not graph.is_node(value[key]) then
      spec:fail("%s[%s] is %s; expected a node", what, type(key) == "string" and ("%q"):format(key) or key, options.describe(value[key]))
    end
    side.nodes[i] = value[key]
  end
  return side
end

-- The applications that the outputs need, each after what it needs, and the inputs that were met.
local function ordered(inputs, outputs)
  local given, steps, seen, met = {}, {}, {}, {}
  for _, node in ipairs(inputs.nodes) do
    if given[node] then spec:fail("'%s' is an input twice", graph.name_of(node)) end
    given[node] = true
  end
  local function visit(node, output)
    if given[node] then
      met[node] = true
      return
    end
    local application = node.application
    if not application then
      spec:fail("output %s depends on the input '%s' (%s), which is not among the inputs; add it", output, graph.name_of(node),
        tostring(node))
    end
    if seen[application] then return end
    seen[application] = true
    graph.map(application.arguments, function(leaf)
      if graph.is_node(leaf) then visit(leaf, output) end
    end)
    steps[#steps + 1] = application
  end
  for i, node in ipairs(outputs.nodes) do visit(node, tostring(outputs.keys[i])) end
  for i, node in ipairs(inputs.nodes) do
    if not met[node] then
      spec:fail("no output depends on the input '%s'; connect it, or leave it out",
        inputs.kind == "named" and inputs.keys[i] or node.name or tostring(i))
    end
  end
  return steps
end

-- Inputs are called by their key, by the name that nn.input was given, or input_1, input_2.
local function name_inputs(side)
  local list, taken = {}, {}
  for i, node in ipairs(side.nodes) do
    list[i] = side.kind == "named" and side.keys[i] or node.name or "input_" .. i
    if taken[list[i]] then spec:fail("inputs %d and %d are both called '%s'", taken[list[i]], i, list[i]) end
    taken[list[i]] = i
  end
  return list
end

-- Outputs are called by their key or the layer that they come from.
local function name_outputs(self, side)
  local list, counts = {}, {}
  for i, node in ipairs(side.nodes) do
    local name = side.kind == "named" and side.keys[i] or node.application and self.names[node.application.layer] or graph.name_of(node)
    counts[name] = (counts[name] or 0) + 1
    list[i] = counts[name] > 1 and ("%s_%d"):format(name, counts[name]) or name
  end
  return list
end

function Model.init(self, given, ...)
  local o = spec:read(given, ...)
  local inputs, outputs = ends("inputs", o.inputs), ends("outputs", o.outputs)
  local steps = ordered(inputs, outputs)
  local layers, known = {}, {}
  for _, step in ipairs(steps) do
    if not known[step.layer] then layers[#layers + 1], known[step.layer] = step.layer, true end
  end
  rawset(self, "options", { name = o.name })
  if o.name then rawset(self, "given_name", o.name) end
  rawset(self, "names", names.assign(spec, layers))
  rawset(self, "inputs", o.inputs)
  rawset(self, "outputs", o.outputs)
  rawset(self, "ends", { inputs = inputs, outputs = outputs })
  rawset(self, "steps", steps)
  rawset(self, "input_names", name_inputs(inputs))
  rawset(self, "output_names", name_outputs(self, outputs))
  rawset(self, "built_for", inputs.nodes[1].probes[1])
  self.layers = layers
  for i, node in ipairs(inputs.nodes) do
    if not node.name and not node.application then rawset(node, "name", self.input_names[i]) end
  end
end

-- Names of children in paths: without "layers.".
function Model:child_name(child)
  return self.names[child]
end

-- ---- running -------------------------------------------------------------------------------------------------------------------------

local function text(shape)
  local parts = {}
  for i, size in ipairs(shape) do parts[i] = size < 0 and "?" or tostring(size) end
  return "[" .. table.concat(parts, "][") .. "]"
end

local function fits(shape, expected)
  if #shape ~= #expected then return false end
  for i = 1, #shape do
    if expected[i] >= 0 and expected[i] ~= shape[i] then return false end
  end
  return true
end

local function check_input(self, i, value)
  local name, node = self.input_names[i], self.ends.inputs.nodes[i]
  if not core.is_tensor(value) then
    core.error(("input '%s' is %s; expected a tensor %s"):format(name, options.describe(value), text(node:shape())))
  end
  local shape, expected = value:shape(), node:shape()
  if not fits(shape, expected) then
    core.error(("input '%s' is %s; expected %s"):format(name, text(shape), text(expected)))
  end
end

-- The tensors of a call in the order of the inputs: given one by one, in a list, or by name.
local function arguments(self, ...)
  local count, wanted, first = select("#", ...), #self.input_names, (...)
  if count ~= 1 or not options.is_plain(first) then
    if count ~= wanted then
      core.error(("called with %d inputs; expected %d: %s"):format(count, wanted, table.concat(self.input_names, ", ")))
    end
    return { ... }
  end
  local list = {}
  for i, name in ipairs(self.input_names) do
    list[i] = first[name]
    if list[i] == nil then list[i] = first[i] end
    if list[i] == nil then
      core.error(("the input '%s' is missing; expected %s"):format(name, table.concat(self.input_names, ", ")))
    end
  end
  for key in pairs(first) do
    local known = math.type(key) == "integer" and key >= 1 and key <= wanted
    for _, name in ipairs(self.input_names) do known = known or name == key end
    if not known then
      core.error(("there is no input '%s'%s"):format(tostring(key), options.hint(key, self.input_names)))
    end
  end
  return list
end

function Model:forward(...)
  local given, values = arguments(self, ...), {}
  for i, node in ipairs(self.ends.inputs.nodes) do
    check_input(self, i, given[i])
    values[node] = given[i]
  end
  local function value_of(leaf)
    if graph.is_node(leaf) then return values[leaf] end
    return leaf
  end
  for _, step in ipairs(self.steps) do
    local results = table.pack(step.layer(table.unpack(graph.map(step.arguments, value_of), 1, step.n)))
    for i, node in pairs(step.results) do
      graph.map(node, function(leaf, value)
        if graph.is_node(leaf) then values[leaf] = value end
      end, results[i])
    end
  end
  return graph.map(self.outputs, value_of)
end

-- ---- parts ---------------------------------------------------------------------------------------------------------------------------

--- A layer by place or name.
---@param which integer|string from 1 in the order of computing, negative from the end, or "dense_1"
---@return table layer
function Model:layer(which)
  return names.find("model", self.layers, self.names, which)
end

--- What a layer gives, to make another model of: nn.model{ inputs = model.inputs, outputs = model:node "dense_1" }.
---@param which integer|string as for layer
---@return table node where the layer stands in several places, that of the last
function Model:node(which)
  local layer, found = self:layer(which), nil
  for _, step in ipairs(self.steps) do
    if step.layer == layer then found = step.results[1] end
  end
  return found
end

--- For a summary: inputs made up of zeros.
---@private
function Model:example()
  local list = {}
  for i, node in ipairs(self.ends.inputs.nodes) do list[i] = graph.made_up(node, 1) end
  return list
end

-- What a node is called inside this model.
local function label(self, node)
  for i, input in ipairs(self.ends.inputs.nodes) do
    if input == node then return self.input_names[i] end
  end
  return self.names[node.application.layer]
end

--- For a summary: the names of what a layer is called on, every call apart.
---@private
function Model:sources(layer)
  local calls = {}
  for _, step in ipairs(self.steps) do
    if step.layer == layer then
      local from = {}
      for i = 1, step.n do
        graph.map(step.arguments[i], function(leaf)
          if graph.is_node(leaf) then from[#from + 1] = label(self, leaf) end
        end)
      end
      calls[#calls + 1] = table.concat(from, ", ")
    end
  end
  return table.concat(calls, "; ")
end

-- ---- as data -------------------------------------------------------------------------------------------------------------------------
-- In files: inputs as { name, shape, dtype }; calls as { layer = number, arguments = }; a value of the graph as { node = { call, result,
-- keys into the result ... } } with call 0 for the inputs.

local function places(self)
  local place = {}
  for i, node in ipairs(self.ends.inputs.nodes) do place[node] = { 0, i } end
  for s, step in ipairs(self.steps) do
    for r, result in pairs(step.results) do
      local function walk(value, path)
        if graph.is_node(value) then
          place[value] = place[value] or path
        elseif options.is_plain(value) then
          for key, item in pairs(value) do walk(item, table.move({ key }, 1, 1, #path + 1, { table.unpack(path) })) end
        end
      end
      walk(result, { s, r })
    end
  end
  return place
end

--- The graph as plain values.
---@private
---@param describe function layer -> table
---@param plain function other values -> what a file can hold
function Model:config(describe, plain)
  local json = require "bp.json"
  local place, numbers = places(self), {}
  local function encode(value)
    if graph.is_node(value) then return { node = json.array(place[value]) } end
    if not options.is_plain(value) then return plain(value) end
    local copy = {}
    for key, item in pairs(value) do copy[key] = encode(item) end
    return #copy > 0 and json.array(copy) or next(copy) == nil and json.array(copy) or { fields = copy }
  end
  local config = { inputs = json.array{}, layers = json.array{}, calls = json.array{} }
  for i, node in ipairs(self.ends.inputs.nodes) do
    local shape = node:shape()
    table.remove(shape, 1)
    config.inputs[i] = { name = self.input_names[i], shape = json.array(shape), dtype = node.dtype }
  end
  for i, one in ipairs(self.layers) do
    config.layers[i], numbers[one] = describe(one), i
  end
  for i, step in ipairs(self.steps) do
    local list = json.array{}
    for k = 1, step.n do
      if step.arguments[k] == nil then list[k] = json.null else list[k] = encode(step.arguments[k]) end
    end
    config.calls[i] = { layer = numbers[step.layer], arguments = list }
  end
  config.given, config.gives = encode(self.inputs), encode(self.outputs)
  return config
end

--- The model of a config; fails with bad(message) where it makes no sense.
---@private
function Model.from_config(config, name, rebuild, value_of, bad)
  local json = require "bp.json"
  local results, layers = { [0] = {} }, {}
  for i, one in ipairs(config.inputs) do
    local shape = value_of(one.shape)
    results[0][i] = graph.input{ shape = shape, dtype = one.dtype, name = one.name }
  end
  local function decode(value)
    if type(value) ~= "table" then return value end
    if value.node then
      local found = results
      for _, key in ipairs(value.node) do found = type(found) == "table" and not graph.is_node(found) and found[key] or nil end
      if not graph.is_node(found) then bad("its graph uses a value before it is computed, or one that there is not: a cycle?") end
      return found
    end
    if value["function"] or value.module then return value_of(value) end
    local copy = {}
    for key, item in pairs(value.fields or value) do copy[key] = decode(item) end
    return copy
  end
  for i, one in ipairs(config.layers) do layers[i] = rebuild(one) end
  for i, call in ipairs(config.calls) do
    local layer, list, n = layers[call.layer], {}, #call.arguments
    if not layer then bad("its graph calls layer %s; it has %d", tostring(call.layer), #layers) end
    for k = 1, n do
      if call.arguments[k] ~= json.null then list[k] = decode(call.arguments[k]) end
    end
    results[i] = { graph.call(layer, table.unpack(list, 1, n)) }
  end
  return Model{ inputs = decode(config.given), outputs = decode(config.gives), name = name }
end

return Model
