--- bp.capture: runs a function once and notes what it computes; later calls with the same shapes replay that, without Lua.
---
--- What has to happen in Lua before every replay (a learning rate that follows a schedule) registers a hook while the function is recorded.
local core = require "bp.core"
local options = require "bp.options"

local capture = {}

local recording -- takes in the hooks of the capture being recorded

--- A function that is recorded at its first call and replayed at later ones.
---
--- Its arguments and results are tensors; a call with other shapes is recorded anew. Only what passes through tensors is repeated: Lua code
--- runs at the recording alone, so print, counters and random choices of Lua's own are not. Values may not be read inside; return the
--- tensor instead.
---
--- Arguments are taken as they lie, whatever memory they share. Only where the function writes to memory that an argument shares with
--- another one, or with what else the function uses, it is run itself instead of replayed, which is slower.
---
--- captured:into(out, ...) calls it so that its results land in tensors given: `out` is one, or a table of them arranged as the results.
--- A replay then leaves no garbage for Lua to collect. `out` may be an argument: step:into(state, state, input).
---
--- captured:plans() says what the plans made so far consist of: a list of { ops =, recorded =, arena_bytes =, temporary_bytes =, steps = },
--- one for every combination of shapes met. After captured:time(true) the replays are timed op by op: steps lists { name =, where =,
--- replays =, seconds = } in the order of a replay, seconds of all replays together; captured:time(false) ends that.
---@param fn function
---@return userdata captured call it like fn
function capture.capture(fn)
  if type(fn) ~= "function" then core.error("bp.capture: the value is " .. options.describe(fn) .. "; expected a function") end
  local known, captured = {}, nil
  local restore = setmetatable({}, { __close = function(self) recording = self.before end })
  captured = core.capture(function(...)
    restore.before = recording
    local closing <close> = restore -- luacheck: ignore 211
    recording = function(hook, key)
      if known[key] then return end
      known[key] = true
      captured:before(hook)
    end
    return fn(...)
  end)
  return captured
end

--- Whether a captured function is being recorded now.
---@return boolean
function capture.active() return recording ~= nil end

--- Has hook() called before every replay of the capture being recorded; does nothing when none is. key tells hooks apart.
---@param key any
---@param hook function
function capture.before_replay(key, hook)
  if recording then recording(hook, key) end
end

return capture
