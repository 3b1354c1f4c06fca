--- Nodes: what stands for a tensor while a functional model is put together.
---
---     local image = nn.input{28, 28, 1}
---     local features = nn.flatten()(image)                -- calling a layer on a node gives a node
---     local model = nn.model{ inputs = image, outputs = nn.dense(10)(features) }
---
--- A layer that is called on a node runs once on numbers made up for it, so that it has its parameters and the shape of the result is known
--- at once. `a + b`, `a - b` and `a * b` of two nodes are nn.add, nn.subtract and nn.multiply; with a number they are nn.rescaling.
local core = require "bp.core"
local options = require "bp.options"

local graph = {}

-- A dimension left open is tried with these two sizes: what differs between the results is open there, too.
local TRIED = { 32, 40 }

-- probes: the shapes that the results had in the one or two tries, each with a batch of 1. application and path say what gives the value;
-- inputs have none.
local Node = {}
local methods = {}

local function text(shape)
  local parts = {}
  for i, size in ipairs(shape) do parts[i] = size < 0 and "?" or tostring(size) end
  return "[" .. table.concat(parts, "][") .. "]"
end

local function is_node(value) return type(value) == "table" and getmetatable(value) == Node end
graph.is_node = is_node

--- The shape of the tensor that the node stands for; -1 where it is open, as the batch is.
---@param dim integer|nil one dimension, from 1, or from the end with -1
---@return table|integer shape
function methods:shape(dim)
  local first, second = self.probes[1], self.probes[2]
  local shape = {}
  for i, size in ipairs(first) do shape[i] = (i == 1 or second and second[i] ~= size) and -1 or size end
  if dim == nil then return shape end
  local size = shape[dim < 0 and #shape + 1 + dim or dim]
  if size == nil then core.error(("shape: dimension %s of a node with %d"):format(tostring(dim), #shape)) end
  return size
end

function Node.__index(self, key)
  if methods[key] then return methods[key] end
  if key == "ndim" then return #self.probes[1] end
  if key == "__name" then return "node" end
  core.error(("a node has no '%s': it stands for a tensor that comes later; apply a layer to it, or a function as a layer: "
    .. "nn.lambda(function(t) ... end)(node)"):format(tostring(key)))
end

function Node.__tostring(self)
  return ("node %s %s"):format(graph.name_of(self), text(self:shape()))
end
Node.__name = "node"

--- What a node is called in messages: its name, or the kind of the layer it comes from.
---@param node table
---@return string name
function graph.name_of(node)
  local application = rawget(node, "application")
  return rawget(node, "name") or (application and application.layer:own_name()) or "input"
end

local function new(fields)
  fields.application, fields.name = fields.application or false, fields.name or false
  return setmetatable(fields, Node)
end

local function merged(class)
  return function(a, b)
    local nn = require "bp.nn"
    if is_node(a) and is_node(b) then return nn[class]()(a, b) end
    local node, number = is_node(a) and a or b, is_node(a) and b or a
    if type(number) ~= "number" then
      core.error(("%s: a node and %s; expected two nodes, or a node and a number"):format(class, options.describe(number)))
    end
    if class == "multiply" then return nn.rescaling(number)(node) end
    if class == "add" then return nn.rescaling{ 1, number }(node) end
    return is_node(a) and nn.rescaling{ 1, -number }(node) or nn.rescaling{ -1, number }(node)
  end
end
Node.__add, Node.__sub, Node.__mul = merged "add", merged "subtract", merged "multiply"
function Node.__unm(self) return require "bp.nn".rescaling(-1)(self) end

-- ---- inputs --------------------------------------------------------------------------------------------------------------------------

local input_spec = options.define("input", "An input of a functional model; positional entries are the dimensions of one sample.", {
  { "shape", "ints", min = -1, named = true, help = "dimensions of one sample, without the batch; -1 for any size" },
  { "dtype", "choice", choices = { "f32", "f64", "i64", "i32", "u8", "bool" }, default = "f32", named = true, help = "what it will hold" },
  { "name", "string", named = true, help = "name of the input in messages and named data" },
})

--- An input of a functional model.
---@param given table|integer dimensions of one sample: {28, 28, 1}; dtype = and name = may follow
---@return table node
function graph.input(given, ...)
  local shape, named = {}, {}
  if type(given) == "table" and getmetatable(given) == nil then
    for key, value in pairs(given) do
      if math.type(key) == "integer" then shape[key] = value else named[key] = value end
    end
  elseif given ~= nil then
    shape[1] = given
  end
  if named.shape == nil then named.shape = shape
  elseif #shape > 0 then input_spec:fail("option 'shape' is given twice") end
  local o = input_spec:read(named, ...)
  local probes, open = {}, false
  for _, size in ipairs(o.shape) do
    if size == 0 then input_spec:fail("a dimension is 0; expected its size, or -1 for any") end
    open = open or size == -1
  end
  for try = 1, open and 2 or 1 do
    probes[try] = { 1 }
    for i, size in ipairs(o.shape) do probes[try][i + 1] = size == -1 and TRIED[try] or size end
  end
  return new{ probes = probes, dtype = o.dtype, name = o.name }
end

-- ---- calling a layer -----------------------------------------------------------------------------------------------------------------

--- Whether a value is a node or a plain table with one in it.
---@param value any
---@return boolean
function graph.symbolic(value)
  if type(value) ~= "table" then return false end
  local meta = getmetatable(value)
  if meta then return meta == Node end
  for _, item in pairs(value) do
    if type(item) == "table" and graph.symbolic(item) then return true end
  end
  return false
end

--- The same structure (plain tables) with fn(leaf, other) in the place of each leaf; other is what stands in the same place of twin.
---@param value any
---@param fn function
---@param twin any
---@return any
local function map(value, fn, twin)
  if not options.is_plain(value) then return fn(value, twin) end
  local copy = {}
  for key, item in pairs(value) do copy[key] = map(item, fn, type(twin) == "table" and twin[key] or nil) end
  return copy
end
graph.map = map

-- Numbers that a layer can be tried with: 0, and where labels or positions may be expected, 1.
local function made_up(node, try)
  local probes = node.probes
  local is_float = node.dtype == "f32" or node.dtype == "f64"
  return core.ops.full{ shape = probes[try] or probes[1], value = is_float and 0 or 1, dtype = node.dtype }
end
graph.made_up = made_up

-- "add(dense [?][64], input [?][32])"
local function call_text(layer, arguments)
  local parts = {}
  map(arguments, function(leaf)
    if is_node(leaf) then parts[#parts + 1] = graph.name_of(leaf) .. " " .. text(leaf:shape()) end
  end)
  return ("%s(%s)"):format(layer:own_name(), table.concat(parts, ", "))
end

-- What the layer makes of made-up numbers: its results with { shape =, dtype = } in the place of tensors.
local function try(layer, arguments, n, attempt)
  local outline
  core.pause(core.no_grad, function()
    core.scope(function()
      local values = map(arguments, function(leaf) return is_node(leaf) and made_up(leaf, attempt) or leaf end)
      local results = table.pack(layer:call(table.unpack(values, 1, n)))
      outline = { n = results.n }
      for i = 1, results.n do
        outline[i] = map(results[i], function(leaf)
          return core.is_tensor(leaf) and setmetatable({ shape = leaf:shape(), dtype = leaf.dtype }, {}) or leaf
        end)
      end
    end)
  end)
  return outline
end

local function has_open(arguments)
  local open = false
  map(arguments, function(leaf) open = open or is_node(leaf) and leaf.probes[2] ~= nil end)
  return open
end

--- Calls a layer on nodes.
---@param layer table a module
---@param ... any nodes, plain tables of nodes, and other values
---@return any ... what the layer's forward returns, with nodes in the place of tensors
function graph.call(layer, ...)
  local arguments = table.pack(...)
  local n = arguments.n
  arguments.n = nil
  local application = { layer = layer, arguments = arguments, n = n }
  local training = layer.training
  local restore <close> = setmetatable({}, { __close = function() layer:train(training) end }) -- luacheck: ignore 211
  local where <close> = core.where_push(call_text(layer, arguments)) -- luacheck: ignore 211
  layer:eval()
  local first = try(layer, arguments, n, 1)
  local second = has_open(arguments) and try(layer, arguments, n, 2)
  local results = {}
  for i = 1, first.n do
    results[i] = map(first[i], function(leaf, other)
      if type(leaf) ~= "table" then return leaf end
      return new{ application = application, dtype = leaf.dtype, probes = { leaf.shape, other and other.shape } }
    end, second and second[i])
  end
  application.results = { table.unpack(results, 1, first.n) }
  return table.unpack(results, 1, first.n)
end

return graph
