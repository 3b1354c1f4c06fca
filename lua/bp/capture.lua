--- bp.capture: runs a function once and notes what it computes; later calls with the same shapes replay that, without Lua.
---
--- What has to happen in Lua before every replay (a learning rate that follows a schedule) registers a hook while the function is recorded.
local core = require "bp.core"
local options = require "bp.options"

local capture = {}

local recording -- hooks of the capture being recorded

local Captured = { __name = "captured function" }
Captured.__index = Captured

function Captured:__call(...)
  for _, hook in ipairs(self.hooks) do hook() end
  return self.run(...)
end

--- What the plans made so far consist of.
---@return table list of { ops =, recorded =, arena_bytes =, temporary_bytes = }, one for every combination of shapes met
function Captured:plans() return self.run:plans() end

--- A function that is recorded at its first call and replayed at later ones.
---
--- Its arguments and results are tensors; a call with other shapes is recorded anew. Only what passes through tensors is repeated: Lua code
--- runs at the recording alone, so print, counters and random choices of Lua's own are not. Values may not be read inside; return the
--- tensor instead.
---@param fn function
---@return table captured call it like fn; captured:plans() describes what was recorded
function capture.capture(fn)
  if type(fn) ~= "function" then core.error("bp.capture: the value is " .. options.describe(fn) .. "; expected a function") end
  local hooks, known = {}, {}
  local restore = setmetatable({}, { __close = function(self) recording = self.before end })
  local run = core.capture(function(...)
    restore.before = recording
    local closing <close> = restore -- luacheck: ignore 211
    recording = function(hook, key)
      if not known[key] then
        known[key] = true
        hooks[#hooks + 1] = hook
      end
    end
    return fn(...)
  end)
  return setmetatable({ run = run, hooks = hooks }, Captured)
end

--- Has hook() called before every replay of the capture being recorded; does nothing when none is. key tells hooks apart.
---@param key any
---@param hook function
function capture.before_replay(key, hook)
  if recording then recording(hook, key) end
end

return capture
