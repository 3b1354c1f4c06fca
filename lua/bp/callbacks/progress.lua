--- callbacks.progress: plain lines within an epoch, for logs of long epochs where a bar is of no use.
local core = require "bp.core"
local logs = require "bp.logs"
local options = require "bp.options"

local spec = options.define("progress", "Prints a line every so many batches.", {
  { "every", "int", min = 1, default = 100, help = "batches between two lines" },
  { "print", "function", named = true, help = "what receives the line; default print" },
})

local Progress = { __name = "progress" }
Progress.__index = Progress

function Progress:on_train_begin() self.start, self.count = core.clock(), 0 end

--- After a batch.
---@private
function Progress:after_batch(run, read)
  self.count = self.count + 1
  if run.batch % self.options.every ~= 0 then return end
  local parts, values = {}, read()
  for i, key in ipairs(logs.keys(values)) do parts[i] = key .. ": " .. logs.format(values[key]) end
  (self.options.print or print)(("epoch %d batch %d/%d - %.3g ms/step - %s"):format(run.epoch, run.batch, run.steps_per_epoch,
    1e3 * (core.clock() - self.start) / self.count, table.concat(parts, " - ")))
end

--- Prints a line every so many batches.
---@param given integer|table|nil { every = 100, print = print }
---@return table callback
return function(given, ...)
  return setmetatable({ options = spec:read(given, ...) }, Progress)
end
