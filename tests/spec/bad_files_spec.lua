--- Files that are missing, cut, damaged or foreign, and places that cannot be written: nil, a message with path, place, what was found
-- and what was expected, and a code; afterwards everything works, and an old file is as it was.
local bp = require "bp"
local core = require "bp.core"
local bad = require "support.bad"
local files = require "support.files"
local shell = require "support.shell"
local nn, data = bp.nn, bp.data

local folder = files.folder()

-- What each case is: a name for the file, its contents, what reads it, then the texts.
local function refused(code, cases)
  for i, case in ipairs(cases) do
    local what, contents, read = case[1], case[2], case[3]
    it(what, function()
      local path = ("%s/bad-%d"):format(folder.path, i)
      if contents then files.put(folder, ("bad-%d"):format(i), contents) else os.remove(path) end
      bad.refuses(code, function() return read(path) end, path, table.unpack(case, 4))
      bad.still_works()
    end)
  end
end

-- ---- safetensors ---------------------------------------------------------------------------------------------------------------------

local function safetensors(header, bytes) return string.pack("<I8", #header) .. header .. (bytes or "") end

local function saved(metadata, tensors)
  local path = folder:at "whole"
  assert(bp.save_tensors(path, tensors or { w = bp.ones(4, 2), b = bp.zeros(2) }, metadata))
  return core.read_file(path)
end

local function flipped(text, at) return text:sub(1, at - 1) .. string.char(text:byte(at) ~ 64) .. text:sub(at + 1) end

describe("a safetensors file is refused:", function()
  local load, whole = bp.load_tensors, saved()
  refused("eformat", {
    { "an empty one", "", load, "not a safetensors file: has 0 bytes", "the header's length alone takes 8" },
    { "seven bytes", ("x"):rep(7), load, "has 7 bytes", "takes 8" },
    { "a text", "this is a letter, not a model", load, "not a safetensors file: offset 0", "at most" },
    { "a zip file", "PK\3\4 as torch.save writes it", load, "not a safetensors file" },
    { "a header longer than the file", string.pack("<I8", 5000) .. "{}", load, "truncated", "the header 5000 bytes, of which 2 follow" },
    { "a header that begins otherwise", safetensors "[1, 2, 3]", load, "found byte 0x5b at offset 8; expected '{'" },
    { "a header that is no JSON", safetensors '{"a": }', load, "line 1, column", "not valid JSON" },
    { "two tensors of one name",
      safetensors('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "x"),
      load, "duplicate", "column" },
    { "an unknown dtype", safetensors('{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}',
      "x"), load, 'tensor "a": dtype "F4" is not supported', "convert it to one of F32 F64" },
    { "no shape", safetensors('{"a":{"dtype":"U8","data_offsets":[0,1]}}', "x"), load, 'tensor "a": has no "shape"',
      "expected a list of sizes" },
    { "a negative size", safetensors('{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}', "x"), load, 'tensor "a"',
      "whole numbers from 0" },
    { "a shape that overflows", safetensors('{"a":{"dtype":"U8","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,1]}}',
      "x"), load, 'tensor "a"',
      "more elements than can be addressed" },
    { "offsets that do not fit the shape", safetensors('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
      "xxxx"), load, "data_offsets span 4 bytes", "need 8" },
    { "a hole", safetensors('{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', "xx"), load, 'tensor "a" begins at file offset',
      "without holes" },
    { "bytes of nobody", safetensors('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
      "xx"), load, "bytes that belong to no tensor", "the tensors need 1" },
    { "a BOOL of 7", safetensors('{"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}}', "\7"), load, "found byte 0x07 in a BOOL",
      "expected 0 or 1" },
    { "metadata that is no text", safetensors '{"__metadata__":{"k":1}}', load, 'metadata "k" is not a string', "offset 8" },
    { "one cut at its end", whole:sub(1, -2), load, "truncated", "bytes of data follow offset" },
    { "one cut in its header", whole:sub(1, 40), load, "truncated", "of which 32 follow" },
    { "a flipped bit in the data", flipped(whole, #whole), load, "CRC-32 of its bytes is", "offset" },
    { "a flipped bit in the header", flipped(whole, 30), load, "offset 8" },
  })
  refused("eio", { { "one that is not there", nil, load, "cannot be opened for reading", "No such file" } })
end)

describe("a model file is refused:", function()
  local function model(text) return saved{ ["bplua.model"] = text } end
  local function architecture(layers, more)
    return model(('{"format":1,"model":{"class":"sequential","layers":[%s]}%s}'):format(layers, more or ""))
  end
  refused("eformat", {
    { "tensors alone", saved(), bp.load, "it holds tensors but no model of bp", "bp.load_tensors(path) reads the tensors" },
    { "an architecture that is no JSON", model "{", bp.load, "the architecture in its metadata is no JSON object", "line 1, column" },
    { "an architecture that is a list", model "[1]", bp.load, "format", "take a newer one" },
    { "a format of the future", model '{"format":99}', bp.load, "the model has format 99", "take a newer one" },
    { "no model in it", model '{"format":1}', bp.load, "a layer is described by a nil", "expected an object" },
    { "a layer that nobody knows", architecture '{"class":"hologram"}',
      bp.load, "a layer of the class 'hologram', which this program does not define",
      "run what calls nn.module(\"hologram\", ...) before bp.load" },
    { "an option that nobody knows", architecture '{"class":"dense","options":{"unitz":3}}', bp.load, "unknown option 'unitz'",
      "did you mean 'units'?" },
    { "units of -3", architecture '{"class":"dense","options":{"units":-3}}', bp.load, "a number (-3)", "at least 1" },
    { "a function that is not registered", architecture '{"class":"lambda","options":{"fn":{"function":"gone"}}}',
      bp.load, "the function 'gone' is not registered",
      "nn.register(\"gone\"" },
    { "a layer shared with one that is not there", architecture '{"shared":7}', bp.load, "layer 7 is referred to before it comes" },
    { "layers without their tensors", architecture('{"class":"dense","name":"d","options":{"units":2,"name":"d"}}',
      ',"built":[["d",[1,4]]]'), bp.load, "the tensor 'd.kernel' is missing" },
    { "tensors of another shape",
      saved({ ["bplua.model"] = '{"format":1,"model":{"class":"sequential","layers":[{"class":"dense","name":"d","options":'
        .. '{"units":2,"name":"d"}}]},"built":[["d",[1,4]]]}' }, { ["d.kernel"] = bp.ones(3, 2), ["d.bias"] = bp.ones(2) }), bp.load,
      "the tensor 'd.kernel' is f32 [3][2]", "the layer needs f32 [4][2]" },
    { "a module where a class takes none", architecture '{"class":3}', bp.load, "a layer of the class '3'" },
  })
end)

-- ---- IDX, CSV, JSON ------------------------------------------------------------------------------------------------------------------

-- Compressed by the gzip program, which is there wherever tar is.
local function gzip(text)
  files.put(folder, "plain", text)
  assert(shell.run(("gzip -nc %s > %s"):format(folder:at "plain", folder:at "packed")).code == 0)
  return core.read_file(folder:at "packed")
end

describe("an IDX file is refused:", function()
  local whole = files.idx(8, { 2, 3 }, "abcdef")
  local packed = gzip(whole)
  refused("eformat", {
    { "an empty one", "", data.idx, "offset 0" },
    { "a text", "hello, world", data.idx, "not an IDX file: begins with 68 65 6c 6c", "expected 00 00" },
    { "an element type that there is not", "\0\0\7\1\0\0\0\1x", data.idx, "begins with 00 00 07 01", "a dtype of 08 09" },
    { "one cut in its header", whole:sub(1, 7), data.idx, "truncated", "ends at offset 7" },
    { "one cut in its data", whole:sub(1, -2), data.idx, "truncated: the header promises [2x3] elements, 6 bytes, after offset 12",
      "no more than 5" },
    { "bytes after the end", whole .. "x", data.idx, "offset" },
    { "sizes that overflow", files.idx(8, { 0xffffffff, 0xffffffff, 0xffffffff }, "x"), data.idx, "offset" },
    { "a gzip cut in the middle", packed:sub(1, -6), data.idx, "truncated: the compressed data ends at offset" },
    { "a gzip with a wrong checksum", flipped(packed, #packed - 6), data.idx, "gzip" },
    { "a gzip with damaged data", flipped(packed, 16), data.idx, "gzip" },
    { "a gzip of something else", gzip "hello, world", data.idx, "expected" },
  })
  refused("eio", { { "one that is not there", nil, data.idx, "cannot be opened for reading" } })
end)

describe("a CSV file is refused:", function()
  local function csv(path) return data.csv{ path, target = "y" } end
  refused("eformat", {
    { "an empty one", "", csv, "empty", "expected" },
    { "names alone", "x,y\n", csv, "has no rows of data after its header" },
    { "a row with too few cells", "x,y\n1,2\n3\n", csv, ":3:1: found a row of 1 cells", "expected 2, as in the first row" },
    { "a row with too many cells", "x,y\n1,2\n3,4,5\n", csv, ":3:3: found a row of more than 2 cells", "expected 2" },
    { "a word among numbers", "x,y\n1,2\n3,4\nfive,6\n", csv, ':4:1: column "x": found "five"', "expected a number",
      "name the column in classes" },
    { "an empty cell", "x,y\n1,2\n,4\n", csv, ':3:1: column "x": found ""', "expected a value", 'missing = "skip"' },
    { "a quote that does not end", 'x,y\n"1,2\n3,4\n', csv, ":2:1: the quote opened here is never closed",
      "write quotes inside a cell twice" },
    { "text after a quote", 'x,y\n"1"2,3\n', csv, ":2:1: found '2' after the closing quote", "expected ',' or the end of the line" },
    { "a zero byte", "x,y\n1,\0\n", csv, ":2: offset 6: found byte 0x00", "expected UTF-8 text" },
    { "bytes that are not UTF-8", "x,y\n1,\255\n", csv, ":2: offset 6: found byte 0xff", "expected UTF-8 text" },
    { "UTF-16", "\255\254x\0,\0y\0\n\0", csv, "UTF-16" },
    { "two columns of one name", "x,x\n1,2\n", function(path) return data.csv{ path, target = "x" } end, ':1: two columns are called "x"',
      "give each a name of its own" },
    { "a gzip that unfolds to zeros", gzip(("\0"):rep(100000)), csv, ":1: offset 0: found byte 0x00", "expected UTF-8 text" },
  })
  refused("eio", { { "one that is not there", nil, csv, "cannot be opened for reading" } })
  bad.cases{
    { "asking for a column that is not there", function()
      local path = files.put(folder, "columns.csv", "x,why\n1,2\n")
      local d = csv(path)
      return d
    end, 'columns.csv: has no column "y"', 'its 2 columns are "x", "why"' },
  }
end)

describe("a JSON file is refused:", function()
  local load = bp.json.load
  refused("eformat", {
    { "an empty one", "", load, "line 1" },
    { "one with a comma too many", '{"a": 1,\n"b": 2,}', load, "line 2, column" },
    { "a key twice", '{"a": 1, "a": 2}', load, "duplicate", "line 1, column" },
    { "text after the end", '{"a": 1} {}', load, "line 1, column" },
    { "bytes that are not UTF-8", '{"a": "\255"}', load, "line 1, column" },
  })
  refused("elimit", { { "one nested without end", ("["):rep(1e5), load, "nested more than", "deep" } })
end)

-- ---- pictures ------------------------------------------------------------------------------------------------------------------------

local function chunk(kind, body)
  local crc = 0xffffffff
  for i = 1, #kind + #body do
    crc = crc ~ (kind .. body):byte(i)
    for _ = 1, 8 do crc = crc & 1 == 1 and (crc >> 1) ~ 0xedb88320 or crc >> 1 end
  end
  return string.pack(">I4", #body) .. kind .. body .. string.pack(">I4", crc ~ 0xffffffff)
end

local SIGNATURE = "\137PNG\r\n\26\n"
local function png_header(width, height) return SIGNATURE .. chunk("IHDR", string.pack(">I4I4BBBBB", width, height, 8, 2, 0, 0, 0)) end

-- Grey, 8 x 8 pixels: one table of each kind, one block.
local function jpeg(width, height)
  local function segment(marker, body) return "\255" .. string.char(marker) .. string.pack(">I2", #body + 2) .. body end
  local code = "\0\1" .. ("\0"):rep(15)
  return "\255\216" .. segment(0xdb, "\0" .. ("\16"):rep(64)) .. segment(0xc0, "\8" .. string.pack(">I2I2", height, width) .. "\1\1\17\0")
    .. segment(0xc4, "\0" .. code) .. segment(0xc4, "\16" .. code) .. segment(0xda, "\1\1\0\0\63\0") .. "\15\255\217"
end

describe("a picture is refused:", function()
  local function load(path) return core.image_load(path, {}) end
  assert(core.image_save(folder:at "p.png", bp.ones(4, 5, 3):to "u8"))
  local png = core.read_file(folder:at "p.png")
  local bmp = "BM" .. string.pack("<I4I4I4I4i4i4I2I2I4I4i4i4I4I4", 58, 0, 54, 40, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0) .. "\1\2\3\0"

  it("(the whole ones are not)", function()
    assert.same({ 4, 5, 3 }, load(folder:at "p.png"):shape())
    assert.same({ 8, 8, 1 }, core.image_load(files.put(folder, "p.jpg", jpeg(8, 8)), { channels = 1 }):shape())
    assert.same({ 1, 1, 3 }, core.image_load(files.put(folder, "p.bmp", bmp), { channels = 3 }):shape())
  end)

  refused("eformat", {
    { "an empty one", "", load, "empty file", "expected a PNG, JPEG or BMP picture" },
    { "a text", "text", load, "begins with 74 65 78", "expected PNG, JPEG or BMP" },
    { "a GIF", "GIF89a....", load, "begins with 47 49 46", "expected PNG, JPEG or BMP" },
    { "a PNG cut after its signature", SIGNATURE, load, "truncated PNG", "offset 8" },
    { "a PNG cut in its pixels", png:sub(1, #png - 20), load, "truncated PNG", "offset" },
    { "a PNG with a wrong checksum", flipped(png, 45), load, "damaged PNG: the chunk at offset", "CRC-32" },
    { "a PNG without pixels", png_header(4, 4) .. chunk("IEND", ""), load, "PNG without pixels", "no IDAT chunk before offset" },
    { "a PNG whose pixels are damaged", png_header(4, 4) .. chunk("IDAT", "not compressed") .. chunk("IEND",
      ""), load, "damaged picture of 4 x 4 pixels" },
    { "a PNG of 0 pixels", png_header(0, 4) .. chunk("IDAT", "") .. chunk("IEND", ""), load, "0 x 4 pixels", "expected at least 1 x 1" },
    { "a JPEG cut in its header", jpeg(8, 8):sub(1, 50), load, "truncated JPEG", "offset" },
    { "a JPEG cut in its pixels", jpeg(8, 8):sub(1, -3), load, "truncated JPEG", "expected the marker ffd9" },
    { "a JPEG with a damaged marker", flipped(jpeg(8, 8), 72), load, "JPEG", "offset" },
    { "a BMP cut in its pixels", bmp:sub(1, -2), load, "truncated BMP", "bytes from offset 54" },
    { "a BMP with a header of another kind", bmp:sub(1, 14) .. "\99" .. bmp:sub(16), load, "header of 99 bytes at offset 14",
      "expected 12, 40" },
  })
  refused("elimit", {
    { "a PNG bomb", png_header(60000, 60000) .. chunk("IDAT", "x") .. chunk("IEND", ""), load, "60000 x 60000 pixels", "at most" },
    { "a JPEG bomb", jpeg(65500, 65500), load, "65500 x 65500 pixels", "at most" },
    { "a BMP bomb", bmp:sub(1, 18) .. string.pack("<i4i4", 2 ^ 30 | 0, 2 ^ 30 | 0) .. bmp:sub(27), load, "1073741824", "at most" },
  })
end)

-- ---- saving --------------------------------------------------------------------------------------------------------------------------

describe("saving keeps the old file where", function()
  local function model()
    bp.seed(5)
    return nn.sequential{ input = { 64 }, nn.dense(64), nn.dense(1) }
  end

  it("the path leads through a file", function()
    local path = files.put(folder, "file", "mine") .. "/model"
    bad.refuses("eio", function() return model():save(path) end, path, "cannot be written", "Not a directory")
    assert.equal("mine", core.read_file(folder:at "file"))
  end)

  it("the path is a folder, or one that is not there", function()
    bad.refuses("eio", function() return model():save(folder.path) end, folder.path, "cannot be written", "Is a directory")
    local path = folder:at "nowhere/model"
    bad.refuses("eio", function() return model():save(path) end, path, "cannot be written", "No such file or directory")
  end)

  it("the path is a device, full or not", function()
    for _, path in ipairs{ "/dev/full", "/dev/null" } do
      bad.refuses("eio", function() return model():save(path) end, path, "cannot be written")
    end
    bad.still_works()
  end)

  -- A limit on the size of files stands for a full disk: writing fails half way.
  it("the disk is full", function()
    local path = folder:at "kept.safetensors"
    assert(model():save(path))
    local old, before = core.read_file(path), core.list_folder(folder.path)
    local script = ([[
      local bp = require "bp"
      local net = bp.nn.sequential{ input = { 64 }, bp.nn.dense(64), bp.nn.dense(1) }
      local x = bp.ones(2, 64)
      local expected = net(x):sum():item()
      print(net:save "%s")
      assert(net(x):sum():item() == expected)
      net:compile{ loss = "mse" }
      net:fit{ x, bp.ones(2, 1), epochs = 1, verbose = 0 }
    ]]):format(path)
    local r = shell.run(("trap '' XFSZ; ulimit -f 8; %s -e %s"):format(shell.bplua, shell.quote(script)))
    assert.equal(0, r.code, r.err)
    assert.match("^nil\t" .. path:gsub("%p", "%%%0") .. ": writing failed: File too large; what was there before is intact\teio\n$", r.out)
    assert.equal(old, core.read_file(path))
    assert.same(before, (core.list_folder(folder.path)))
  end)

  it("the folder may not be written", function()
    local closed = folder:at "closed"
    files.put(folder, "closed/model", "old")
    local script = ([[
      local bp = require "bp"
      print(bp.nn.sequential{ input = { 3 }, bp.nn.dense(1) }:save "%s/model")
    ]]):format(closed)
    local as = shell.run("id -u").out == "0\n" and "setpriv --reuid=65534 --regid=65534 --clear-groups " or ""
    if as ~= "" and shell.run(as .. shell.bplua .. " -e ''").code ~= 0 then
      pending "root may write everywhere, and setpriv cannot become nobody here"
      return
    end
    os.execute(("chmod 755 %s; chmod 555 %s; chmod 644 %s/model"):format(folder.path, closed, closed))
    local r = shell.run(as .. shell.bplua .. " -e " .. shell.quote(script))
    os.execute("chmod 755 " .. closed)
    assert.match("model: cannot be written: Permission denied\teio", r.out)
    assert.equal("old", core.read_file(closed .. "/model"))
    assert.same({ "model" }, (core.list_folder(closed)))
  end)

  it("a checkpoint cannot be written: the training ends with the reason", function()
    local path = files.put(folder, "taken", "mine")
    local net = model():compile{ loss = "mse" }
    bad.raises(function()
      net:fit{ bp.ones(2, 64), bp.ones(2, 1), verbose = 0, callbacks = { bp.callbacks.checkpoint(path) } }
    end, "checkpoint: " .. path, "Not a directory")
    assert.equal("mine", core.read_file(path))
    bad.still_works()
  end)
end)

teardown(function() folder:remove() end)
