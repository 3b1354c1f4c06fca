-- What the programs that resume_test kills share: data, checkpoints, and a digest of all that has to come out the same.
local bp = require "bp"
local core = require "bp.core"
local callbacks = bp.callbacks

local common = {}

-- Pictures of four kinds of stripes under noise, bytes [n][side][side][1], and labels.
function common.images(n, side)
  local y = bp.ops.random_integers(core.stream "search", { shape = { n }, low = 1, high = 4, dtype = "i64" })
  local across = bp.ops.arange{ start = 0, stop = side, dtype = "f32" }:reshape(1, 1, side, 1)
  local wave = (across * y:to "f32":reshape(n, 1, 1, 1)):sin() * 60 + 128
  local x = wave + bp.ops.random_normal(core.stream "search", { shape = { n, side, side, 1 }, std = 30 })
  return (x:clamp{ min = 0, max = 255 } / 255), y
end

local function write(path, text)
  local f <close> = assert(io.open(path, "wb"))
  f:write(text)
end

-- Trains with checkpoints in arg[1], and writes what came out into arg[1]/result.
function common.train(model, own, given)
  local folder = assert(arg[1])
  given.verbose, given.resume = 2, true
  table.insert(given.callbacks, callbacks.csv_logger(folder .. "/log.csv"))
  table.insert(given.callbacks, 1, callbacks.checkpoint{ folder .. "/ckpt", every = arg[2] or "5 batches", best = "val_loss" })
  local history = model:fit(given)
  local opt = given.optimizer or model.compiled.optimizer
  local lines = {}
  local function digest(name, tensor)
    lines[#lines + 1] = name .. " " .. core.crc32(core.to_bytes(tensor:contiguous()))
  end
  for name, tensor in pairs(model:get_weights()) do digest(name, tensor) end
  for name, tensor in pairs(opt:state()) do digest("optimizer " .. name, tensor) end
  table.sort(lines)
  for _, name in ipairs{ "init", "shuffle", "dropout", "augment", "noise" } do
    local s = core.stream(name)
    lines[#lines + 1] = ("stream %s %d %d"):format(name, s[1]:item(), s[2]:item())
  end
  lines[#lines + 1] = ("own %s %s"):format(own.batches, own.note)
  lines[#lines + 1] = history:to_csv()
  write(folder .. "/result.tmp", table.concat(lines, "\n"))
  os.rename(folder .. "/result.tmp", folder .. "/result")
end

return common
