--- Writes small sound files of every format into folders named after it: bplua tests/fuzz/seeds.lua FOLDER
local bp = require "bp"
local core = require "bp.core"
local root = arg[1] or error "seeds: a folder is expected"

local function put(format, name, text)
  assert(core.make_folder(root .. "/" .. format))
  assert(core.write_file(("%s/%s/%s"):format(root, format, name), text))
end
local function read(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end
-- What a file of ours becomes when it is written.
local function written(name, write)
  local path = os.tmpname()
  os.remove(path)
  path = path .. name
  assert(write(path))
  local text = read(path)
  os.remove(path)
  return text
end

-- safetensors
put("safetensors", "small", written(".safetensors", function(path)
  return bp.save_tensors(path, { a = bp.arange(6):reshape(2, 3), b = bp.ones(2), c = bp.tensor(true) }, { note = "text \" \u{e9}" })
end))
local header = '{"h":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"q":{"dtype":"I8","shape":[],"data_offsets":[4,5]}}'
put("safetensors", "foreign", string.pack("<I8", #header) .. header .. "\0\63\0\64\7")

-- IDX: bytes and floats
local bytes = string.pack(">I2BBI4I4", 0, 8, 2, 2, 3) .. "\1\2\3\4\5\6"
put("idx", "bytes", bytes)
put("idx", "floats", string.pack(">I2BBI4ff", 0, 13, 1, 2, 1.5, -2))

-- CSV
put("csv", "header", "length,kind\n5.1,setosa\n7.0,versicolor\n,virginica\n")
put("csv", "quotes", "\xef\xbb\xbf\"a;b\";\"c \"\"d\"\"\"\r\n1,5;x\r\n\r\n2;\"y\nz\"\r\n")
put("csv", "tabs", "1\t2\t?\n3\t4e-5\t6\n")

-- gzip, stored and not compressed: header, one block, CRC-32 and length
local function crc32(text)
  local crc = 0xffffffff
  for i = 1, #text do
    crc = crc ~ text:byte(i)
    for _ = 1, 8 do crc = crc & 1 == 1 and crc >> 1 ~ 0xedb88320 or crc >> 1 end
  end
  return crc ~ 0xffffffff
end
local function gzip(text, name)
  return "\31\139\8" .. (name and "\8" or "\0") .. "\0\0\0\0\0\3" .. (name and name .. "\0" or "") .. "\1"
    .. string.pack("<I2I2", #text, ~#text & 0xffff) .. text .. string.pack("<I4I4", crc32(text), #text)
end
put("gzip", "idx", gzip(bytes))
put("gzip", "csv", gzip("a,b\n1,2\n", "table.csv"))
put("gzip", "two", gzip("a,b\n") .. gzip("1,2\n"))

-- JSON
put("json", "all", '{"a":[1,-2.5e3,true,false,null,"\\u00e9\\n"],"b":{"c":{}},"d":[[],[[0]]]}')
put("json", "number", "9223372036854775807")

-- pictures
for channels = 1, 4 do
  put("png", "c" .. channels, written(".png", function(path)
    return core.image_save(path, (bp.rand(5, 4, channels) * 255):to "u8")
  end))
end
local function segment(marker, body) return "\255" .. string.char(marker) .. string.pack(">I2", #body + 2) .. body end
local code = "\0\1" .. ("\0"):rep(15)
for frame, name in pairs{ [0xc0] = "baseline", [0xc2] = "progressive" } do
  put("jpeg", name, "\255\216" .. segment(0xe0, "JFIF\0\1\1\0\0\1\0\1\0\0") .. segment(0xdb, "\0" .. ("\16"):rep(64))
    .. segment(frame, "\8" .. string.pack(">I2I2", 8, 8) .. "\1\1\17\0") .. segment(0xc4, "\0" .. code) .. segment(0xc4, "\16" .. code)
    .. segment(0xda, "\1\1\0\0" .. (frame == 0xc0 and "\63" or "\0") .. "\0") .. "\15\255\217")
end
put("bmp", "24", "BM" .. string.pack("<I4I4I4I4i4i4I2I2I4I4i4i4I4I4", 70, 0, 54, 40, 2, -2, 1, 24, 0, 16, 0, 0, 0, 0) .. ("\1\2\3"):rep(2)
  .. "\0\0" .. ("\4\5\6"):rep(2) .. "\0\0")
put("bmp", "palette", "BM" .. string.pack("<I4I4I4I4i4i4I2I2I4I4i4i4I4I4", 66, 0, 62, 40, 3, 1, 1, 1, 0, 4, 0, 0, 2, 0)
  .. "\0\0\0\0\255\255\255\0" .. "\160\0\0\0")
