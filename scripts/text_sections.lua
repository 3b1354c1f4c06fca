--- Which section of Debian does a package belong to? bplua scripts/text_sections.lua [--quick]
-- Reads the one-line descriptions of all packages from apt's own lists (some 60,000 lines), learns which section each stands in with an
-- embedding and a bidirectional LSTM, and measures on a fifth that it never saw. Writes sections.safetensors: the net with its vocabulary.
-- --quick takes 3,000 lines and two epochs.
local bp = require "bp"
local nn, optim, data, callbacks = bp.nn, bp.optim, bp.data, bp.callbacks
local quick = arg[1] == "--quick"
bp.seed(1)

-- ---- descriptions and sections -------------------------------------------------------------------------------------------------------

-- { text =, section = } for every description, each text once.
local function packages()
  local list, seen, section, text = {}, {}, nil, nil
  local function add()
    if section and text and not seen[text] then
      seen[text] = true
      list[#list + 1] = { text = text, section = section:match "[^/]+$" } -- contrib/web is web
    end
    section, text = nil, nil
  end
  local pipe = io.popen "apt-cache dumpavail 2>/dev/null"
  for line in pipe:lines() do
    if line == "" then add() end
    section = line:match "^Section: (.+)" or section
    text = line:match "^Description: (.+)" or text
  end
  pipe:close()
  add()
  if #list < 5000 then
    error(("apt knows %d descriptions here; `apt-get update` (as root) fetches the lists of all packages"):format(#list), 0)
  end
  return list
end

-- Those of sections with enough packages to learn from.
local function frequent(list, least)
  local counts, classes, label = {}, {}, {}
  for _, package in ipairs(list) do counts[package.section] = (counts[package.section] or 0) + 1 end
  for section, n in pairs(counts) do
    if n >= least then classes[#classes + 1] = section end
  end
  table.sort(classes)
  for i, section in ipairs(classes) do label[section] = i end
  local texts, labels = {}, {}
  for _, package in ipairs(list) do
    if label[package.section] then texts[#texts + 1], labels[#labels + 1] = package.text, label[package.section] end
  end
  return texts, labels, classes
end

local texts, labels, classes = frequent(packages(), 400)
local order, limit = bp.randperm(#texts):totable(), quick and 3000 or #texts
local train, test = { texts = {}, labels = {} }, { texts = {}, labels = {} }
for i = 1, limit do
  local part = i <= limit * 0.8 and train or test
  part.texts[#part.texts + 1], part.labels[#part.labels + 1] = texts[order[i]], labels[order[i]]
end
print(("%d descriptions to learn from, %d to measure, in %d sections"):format(#train.texts, #test.texts, #classes))

-- ---- net -----------------------------------------------------------------------------------------------------------------------------

local vectorize = nn.text_vectorization{ max_tokens = 20000, min_count = 2, length = 24 }:adapt(train.texts)
local function sequences(part)
  return data.sequences{ vectorize:encode(part.texts), part.labels, round = 4, classes = classes }
end
local train_set, test_set = sequences(train), sequences(test)
print(("padding: %.0f %% of a batch, %.0f %% with samples of like length together"):format(
  100 * data.padding_share{ train_set, batch_size = 64 }, 100 * data.padding_share{ train_set, batch_size = 64, bucket = 50 }))

local model = nn.sequential{
  vectorize,
  nn.embedding{ vectorize:size(), 64, padding_index = 1 },
  nn.dropout(0.3),
  nn.lstm{ 64, bidirectional = true },
  nn.dropout(0.3),
  nn.dense(#classes),
}
model:compile{ optimizer = optim.adam{ lr = 2e-3 }, loss = "sparse_categorical_crossentropy", metrics = { "accuracy" } }
local history = model:fit{ train_set, validation_split = 0.1, epochs = quick and 2 or 6, batch_size = 64, callbacks = {
  callbacks.early_stopping{ monitor = "val_loss", patience = 1 } } }
history:plot()
print("test: " .. tostring(model:evaluate{ test_set, batch_size = 256 }))

assert(model:save "sections.safetensors")
local asked = { "fast editor for Perl scripts", "Python bindings for a physics engine", "space invaders clone with network play",
  "development files for the JPEG library", "fonts for Arabic calligraphy" }
local answers = assert(bp.load "sections.safetensors"):predict(asked):argmax(2):totable()
for i, text in ipairs(asked) do print(("%-42s %s"):format(text, classes[answers[i]])) end
