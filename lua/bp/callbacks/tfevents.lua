--- callbacks.tfevents: what is logged, as event files that TensorBoard shows: folder/train and folder/validation, tags "epoch_loss" and
--- so on.
---
--- Every epoch is a file of its own, written whole, so that a training that is killed and resumed leaves no half record and none twice;
--- TensorBoard reads the files of a folder one after another.
---
--- The format: records of u64 length, masked CRC-32C of that length, data, masked CRC-32C of the data, all little-endian; the data is a
--- protocol buffer Event { 1: double wall_time, 2: int64 step, 3: string file_version, 5: Summary { 1: Value { 1: string tag,
--- 2: float simple_value } } } (tensorflow/core/util/event.proto, summary.proto; tensorflow/core/lib/io/record_writer.h).
local core = require "bp.core"
local logs = require "bp.logs"
local options = require "bp.options"

local spec = options.define("tfevents", "Writes what is logged for TensorBoard.", {
  { "path", "string", required = true, help = "folder for the files; it is made when missing" },
  { "prefix", "string", default = "epoch_", named = true, help = "what tags begin with" },
})

-- CRC-32C (Castagnoli), reflected polynomial 0x82f63b78.
local TABLE = {}
for i = 0, 255 do
  local crc = i
  for _ = 1, 8 do crc = crc & 1 == 1 and crc >> 1 ~ 0x82f63b78 or crc >> 1 end
  TABLE[i] = crc
end

local function masked_crc(text)
  local crc = 0xffffffff
  for i = 1, #text do crc = TABLE[(crc ~ text:byte(i)) & 255] ~ crc >> 8 end
  crc = crc ~ 0xffffffff
  return ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff
end

local function record(data)
  local length = string.pack("<I8", #data)
  return length .. string.pack("<I4", masked_crc(length)) .. data .. string.pack("<I4", masked_crc(data))
end

local function varint(n)
  local bytes = {}
  repeat
    local low = n & 127
    n = n >> 7
    bytes[#bytes + 1] = string.char(n ~= 0 and low | 128 or low)
  until n == 0
  return table.concat(bytes)
end

local function bytes_field(number, data) return varint(number << 3 | 2) .. varint(#data) .. data end

local function event(time, step, more)
  return record("\x09" .. string.pack("<d", time) .. "\x10" .. varint(step) .. more)
end

local function file_of(time, step, values)
  local parts = { event(time, 0, bytes_field(3, "brain.Event:2")) }
  for _, pair in ipairs(values) do
    local value = bytes_field(1, pair[1]) .. "\x15" .. string.pack("<f", pair[2])
    parts[#parts + 1] = event(time, step, bytes_field(5, bytes_field(1, value)))
  end
  return table.concat(parts)
end

local Events = { __name = "tfevents", kept = { "began" } }
Events.__index = Events

local function need(ok, message)
  if not ok then core.error("tfevents: " .. tostring(message)) end
end

local function now()
  local os = package.loaded.os
  return os and os.time() or 0
end

function Events:on_train_begin()
  self.began = now()
  for _, part in ipairs{ "train", "validation" } do need(core.make_folder(self.options.path .. "/" .. part)) end
end

function Events:on_epoch_end(epoch, values)
  local o, parts = self.options, { train = {}, validation = {} }
  for _, key in ipairs(logs.keys(values)) do
    local part, name = key:find "^val_" and "validation" or "train", key:gsub("^val_", "")
    if type(values[key]) == "number" then table.insert(parts[part], { o.prefix .. name, values[key] + 0.0 }) end
  end
  for part, pairs_of in pairs(parts) do
    if #pairs_of > 0 then
      need(core.write_file(("%s/%s/events.out.tfevents.%010d.%06d.bplua.v2"):format(o.path, part, self.began, epoch),
        file_of(now() + 0.0, epoch, pairs_of)))
    end
  end
end

--- Writes what is logged for TensorBoard: tensorboard --logdir FOLDER.
---@param given string|table the folder, or { path, prefix = "epoch_" }
---@return table callback
return function(given, ...)
  return setmetatable({ options = spec:read(given, ...) }, Events)
end
