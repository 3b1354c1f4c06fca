--- What the policies share: where random numbers come from, how an action is read, methods that check what they are called on.
---@internal
local core = require "bp.core"
local check_self = require "bp.methods"
local options = require "bp.options"

local policy = {}

--- The option every policy has.
policy.stream_field = { "stream", "string|tensor", default = "noise", named = true,
  help = "where random numbers come from: the name of a stream, or a state i64[2] {key, step} of one's own" }

--- The state of a random stream.
---@param spec table of the caller
---@param stream string|table
---@return table tensor i64[2]
function policy.stream(spec, stream)
  if type(stream) == "string" then return core.stream(stream) end
  if stream.dtype ~= "i64" or stream:numel() ~= 2 then
    spec:fail("option 'stream' is %s; expected the name of a stream or a tensor i64 [2] {key, step}", options.describe(stream))
  end
  return stream
end

--- "[2][3]", or "one number" for a shape without dimensions.
---@param shape table
---@return string text
function policy.shape_text(shape)
  return #shape == 0 and "one number" or "[" .. table.concat(shape, "][") .. "]"
end

--- An action as a tensor of the shape that the policy's actions have.
---@param who string
---@param action any tensor, number or list
---@param shape table
---@param dtype string of what is made from numbers
---@return table tensor
function policy.action(who, action, shape, dtype)
  if type(action) == "number" or options.is_plain(action) then action = core.tensor(action, { dtype = dtype }) end
  if not core.is_tensor(action) then
    core.error(("%s: the action is %s; expected a tensor, or numbers"):format(who, options.describe(action)))
  end
  local found, expected = policy.shape_text(action:shape()), policy.shape_text(shape)
  if found ~= expected then core.error(("%s: the actions are %s; expected %s"):format(who, found, expected)) end
  return action
end

--- A class of policies: its methods check what they are called on.
---@param methods table
---@param name string
---@return function new makes one out of a table of fields
---@return function is tells whether a value is one
function policy.class(methods, name)
  local meta = { __index = methods, __name = "rl." .. name, __tostring = function(self) return self:describe() end }
  local function is(value) return getmetatable(value) == meta end
  function methods.describe(self) return ("rl.%s%s"):format(name, policy.shape_text(self.shape)) end
  check_self(methods, name, is)
  return function(fields) return setmetatable(fields, meta) end, is
end

return policy
