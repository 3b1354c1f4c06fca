--- callbacks.checkpoint: saves the model and the state of its optimizer after epochs, and keeps the last few files.
---
--- The files are folder/epoch-00012.safetensors: each is a model that bp.load reads, with the optimizer's tensors under "optimizer." and
--- the history in the metadata. A file is written whole or not at all.
local core = require "bp.core"
local json = require "bp.json"
local logs = require "bp.logs"
local monitor = require "bp.callbacks.monitor"
local options = require "bp.options"
local serialize = require "bp.serialize"

local spec = options.define("checkpoint", "Saves model and optimizer after epochs.", {
  { "path", "string", required = true, help = "folder for the files; it is made when missing" },
  { "every", "int", min = 1, default = 1, named = true, help = "epochs between two files" },
  { "keep", "int", min = 1, default = 2, named = true, help = "how many of the newest files stay" },
  { "best", "string", named = true, help = "name of a number in the logs: also keeps best.safetensors, from the epoch where it was best" },
})

local Checkpoint = { __name = "checkpoint" }
Checkpoint.__index = Checkpoint

-- Fails for good when the disk does: going on would promise files that are not there.
local function need(ok, message)
  if not ok then core.error("checkpoint: " .. tostring(message)) end
  return ok
end

function Checkpoint:on_train_begin()
  need(core.make_folder(self.options.path))
  self.best = nil
end

local function rows_of(history)
  local rows = json.array{}
  for i, row in ipairs(history.rows) do
    local plain = { epoch = history.epochs[i] }
    for _, key in ipairs(logs.keys(row)) do
      local value = row[key]
      if value == value and math.abs(value) < math.huge then plain[key] = value end
    end
    rows[i] = plain
  end
  return rows
end

local function save(path, epoch, run)
  local tensors = {}
  for name, tensor in pairs(run.optimizer:state()) do tensors["optimizer." .. name] = tensor end
  need(serialize.save(run.model, path, { tensors = tensors, metadata = {
    ["bplua.training"] = json.encode{ epoch = epoch, optimizer = run.optimizer:config(), history = rows_of(run.history) },
  } }))
end

-- Removes all but the newest files of ours.
local function prune(folder, keep)
  local names = {}
  for _, name in ipairs(need(core.list_folder(folder))) do
    if name:find("^epoch%-%d+%.safetensors$") then names[#names + 1] = name end
  end
  table.sort(names)
  for i = 1, #names - keep do need(core.remove_file(folder .. "/" .. names[i])) end
end

function Checkpoint:on_epoch_end(epoch, values, run)
  local o = self.options
  if o.best then
    local value = monitor.value("checkpoint", values, o.best)
    local sign = monitor.sign(o.best, "auto")
    if value == value and (self.best == nil or sign * (value - self.best) > 0) then
      self.best = value
      save(o.path .. "/best.safetensors", epoch, run)
    end
  end
  if epoch % o.every == 0 then
    save(("%s/epoch-%05d.safetensors"):format(o.path, epoch), epoch, run)
    prune(o.path, o.keep)
  end
end

--- Saves model and optimizer after epochs.
---@param given string|table the folder, or { path, every = 1, keep = 2, best = "val_loss" }
---@return table callback
return function(given, ...)
  return setmetatable({ options = spec:read(given, ...) }, Checkpoint)
end
