--- bp.text, nn.text_vectorization and data.sequences.
local bad = require "support.bad"
local bp = require "bp"
local data, nn, text = bp.data, bp.nn, bp.text

local function joined(list) return table.concat(list, "|") end

describe("text", function()
  it("cuts into words", function()
    assert.equal("hello|world|it|s|x_1|3|14", joined(text.words "Hello, World! it's x_1 = 3.14"))
    assert.equal("ünïcode|quoted|äö|привет|αβγ|5", joined(text.words "Ünïcode — “quoted” ÄÖ «Привет» ΑΒΓ ×5…"))
    assert.equal("Ünïcode|ÄÖ", joined(text.words("Ünïcode ÄÖ", { lower = false })))
    assert.same({}, text.words "")
    assert.same({}, text.words " ,;\n\t")
    assert.equal("a|b", joined(text.words "a\0b"))
    assert.equal("caf|bar|ä", joined(text.words "Caf\xe9 bar\x80 Ä")) -- bytes that are no UTF-8 end a word
  end)

  it("cuts into characters and bytes", function()
    assert.equal("a|Ä|€|😀", joined(text.characters "aÄ€😀"))
    assert.equal("a|\u{FFFD}|b|\u{FFFD}", joined(text.characters "a\xffb\xc3"))
    assert.equal("\u{FFFD}|\u{FFFD}|ä", joined(text.characters "\x80\xe4ä"))
    assert.equal("a|ä", joined(text.characters("AÄ", { lower = true })))
    assert.same({ "\xC3", "\x84" }, text.bytes "Ä")
  end)

  it("knows small letters", function()
    assert.equal("äöüß éèêë ñ çøåæœ ŵ ž ÿ", text.lower "ÄÖÜß ÉÈÊË Ñ ÇØÅÆŒ Ŵ Ž Ÿ")
    assert.equal("άλφα ωώ привет ђѓё ѣ ґ", text.lower "ΆΛΦΑ ΩΏ ПРИВЕТ ЂЃЁ Ѣ Ґ")
    assert.equal("×÷ 日本", text.lower "×÷ 日本")
  end)

  it("counts a vocabulary", function()
    local lists = { text.words "b a c a", text.words "a b d" }
    local v = text.vocabulary{ lists }
    assert.same({ "a", "b", "c", "d" }, v:list())
    assert.equal(6, #v)
    assert.same({ 3, 2, 6 }, v:encode{ "a", "z", "d" })
    assert.same({ "a", "<unk>", "d" }, v:decode(bp.tensor({ 3, 2, 6, 1, 1 }, { dtype = "i64" })))
    assert.same({ "a", "b" }, text.vocabulary{ lists, min_count = 2 }:list())
    assert.same({ "a" }, text.vocabulary{ lists, max_size = 3 }:list())
    assert.same({}, text.vocabulary{ lists, max_size = 2 }:list())
    assert.same({ 4, 3 }, text.vocabulary{ tokens = { "x", "y" } }:encode{ "y", "x" })
  end)

  it("pads", function()
    local lists = { { 5, 6, 7 }, {}, { 8 } }
    local x, lengths = text.pad{ lists }
    assert.same({ { 5, 6, 7 }, { 1, 1, 1 }, { 8, 1, 1 } }, x:totable())
    assert.same({ 3, 0, 1 }, lengths:totable())
    x, lengths = text.pad{ lists, length = 2, value = 9, side = "beginning", cut = "beginning" }
    assert.same({ { 6, 7 }, { 9, 9 }, { 9, 8 } }, x:totable())
    assert.same({ 2, 0, 1 }, lengths:totable())
    assert.same({ 0, 0 }, text.pad{ {} }:shape())
  end)

  it("drops and swaps tokens, as the seed says", function()
    local list = {}
    for i = 1, 1000 do list[i] = i end
    bp.seed(4)
    local few, other = text.drop(list, 0.3), text.swap(list, 0.2)
    assert.near(700, #few, 60)
    for i = 2, #few do assert.is_true(few[i] > few[i - 1]) end
    local moved = 0
    for i, v in ipairs(other) do
      assert.is_true(math.abs(v - i) <= 1)
      moved = moved + (v ~= i and 1 or 0)
    end
    assert.is_true(moved > 200 and moved < 450)
    table.sort(other)
    assert.same(list, other)
    bp.seed(4)
    assert.same(few, text.drop(list, 0.3))
    assert.equal(1, #text.drop({ 1, 2 }, 0.999999))
    assert.same({}, text.drop({}, 0.5))
  end)
end)

local lines = { "the cat sat", "a dog and a cat", "stocks fell today", "the bank lent money and stocks rose again", "dog", "money money" }
local labels = { 1, 1, 2, 2, 1, 2 }

describe("data.sequences", function()
  local function dataset(n, given)
    local lists, y = {}, {}
    for i = 1, n do
      lists[i], y[i] = {}, i
      for k = 1, i * 7 % 19 do lists[i][k] = 10 * i + k end
    end
    given = given or {}
    given[1], given[2] = lists, y
    return data.sequences(given), lists
  end

  it("gives every sample once, filled up at the end, whatever the order", function()
    for _, o in ipairs{ {}, { shuffle = true }, { bucket = 3 }, { shuffle = true, bucket = 2 }, { shuffle = true, bucket = 1 },
      { shuffle = true, drop_last = true } } do
      local set, lists = dataset(103)
      o[1] = 10
      local seen, steps, count = {}, 0, 0
      for batch in set:batches(o) do
        assert.equal(0, batch.x:shape(2) % 8)
        steps = steps + batch.x:numel()
        for row, ids in ipairs(batch.x:totable()) do
          local i = batch.y[row]:item()
          assert.is_nil(seen[i])
          seen[i], count = true, count + 1
          for t, id in ipairs(ids) do assert.equal(lists[i][t] or 1, id) end
        end
      end
      assert.equal(o.drop_last and 100 or 103, count)
    end
  end)

  it("wastes less with buckets", function()
    local set = dataset(400, { round = 1 })
    local without, with = data.padding_share{ set }, data.padding_share{ set, bucket = 50 }
    assert.is_true(without > 0.3 and with < 0.1, ("%g and %g"):format(without, with))
  end)

  it("can be split, and goes on where it stood", function()
    local set = dataset(100)
    local part, rest = set:split{ 0.8, 0.2 }
    assert.equal(80, #part)
    assert.equal(20, rest.x:shape(1))
    bp.seed(3)
    local all, again = {}, {}
    local batches = part:batches{ 8, shuffle = true }
    local state
    for batch in batches do
      all[#all + 1] = batch.y:totable()
      if #all == 4 then state = batches:state() end
    end
    for batch in part:batches{ 8, shuffle = true, resume = state } do again[#again + 1] = batch.y:totable() end
    assert.same(table.move(all, 5, #all, 1, {}), again)
  end)
end)

describe("nn.text_vectorization", function()
  it("adapts, encodes and decodes", function()
    local vectorize = nn.text_vectorization():adapt(lines)
    assert.equal("cat", vectorize:vocabulary():token(6))
    assert.same({ { 6, 2 }, {} }, vectorize:encode{ "Cat elephant", "" })
    assert.same({ "cat <unk>", "" }, vectorize:decode(vectorize{ "Cat elephant", "" }))
    assert.equal(8, (nn.text_vectorization(8):adapt(lines)):size())
    local by_byte = nn.text_vectorization{ mode = "character", length = 4 }:adapt{ "abcÄ" }
    assert.same({ "Äbc", "abca" }, by_byte:decode(by_byte{ "Äbc", "abcabc" }))
  end)

  it("holds any bytes, and is saved with them", function()
    local all = {}
    for byte = 0, 255 do all[byte + 1] = string.char(byte) end
    local odd = table.concat(all)
    for mode, expected in pairs{ byte = odd, character = false, word = false } do
      local layer = nn.text_vectorization{ mode = mode }:adapt{ odd, "Ä \xff" }
      local model, path = nn.sequential{ layer }, os.tmpname()
      local ids = layer{ odd }
      if expected then assert.equal(expected, layer:decode(ids)[1]) end
      model(ids)
      assert(model:save(path))
      local loaded = assert(bp.load(path))
      os.remove(path)
      assert.same(ids:totable(), loaded:predict{ odd }:totable())
    end
  end)

  it("is shown in a line, however many tokens it has", function()
    local many = {}
    for i = 1, 1000 do many[i] = "word" .. i end
    assert.is_true(#tostring(nn.text_vectorization():adapt(many)) < 200)
  end)

  it("lets a model train on texts and answer them, and is saved with it", function()
    nn.register("text_spec.counts", function(x) return bp.one_hot(x, { classes = 40 })[{ {}, {}, { 3, 40 } }]:sum{ axes = 2 } end)
    local results = {}
    for _, captured in ipairs{ true, false } do
      bp.seed(1)
      local vectorize = nn.text_vectorization():adapt(lines)
      local model = nn.sequential{ vectorize, nn.lambda "text_spec.counts", nn.dense(2) }
      model:compile{ optimizer = bp.optim.adam{ lr = 0.1 }, loss = "sparse_categorical_crossentropy", metrics = { "accuracy" } }
      local y = bp.tensor(labels, { dtype = "i64" })
      model:fit{ lines, y, epochs = 20, batch_size = 4, verbose = 0, capture = captured }
      assert.equal(1, model:evaluate{ lines, y }.accuracy)
      local answers = model:predict{ "my dog", "stocks fell", "the cat" }
      assert.same({ 1, 2, 1 }, answers:argmax{ axis = 2 }:totable())
      local path = os.tmpname()
      assert(model:save(path))
      local loaded = assert(bp.load(path))
      os.remove(path)
      assert.is_true(loaded:predict{ "my dog", "stocks fell", "the cat" }:eq(answers):all():item())
      assert.is_true(loaded:predict{ x = { "my dog" } }:eq(answers[{ { 1, 1 } }]):all():item())
      results[#results + 1] = answers:totable()
    end
    assert.same(results[1], results[2])
  end)
end)

describe("text tools refuse", function()
  local v = text.vocabulary{ tokens = { "a" } }
  local vectorize = nn.text_vectorization()
  bad.cases{
    { "words of a number", function() text.words(3) end, "text.words: the text is a number (3)", "expected a string" },
    { "characters of nil", function() text.characters() end, "the text is nil", "expected a string" },
    { "a vocabulary of nothing", function() text.vocabulary{} end, "neither lists nor tokens", "tokens = { ... }" },
    { "a vocabulary of both", function() text.vocabulary{ {}, tokens = {} } end, "both given", "either" },
    { "a vocabulary of strings", function() text.vocabulary{ { "a text" } } end, "list 1 is a string", "text.words" },
    { "a token twice", function() text.vocabulary{ tokens = { "a", "b", "a" } } end, "\"a\" stands at 1 and at 3", "each once" },
    { "a token that is none", function() text.vocabulary{ tokens = { 3 } } end, "token 1 is a number", "expected a string" },
    { "encoding a string", function() v:encode "a text" end, "encode takes a list of tokens", "text.words" },
    { "an id beyond", function() v:decode{ 4 } end, "id 4", "expected 1 to 3" },
    { "padding strings", function() text.pad{ { "ab" } } end, "list 1 is a string", "list of ids" },
    { "a wrong side", function() text.pad{ { { 1 } }, side = "left" } end, "option 'side'", '"beginning"' },
    { "dropping all", function() text.drop({ 1 }, 1) end, "the probability is a number (1)", "below 1" },
    { "swapping with text", function() text.swap({ 1 }, "x") end, "the probability is a string", "at least 0" },
    { "an unknown mode", function() nn.text_vectorization{ mode = "words" } end, "option 'mode'", "did you mean 'word'?" },
    { "texts before adapt", function() vectorize{ "a" } end, "no vocabulary yet", "adapt" },
    { "adapting to a string", function() vectorize:adapt "a text" end, "takes a list of strings", 'a string ("a text")' },
    { "adapting to numbers", function() vectorize:adapt{ "a", 3 } end, "text 2 is a number (3)", "expected a string" },
    { "texts for a model without the layer", function() nn.sequential{ nn.dense(1) }:predict{ "a" } end, "list of strings",
      "nn.text_vectorization" },
    { "sequences of numbers", function() data.sequences{ { 1, 2 } } end, "sample 1 is a number (1)", "list of ids" },
    { "sequences of words", function() data.sequences{ { { "a" } } } end, "whole numbers", "a" },
    { "targets of another number", function() data.sequences{ { { 1 } }, { 1, 2 } } end, "y has 2 samples", "expected 1" },
    { "buckets without sequences", function() data.tensors{ bp.ones(3, 2) }:batches{ 2, bucket = 4 } end, "'bucket'", "data.sequences" },
    { "a share of tensors", function() data.padding_share{ data.tensors{ bp.ones(3, 2) } } end, "dataset", "data.sequences" },
  }
end)
