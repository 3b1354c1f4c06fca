--- Where all random draws of the program stand: the streams of bp.seed, and those that parts of the program have of their own
--- (augment.compose{ seed = }). A draw is a function of a stream's {key, step}, so these few integers are all there is to remember.
---@internal
local core = require "bp.core"

local streams = {}

local NAMES = { "init", "shuffle", "dropout", "augment", "search", "noise" }

-- Own streams by the order in which the program made them; a program that is started again makes them in the same order.
local made = 0
local own = setmetatable({}, { __mode = "v" })

--- A stream of its own from a seed: an i64 tensor [2] for the ops that draw.
---@param seed integer
---@return table state
function streams.own(seed)
  local state = core.pause(core.tensor, { seed, 0 }, { dtype = "i64" })
  made = made + 1
  own[made] = state
  return state
end

local function each(visit)
  for _, name in ipairs(NAMES) do visit(name, core.stream(name)) end
  for i = 1, made do
    if own[i] then visit("own." .. i, own[i]) end
  end
end

--- The states themselves.
---@return table[] tensors
function streams.tensors()
  local list = {}
  each(function(_, state) list[#list + 1] = state end)
  return list
end

--- Copies of them.
---@return table[] tensors
function streams.copies()
  local list = streams.tensors()
  for i, tensor in ipairs(list) do list[i] = core.ops.copy(tensor) end
  return list
end

--- Where every stream stands.
---@return table positions { key, step } by name
function streams.get()
  local positions = {}
  each(function(name, state) positions[name] = { math.tointeger(state[1]:item()), math.tointeger(state[2]:item()) } end)
  return positions
end

--- Puts the streams where they stood.
---@param positions table as get gives
---@return string[] missing streams that the positions know and this program has not
function streams.set(positions)
  local known, missing = {}, {}
  core.pause(core.no_grad, function()
    each(function(name, state)
      known[name] = true
      if positions[name] then state:copy_(core.tensor(positions[name], { dtype = "i64" })) end
    end)
  end)
  for name in pairs(positions) do
    if not known[name] then missing[#missing + 1] = name end
  end
  table.sort(missing)
  return missing
end

return streams
