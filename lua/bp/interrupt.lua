--- Ctrl-C and SIGTERM while fit runs. The bplua command turns them into a flag, which fit looks at after every batch; within another host
--- there is no flag, and signals are the host's own.
---@internal
local interrupt = {}

local NAMES = { [2] = "Ctrl-C", [15] = "SIGTERM" }

-- What the bplua command offers: hold(on), pending(), forget(), interactive(), resume; nil elsewhere.
local function command()
  local found = package and package.preload["bp.cli.training"]
  return found and require "bp.cli.training" or nil
end

local nothing = setmetatable({}, { __close = function() end })

--- From now on an interruption only sets the flag, until the value is closed; a second one still ends the process at once.
---@return table closable
function interrupt.hold()
  local cli = command()
  if not cli then return nothing end
  local before = cli.hold(true)
  return setmetatable({}, { __close = function() cli.hold(before) end })
end

--- The number of the signal that came while the flag was held, or nil.
---@return function pending
function interrupt.poll()
  local cli = command()
  return cli and cli.pending or function() end
end

--- Whether the program was started with --resume.
---@return boolean
function interrupt.wants_resume()
  local cli = command()
  return cli ~= nil and cli.resume
end

--- "Ctrl-C".
---@param signal integer
---@return string name
function interrupt.name(signal) return NAMES[signal] or "signal " .. signal end

--- Ends the process with the status that shells expect, 128 + signal; at the prompt it returns instead.
---@param signal integer
function interrupt.leave(signal)
  local cli = command()
  cli.forget()
  if cli.interactive() then return end
  os.exit(128 + signal)
end

return interrupt
