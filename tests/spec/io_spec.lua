--- Files as Lua sees them: weights, pictures, JSON, folders.
local bp = require "bp"
local core = require "bp.core"
local files = require "support.files"
local support = require "support.core"
local failure = support.failure
local json = bp.json

-- nil, message, code, with the texts in the message.
local function refused(code, texts, ...)
  local value, message, got = ...
  assert.is_nil(value)
  assert.equal(code, got, message)
  for _, text in ipairs(texts) do assert.matches(text, message, 1, true) end
end

describe("safetensors", function()
  local folder <const> = files.folder()
  teardown(function() folder:remove() end)
  local before = support.alive()

  it("brings tensors and metadata back, bit by bit", function()
    local path, tensors = folder:at "t.safetensors", {}
    for _, dtype in ipairs{ "f32", "f64", "i32", "i64", "u8", "bool" } do
      tensors[dtype] = bp.tensor({ { 0, 1 }, { 1, 1 } }, { dtype = dtype })
    end
    tensors.view = bp.arange(6):reshape(2, 3):t()
    tensors.number = bp.tensor(2.5)
    tensors.empty = bp.zeros(0, 3)
    assert.is_true(bp.save_tensors(path, tensors, { note = "ü", ["bplua.model"] = "{}" }))
    local back, metadata = bp.load_tensors(path)
    for name, tensor in pairs(tensors) do
      assert.equal(tensor.dtype, back[name].dtype)
      assert.same(tensor:shape(), back[name]:shape())
      assert.same(tensor:totable(), back[name]:totable())
    end
    assert.same({ note = "ü", ["bplua.model"] = "{}" }, metadata)
    assert.is_true(bp.save_tensors(folder:at "again", back, metadata))
    assert.equal(core.read_file(path), core.read_file(folder:at "again"))
  end)

  it("notices damage anywhere", function()
    local path = folder:at "d.safetensors"
    assert(bp.save_tensors(path, { weight = bp.arange(100) }))
    local text = core.read_file(path)
    for _, at in ipairs{ 1, 8, 9, 30, 50, #text // 2, #text } do
      folder:put("d.safetensors", text:sub(1, at - 1) .. string.char(text:byte(at) ~ 1) .. text:sub(at + 1))
      refused("eformat", { "d.safetensors" }, bp.load_tensors(path))
    end
    folder:put("d.safetensors", text:sub(1, -2))
    refused("eformat", { "d.safetensors: truncated" }, bp.load_tensors(path))
    folder:put("d.safetensors", "PK\3\4 a zip file, as torch.save writes it")
    refused("eformat", { "not a safetensors file" }, bp.load_tensors(path))
    refused("eio", { "No such file" }, bp.load_tensors(folder:at "none"))
    refused("eio", { "Is a directory" }, bp.load_tensors(folder.path))
  end)

  it("refuses to save what cannot be", function()
    local path, x = folder:at "no", bp.ones(1)
    assert.matches("save: 'x' is 1; a tensor is expected", failure(bp.save_tensors, path, { x = 1 }))
    assert.matches("called 1; names are strings", failure(bp.save_tensors, path, { x }))
    assert.matches("metadata 'k' is 1; a string", failure(bp.save_tensors, path, { x = x }, { k = 1 }))
    assert.matches("not UTF%-8", failure(bp.save_tensors, path, { ["\255"] = x }))
    assert.matches("this tensor was freed", failure(function()
      local y = bp.ones(2)
      y:free()
      bp.save_tensors(path, { y = y })
    end))
    refused("eio", { "nowhere/file: cannot be written: No such file" }, bp.save_tensors(folder:at "nowhere/file", { x = x }))
    assert.is_nil((core.read_file(path)))
  end)

  it("leaves nothing behind", function() assert.equal(before, support.alive()) end)
end)

describe("pictures", function()
  local folder <const> = files.folder()
  teardown(function() folder:remove() end)

  it("come back from PNG as they were", function()
    for channels = 1, 4 do
      local x = bp.ops.random_integers{ shape = { 5, 7, channels }, low = 0, high = 255 }:to "u8"
      assert.is_true(core.image_save(folder:at "x.png", x))
      assert.same(x:totable(), core.image_load(folder:at "x.png"):totable())
    end
  end)

  it("are resized", function()
    local x = bp.tensor({ { 0, 100 }, { 100, 200 } }, { dtype = "u8" }):reshape(2, 2, 1)
    assert.same({ { 0, 25, 75, 100 }, { 25, 50, 100, 125 }, { 75, 100, 150, 175 }, { 100, 125, 175, 200 } },
      core.image_resize(x, 4, 4):reshape(4, 4):totable())
    assert.same({ 100 }, core.image_resize(x, 1, 1):reshape(1):totable())
    assert.matches("cannot be resized to 0 x 4", failure(core.image_resize, x, 0, 4))
    assert.matches("found f32 %[3%]", failure(core.image_resize, bp.ones(3), 1, 1))
  end)

  it("say what is wrong", function()
    refused("eformat", { "x.jpg: empty file" }, core.image_load(folder:put("x.jpg", "")))
    refused("eformat", { "not a picture that can be read: begins with 74 65 78" }, core.image_load(folder:put("x.jpg", "text")))
    assert.matches("found f32 %[2x2x3%]; expected u8", failure(core.image_save, folder:at "f.png", bp.ones(2, 2, 3)))
    assert.matches("unknown option 'sise' %(did you mean 'size'%?%)", failure(core.image_load, "x", { sise = { 1, 1 } }))
    assert.matches("option 'size' is a table; {height, width}", failure(core.image_load, "x", { size = { 1, 0 } }))
  end)
end)

describe("json", function()
  local folder <const> = files.folder()
  teardown(function() folder:remove() end)

  it("brings values back", function()
    local value = {
      name = "ä\n\0", list = { 1, 2.5, -3, true, false, { deep = {} } }, big = math.maxinteger, tiny = 5e-324, third = 1 / 3, one = 1.0,
    }
    local back = json.decode(json.encode(value))
    assert.same(value, back)
    assert.equal("float", math.type(back.one))
    assert.equal("integer", math.type(back.big))
    assert.is_true(json.save(folder:at "v.json", value))
    assert.same(value, json.load(folder:at "v.json"))
  end)

  it("writes in one order and form", function()
    assert.equal('{"a":1,"b":[],"c":{},"d":null}', json.encode{ d = json.null, c = {}, b = json.array(), a = 1 })
    assert.equal("[]", json.encode({}, { empty = "array" }))
    assert.equal('{\n  "a": [\n    1,\n    2\n  ]\n}', json.encode({ a = { 1, 2 } }, { indent = 2 }))
    assert.equal("0.1", json.encode(0.1))
    assert.equal(json.null, json.decode "null")
    assert.same({ json.null, 1 }, json.decode "[null,1]")
  end)

  it("refuses what has no JSON", function()
    local loop = {}
    loop.loop = loop
    assert.matches("does one contain itself", failure(json.encode, loop))
    assert.matches("both a list and names", failure(json.encode, { 1, a = 2 }))
    assert.matches("has holes", failure(json.encode, { 1, nil, 3 }))
    assert.matches("the number nan has no JSON", failure(json.encode, 0 / 0))
    assert.matches("not UTF%-8", failure(json.encode, "\255"))
    assert.matches("found a function", failure(json.encode, { print }))
    assert.matches("the key 1.5", failure(json.encode, { [1.5] = 1 }))
    assert.matches("found a tensor f32 %[1%]", failure(json.encode, { bp.ones(1) }))
  end)

  it("refuses what is no JSON, by place", function()
    refused("eformat", { "line 2, column 4", "duplicate object key" }, json.decode '{"a": 1,\n "a": 2}')
    refused("eformat", { "conf.json: line 1, column 2" }, json.decode("[1", "conf.json"))
    refused("elimit", { "nested more than 64 deep" }, json.decode(("["):rep(100000)))
    refused("eio", { "No such file" }, json.load(folder:at "none.json"))
    assert.matches("json.decode: argument 1 is nil", failure(json.decode))
  end)
end)

describe("folders", function()
  it("are listed in order", function()
    local folder <close> = files.folder()
    folder:put("b", "")
    folder:put("a/c", "")
    local names, folders = core.list_folder(folder.path)
    assert.same({ "a", "b" }, names)
    assert.same({ a = true }, folders)
    assert.is_true(core.remove_file(folder:at "b"))
    refused("eio", { "cannot be removed" }, core.remove_file(folder:at "b"))
    refused("eio", { "cannot be listed" }, core.list_folder(folder:at "b"))
    refused("eio", { "cannot be made" }, core.make_folder(folder:at "a/c/d"))
    assert.matches("the path is empty", failure(core.list_folder, ""))
    assert.matches("the path is cut by a zero byte", failure(core.read_file, "a\0b"))
  end)

  it("keep an old file when the new one cannot be written", function()
    local folder <close> = files.folder()
    local path = folder:put("kept", "old")
    assert.is_true(core.write_file(path, "new"))
    assert.equal("new", core.read_file(path))
    assert.same({ "kept" }, (core.list_folder(folder.path)))
    refused("eio", { "Is a directory" }, core.write_file(folder.path, "text"))
  end)
end)
