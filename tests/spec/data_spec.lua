--- Datasets: where they come from, how they are cut up, and what is said when something is wrong.
local bp = require "bp"
local core = require "bp.core"
local files = require "support.files"
local support = require "support.core"
local data, failure = bp.data, support.failure

local function numbers(n) return bp.arange(n):reshape(n, 1) end

-- Positions of all samples, batch by batch.
local function seen(dataset, given)
  local list = {}
  for batch in dataset:batches(given) do
    for _, position in ipairs(batch.index:totable()) do list[#list + 1] = position end
  end
  return list
end

local function sorted(list)
  local copy = table.move(list, 1, #list, 1, {})
  table.sort(copy)
  return copy
end

local function upto(n)
  local list = {}
  for i = 1, n do list[i] = i end
  return list
end

describe("a dataset of tensors", function()
  local before = support.alive()

  it("knows its size and columns", function()
    local x, y = bp.zeros(5, 2), bp.tensor({ 1, 2, 1, 2, 1 }, { dtype = "i64" })
    local d = data.tensors{ x, y, classes = { "a", "b" } }
    assert.equal(5, #d)
    assert.equal(5, d:size())
    assert.equal(x, d.x)
    assert.same({ "a", "b" }, d.classes)
    assert.is_nil(d.weight)
    assert.is_true(data.is_dataset(d))
    assert.is_false(data.is_dataset{})
    assert.equal("dataset of 5 samples: x f32 [2], y i64, 2 classes", tostring(d))
  end)

  it("goes through all samples once, in batches", function()
    local d = data.tensors{ numbers(10), numbers(10) * 10, weight = bp.ones(10) }
    local sizes = {}
    for batch in d:batches(4) do
      sizes[#sizes + 1] = batch.x:shape(1)
      assert.same((batch.x * 10):totable(), batch.y:totable())
      assert.equal(batch.x:shape(1), batch.weight:shape(1))
    end
    assert.same({ 4, 4, 2 }, sizes)
    assert.same(upto(10), seen(d, 4))
    assert.same(upto(8), seen(d, { 4, drop_last = true }))
    assert.same({}, seen(d, { 11, drop_last = true }))
    assert.same(upto(10), seen(d, 100))
  end)

  it("shuffles with the shuffle stream alone", function()
    local d = data.tensors{ x = numbers(20) }
    bp.seed(3)
    local first, second = seen(d, { 6, shuffle = true }), seen(d, { 6, shuffle = true })
    assert.same(upto(20), sorted(first))
    assert.is_false(pcall(assert.same, first, second))
    bp.seed(3)
    bp.randn(100)
    assert.same(first, seen(d, { 6, shuffle = true }))
    for batch in d:batches{ 6, shuffle = true } do assert.same(batch.index:totable(), batch.x:reshape(-1):totable()) end
  end)

  it("gives one batch again and again to who keeps none", function()
    local d = data.tensors{ numbers(23), numbers(23) }:subset{ 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5 }
    local batches = require "bp.data.batches"
    local plain, reused, first = d:batches(4), batches.iterate(d, 4, "reused"), nil
    for batch in plain do
      local same = reused()
      first = first or same
      assert.is_true(rawequal(first, same))
      assert.is_not_nil(batches.rows(same))
      assert.same(batch.index:totable(), same.index:totable())
      assert.is_not_nil(batches.rows(same))
      if batch.index:size(1) == 4 then assert.same(batch.x:totable(), same.x:totable()) else same.x = batch.x end
      assert.is_nil(batches.rows(same))
      assert.same(batch.y:totable(), same.y:totable())
    end
    assert.is_nil(reused())
  end)

  it("refuses to slide a view out of its tensor", function()
    local t = bp.arange(5)
    local view = t[{ { 1, 2 } }]
    for _, range in ipairs{ { 0, 1 }, { 2, 1 }, { 4, 6 }, { 1.5, 2 } } do
      assert.matches("slide: the range from", failure(core.slide, view, t, range[1], range[2]))
    end
    core.slide(view, t, 4, 5)
    assert.same({ 4, 5 }, view:totable())
  end)

  it("takes several tensors in one column", function()
    local d = data.tensors{ x = { numbers(6), side = { numbers(6) * 2 } }, y = numbers(6) }
    for batch in d:shuffle():batches(4) do
      assert.same((batch.x[1] * 2):totable(), batch.x.side[1]:totable())
      assert.same(batch.x[1]:totable(), batch.y:totable())
    end
  end)

  it("may be left in the middle of a loop", function()
    local d = data.tensors{ x = numbers(10) }
    for _ in d:batches(3) do break end -- luacheck: ignore 512
    assert.same(upto(10), seen(d, 3))
  end)

  it("has no batch when it has no sample", function()
    assert.same({}, seen(data.tensors{ x = bp.zeros(0, 3) }, { 4, shuffle = true }))
  end)

  it("hands functions samples of their own, so that what they write in place is not written into the data", function()
    local sets = {
      ["as stored"] = function(x, y) return data.tensors{ x, y } end,
      ["tables of tensors"] = function(x, y) return data.tensors{ { a = x, b = { bp.zeros(4, 1) } }, y } end,
      ["positions"] = function(x, y) return data.tensors{ x, y }:subset{ 4, 3, 2, 1 } end,
    }
    local function double(x, y)
      local part = bp.is_tensor(x) and x or x.a
      part:mul_(2)
      y:mul_(2)
      return x, y
    end
    for name, make in pairs(sets) do
      local x, y = bp.ones(4, 3), bp.ones(4, 1)
      for batch in make(x, y):map(double):batches(2) do assert.equal(2, batch.y[{ 1, 1 }]:item(), name) end
      assert.equal(12, x:sum():item(), name)
      assert.equal(4, y:sum():item(), name)
    end
    local x, y = bp.ones(4, 3), bp.ones(4, 1)
    local model = bp.nn.sequential{ bp.nn.dense(1) }
    model:compile{ optimizer = "sgd", loss = "mse" }
    for _, shuffle in ipairs{ false, true } do
      for _, callbacks in ipairs{ {}, { bp.callbacks.lambda{ on_batch_end = function() end } } } do
        model:fit{ { x, y }, epochs = 2, batch_size = 2, shuffle = shuffle, transform = double, callbacks = callbacks, verbose = 0 }
        assert.equal(12, x:sum():item())
        assert.equal(4, y:sum():item())
      end
    end
  end)

  it("maps a function over batches", function()
    local d = data.tensors{ numbers(4), numbers(4) }
    local mapped = d:map(function(x) return x + 100 end):map(function(x, y) return x, y * 2 end)
    for batch in mapped:batches(4) do
      assert.same({ { 101 }, { 102 }, { 103 }, { 104 } }, batch.x:totable())
      assert.same({ { 2 }, { 4 }, { 6 }, { 8 } }, batch.y:totable())
    end
    for batch in d:batches(4) do assert.same(upto(4), batch.x:reshape(-1):totable()) end
    local part = mapped:subset{ 2 }
    for batch in part:batches(4) do assert.same({ { 102 } }, batch.x:totable()) end
    assert.matches("map returned nil; expected x", failure(function() d:map(function() end):batches(1)() end))
    assert.matches("map: the value is a number %(3%); expected a function", failure(function() d:map(3) end))
  end)

  it("gives subsets of subsets", function()
    local d = data.tensors{ numbers(10), numbers(10) }
    local part = d:subset{ 2, 4, 6, 8 }:subset(bp.tensor({ 4, 1, 4 }, { dtype = "i64" }))
    assert.equal(3, #part)
    assert.same({ { 8 }, { 2 }, { 8 } }, part.x:totable())
    assert.equal(0, #d:subset{})
    assert.matches("subset: position 11; the dataset has 10 samples", failure(function() d:subset{ 11 } end))
    assert.matches("subset: position 0", failure(function() d:subset{ 3, 0 } end))
    assert.matches("subset: entry 2 is a number %(1.5%)", failure(function() d:subset{ 1, 1.5 } end))
    assert.matches("subset: the positions are f32", failure(function() d:subset(bp.ones(2)) end))
  end)

  it("refuses columns that do not fit", function()
    assert.matches("data.tensors: y has 3 samples; expected 2", failure(function() data.tensors{ bp.ones(2, 1), bp.ones(3) } end))
    assert.matches("x.side has 3 samples", failure(function() data.tensors{ x = { bp.ones(2, 1), side = bp.ones(3) } } end))
    assert.matches("option 'x' is missing", failure(function() data.tensors{} end))
    assert.matches("x is a single number", failure(function() data.tensors{ x = bp.tensor(3) } end))
    assert.matches("x%.1 is a string", failure(function() data.tensors{ x = { "a" } } end))
    assert.matches("unknown option 'class' %(did you mean 'classes'%?%)",
      failure(function() data.tensors{ x = bp.ones(2), class = {} } end))
  end)

  it("words misuse of its methods", function()
    local d = data.tensors{ x = numbers(4) }
    assert.matches("unknown option 'shufle' %(did you mean 'shuffle'%?%)", failure(function() d:batches{ 2, shufle = true } end))
    assert.matches("option 'size' is a number %(0%); expected a whole number at least 1", failure(function() d:batches(0) end))
    assert.matches("write dataset:batches%(%.%.%.%) with ':'", failure(function() d.batches(2) end))
    assert.matches("'x' cannot be replaced", failure(function() d.x = 1 end))
    assert.matches("data_spec.lua:%d+: ", failure(function() d:batches(0) end))
  end)

  it("leaves nothing behind", function() assert.equal(before, support.alive()) end)
end)

describe("dataset:split", function()
  local function labelled(counts)
    local list = {}
    for class, n in ipairs(counts) do
      for _ = 1, n do list[#list + 1] = class end
    end
    return data.tensors{ numbers(#list), bp.tensor(list, { dtype = "i64" }), classes = upto(#counts) }
  end

  local function rows(dataset) return dataset.x:reshape(-1):totable() end

  local function mix(dataset, classes)
    local counts = {}
    for class = 1, classes do counts[class] = dataset.y:eq(class):sum():item() end
    return counts
  end

  it("deals out every sample once", function()
    local d = data.tensors{ numbers(10), numbers(10) }
    local a, b, c = d:split{ 0.5, 0.3, 0.2 }
    assert.same({ 5, 3, 2 }, { #a, #b, #c })
    local all = rows(a)
    for _, part in ipairs{ b, c } do table.move(rows(part), 1, #part, #all + 1, all) end
    assert.is_false(pcall(assert.same, upto(10), all))
    assert.same(upto(10), sorted(all))
    a, b = d:split{ 0.75, 0.25, shuffle = false }
    assert.same(upto(8), rows(a))
    assert.same({ 9, 10 }, rows(b))
    a, b = d:split{ 9, 1 }
    assert.same({ 9, 1 }, { #a, #b })
  end)

  it("gives the same parts for the same seed", function()
    local d = labelled{ 10, 10 }
    bp.seed(5)
    local a = d:split{ 0.8, 0.2 }
    bp.seed(5)
    bp.randn(3)
    local b = d:split{ 0.8, 0.2 }
    assert.same(rows(a), rows(b))
    assert.is_false(pcall(assert.same, rows(b), rows((d:split{ 0.8, 0.2 }))))
  end)

  it("keeps the mix of classes", function()
    for _, counts in ipairs{ { 50, 30, 20 }, { 5, 5, 5, 5, 5, 5, 5, 5, 5, 5 }, { 97, 2, 1 }, { 3 } } do
      local d = labelled(counts)
      for _, shares in ipairs{ { 0.8, 0.2 }, { 0.9, 0.1 }, { 0.4, 0.35, 0.25 } } do
        local parts, n = { pcall(d.split, d, shares) }, 0
        if #d >= 50 then
          assert.is_true(parts[1], parts[2])
          local all = {}
          for i, share in ipairs(shares) do
            local part = parts[i + 1]
            n = n + #part
            table.move(rows(part), 1, #part, #all + 1, all)
            assert.near(share * #d, #part, 1)
            for class, count in ipairs(mix(part, #counts)) do assert.near(share * counts[class], count, #shares) end
          end
          assert.equal(#d, n)
          assert.same(upto(#d), sorted(all))
        end
      end
    end
    -- in two parts no class is off by more than one
    local train, test = labelled{ 600, 300, 100 }:split{ 0.9, 0.1 }
    assert.same({ 540, 270, 90 }, mix(train, 3))
    assert.same({ 60, 30, 10 }, mix(test, 3))
  end)

  it("keeps the order when told not to shuffle", function()
    local a, b = labelled{ 4, 4 }:split{ 0.5, 0.5, shuffle = false }
    assert.same(sorted(rows(a)), rows(a))
    assert.same({ 2, 2 }, mix(b, 2))
    assert.same({ "1", "2" }, { tostring(a.classes[1]), tostring(b.classes[2]) })
  end)

  it("says what is wrong with the shares", function()
    local d = data.tensors{ numbers(10), bp.ones(10) }
    assert.matches("the shares add up to 0.9; expected 1", failure(function() d:split{ 0.7, 0.2 } end))
    assert.matches("the parts have 11 samples together; the dataset has 10", failure(function() d:split{ 10, 1 } end))
    assert.matches("part 2 is a number %(%-0.2%); expected a share above 0", failure(function() d:split{ 1.2, -0.2 } end))
    assert.matches("part 2 %(0.01%) of 10 samples is empty", failure(function() d:split{ 0.99, 0.01 } end))
    assert.matches("no parts; expected their shares", failure(function() d:split{} end))
    assert.matches("stratify needs labels", failure(function() d:split{ 0.5, 0.5, stratify = true } end))
    assert.matches("unknown option 'stratified' %(did you mean 'stratify'%?%)",
      failure(function() d:split{ 0.5, 0.5, stratified = true } end))
    assert.matches("the parts are a number", failure(function() d:split(0.5) end))
  end)
end)

describe("data.csv", function()
  local folder <const> = files.folder()
  teardown(function() folder:remove() end)

  local iris = "sepal,petal,kind\n5.1,1.4,setosa\n7,4.7,versicolor\n6.3,6,virginica\n4.9,1.5,setosa\n"

  it("reads numbers and classes", function()
    local d = assert(data.csv{ folder:put("iris.csv", iris), target = "kind" })
    assert.equal(4, #d)
    assert.same({ "sepal", "petal" }, d.features)
    assert.same({ "setosa", "versicolor", "virginica" }, d.classes)
    assert.same({ 1, 2, 3, 1 }, d.y:totable())
    assert.near(4.7, d.x[2][2]:item(), 1e-6)
    assert.equal("f32", d.x.dtype)
  end)

  it("spreads classes among the inputs over columns", function()
    local d = assert(data.csv{ folder:put("iris.csv", iris), target = "sepal", dtype = "f64" })
    assert.same({ "petal", "kind=setosa", "kind=versicolor", "kind=virginica" }, d.features)
    assert.same({ { 1.4, 1, 0, 0 }, { 4.7, 0, 1, 0 }, { 6, 0, 0, 1 }, { 1.5, 1, 0, 0 } }, d.x:totable())
    assert.same({ { 5.1 }, { 7 }, { 6.3 }, { 4.9 } }, d.y:totable())
  end)

  it("takes the columns named, and several targets", function()
    local path = folder:put("t.csv", "a,b,c,d\n1,2,3,x\n5,6,7,y\n")
    local d = assert(data.csv{ path, columns = { "c", "a" } })
    assert.same({ { 3, 1 }, { 7, 5 } }, d.x:totable())
    assert.is_nil(d.y)
    d = assert(data.csv{ path, columns = { "b" }, target = { "a", "c" } })
    assert.same({ { 1, 3 }, { 5, 7 } }, d.y:totable())
    d = assert(data.csv{ path, columns = { "b" }, target = "a", classes = { "a" } })
    assert.same({ "1", "5" }, d.classes)
    d = assert(data.csv{ folder:put("n.csv", "1;2,5\n3;4,5\n"), target = "2", decimal = "," })
    assert.same({ { 2.5 }, { 4.5 } }, d.y:totable())
  end)

  it("leaves out rows on request", function()
    local path = folder:put("m.csv", "a,b\n1,2\n,3\nNA,4\n5,6\n")
    assert.equal(2, assert(data.csv{ path, missing = "skip", na = "NA" }).skipped)
    local x = assert(data.csv{ path, missing = "nan", na = "NA" }).x
    assert.equal(2, x:isfinite():logical_not():sum():item())
  end)

  it("refuses what it cannot read, by place", function()
    local function refused(text, given)
      given = given or {}
      given[1] = folder:put("bad.csv", text)
      local d, message, code = data.csv(given)
      assert.is_nil(d)
      assert.equal("eformat", code)
      assert.matches("bad.csv", message, 1, true)
      return message
    end
    assert.matches("bad.csv:3:2: column \"b\": found \"x\"; expected a number", refused "a,b\n1,2\n3,x\n")
    assert.matches("bad.csv:3:1: found a row of 1 cells; expected 2", refused "a,b\n1,2\n3\n")
    assert.matches("no column is left for x", refused("a\n1\n", { target = "a" }))
    local d, message, code = data.csv(folder:at "none.csv")
    assert.is_nil(d)
    assert.matches("No such file", message)
    assert.equal("eio", code)
  end)

  it("raises on misuse", function()
    local path = folder:put("iris.csv", iris)
    assert.matches("has no column \"kid\"; its 3 columns are \"sepal\"", failure(function() data.csv{ path, target = "kid" } end))
    assert.matches("unknown option 'targets' %(did you mean 'target'%?%)", failure(function() data.csv{ path, targets = "kind" } end))
    assert.matches("option 'separator' is ',,'; one character", failure(function() data.csv{ path, separator = ",," } end))
    assert.matches("column 'kind' is in 'columns' and in 'target'",
      failure(function() data.csv{ path, columns = { "kind" }, target = "kind" } end))
  end)
end)

describe("data.idx", function()
  local folder <const> = files.folder()
  teardown(function() folder:remove() end)

  it("reads a tensor, or a dataset with labels from 1", function()
    local x = folder:put("x", files.idx(8, { 3, 2, 2 }, "\0\1\2\3\4\5\6\7\8\9\10\11"))
    local y = folder:put("y", files.idx(8, { 3 }, "\2\0\1"))
    assert.same({ 3, 2, 2 }, assert(data.idx(x)):shape())
    local d = assert(data.idx{ x, y, classes = { "a", "b", "c" } })
    assert.same({ 3, 2, 2, 1 }, d.x:shape())
    assert.same({ 3, 1, 2 }, d.y:totable())
    assert.equal("u8", d.x.dtype)
    local bad, message, code = data.idx{ x, y, classes = { "a", "b" } }
    assert.is_nil(bad)
    assert.matches("label 2, counted from 0; there are 2 classes", message)
    assert.equal("eformat", code)
    bad, message = data.idx{ x, folder:put("short", files.idx(8, { 2 }, "\0\1")) }
    assert.is_nil(bad)
    assert.matches("has 3 samples, .* 2 labels", message)
    bad, message, code = data.idx(folder:put("text", "hello"))
    assert.is_nil(bad)
    assert.matches("text: not an IDX file: begins with 68 65 6c 6c", message)
    assert.equal("eformat", code)
  end)

  it("finds Fashion-MNIST, or says how to get it", function()
    local empty, message, code = data.fashion_mnist{ folder = folder.path }
    assert.is_nil(empty)
    assert.matches("apt-get install dataset-fashion-mnist", message, 1, true)
    assert.equal("eio", code)
    for _, part in ipairs{ "train", "t10k" } do
      folder:put(part .. "-images-idx3-ubyte", files.idx(8, { 2, 1, 1 }, "\7\8"))
      folder:put(part .. "-labels-idx1-ubyte", files.idx(8, { 2 }, "\9\0"))
    end
    local train, test = assert(data.fashion_mnist(folder.path))
    assert.same({ 10, 1 }, train.y:totable())
    assert.equal("Ankle boot", test.classes[10])
    assert.matches("unknown option 'dir'", failure(function() data.fashion_mnist{ dir = "x" } end))
  end)
end)

describe("data.images", function()
  local folder <const> = files.folder()
  teardown(function() folder:remove() end)

  local function picture(name, value, height, width)
    local path = folder:at(name)
    assert(core.make_folder(path:match "^(.*)/"))
    assert(core.image_save(path, bp.ops.full{ shape = { height or 4, width or 4, 3 }, value = value, dtype = "u8" }))
    return path
  end
  picture("set/cat/a.png", 10)
  picture("set/cat/b.PNG", 20)
  picture("set/dog/c.png", 30)
  folder:put("set/dog/notes.txt", "not a picture")

  it("reads a folder for each class", function()
    local d = assert(data.images(folder:at "set"))
    assert.same({ 3, 4, 4, 3 }, d.x:shape())
    assert.same({ "cat", "dog" }, d.classes)
    assert.same({ 1, 1, 2 }, d.y:totable())
    assert.same({ 10, 20, 30 }, d.x[{ {}, 1, 1, 1 }]:totable())
    assert.equal(folder:at "set/cat/b.PNG", d.files[2])
    d = assert(data.images{ folder:at "set", size = { 2, 5 }, channels = 1 })
    assert.same({ 3, 2, 5, 1 }, d.x:shape())
    assert.same({ 10, 20, 30 }, d.x[{ {}, 1, 1, 1 }]:totable())
    d = assert(data.images{ folder:at "set/cat", labels = "none" })
    assert.equal(2, #d)
    assert.is_nil(d.y)
  end)

  it("names the bad file, or leaves it out", function()
    local good = assert(core.read_file(picture("bad/a/1.png", 1)))
    folder:put("bad/a/2.png", good:sub(1, -20))
    folder:put("bad/b/3.jpg", "no picture at all")
    picture("bad/b/4.png", 4)
    local d, message, code = data.images(folder:at "bad")
    assert.is_nil(d)
    assert.matches("bad/a/2.png: truncated PNG", message, 1, true)
    assert.matches("skip_bad = true", message, 1, true)
    assert.equal("eformat", code)
    d = assert(data.images{ folder:at "bad", skip_bad = true })
    assert.equal(2, #d)
    assert.same({ 1, 2 }, d.y:totable())
    assert.equal(2, #d.skipped)
    assert.matches("3.jpg: not a picture that can be read", d.skipped[2].message, 1, true)
  end)

  it("wants one size, or is told which", function()
    picture("sizes/a/1.png", 1, 4, 4)
    local wide = picture("sizes/a/2.png", 1, 4, 5)
    local d, message = data.images(folder:at "sizes")
    assert.is_nil(d)
    assert.matches(wide .. ": has 4 x 5 pixels (height x width), those before 4 x 4; give size", message, 1, true)
    assert.equal(2, #assert(data.images{ folder:at "sizes", size = { 3, 3 } }))
  end)

  it("says when there is nothing", function()
    local d, message, code = data.images(folder:at "set/cat")
    assert.is_nil(d)
    assert.matches("expected one folder for each class", message)
    assert.equal("eio", code)
    d, message = data.images(folder:at "nowhere")
    assert.is_nil(d)
    assert.matches("nowhere: cannot be listed: No such file", message)
    assert.matches("option 'channels' is 2", failure(function() data.images{ folder.path, channels = 2 } end))
    assert.matches('expected one of "directory", "none"', failure(function() data.images{ folder.path, labels = "folders" } end))
  end)
end)
