--- Which language is a word? A recurrent net over its letters: bplua scripts/language_rnn.lua [--quick] [WORD...]
-- Learns from Debian's word lists (packages wamerican, wngerman, wfrench, witalian, wspanish): words of plain letters, in lower case, that
-- stand in one list alone, so that neither accents nor capitals give the answer away. Prints accuracy on words it has not seen and what it
-- takes for what; then judges the words given. Writes language.safetensors. --quick takes few words and two epochs.
local bp = require "bp"
local nn, optim = bp.nn, bp.optim

local quick, words_to_judge = false, {}
for _, word in ipairs(arg) do
  if word == "--quick" then quick = true else words_to_judge[#words_to_judge + 1] = word end
end
if #words_to_judge == 0 then words_to_judge = { "daughter", "kirschbaum", "printemps", "ragazzo", "mariposa", "lunatique", "strength" } end
bp.seed(7)

local LISTS = {
  { "english", "american-english", "wamerican" }, { "german", "ngerman", "wngerman" }, { "french", "french", "wfrench" },
  { "italian", "italian", "witalian" }, { "spanish", "spanish", "wspanish" },
}
local TRAIN, TEST = quick and 800 or 8000, quick and 200 or 1000 -- words of each language
local LONGEST, PADDING = 16, 1                                   -- letters; ids: 1 is padding, a..z are 2..27

-- Words by list, and how many lists a word stands in.
local function read_lists()
  local lists, count = {}, {}
  for i, entry in ipairs(LISTS) do
    local file = io.open("/usr/share/dict/" .. entry[2])
    if not file then
      local packages = {}
      for k, other in ipairs(LISTS) do packages[k] = other[3] end
      print(("there is no /usr/share/dict/%s; install the word lists: apt-get install %s"):format(entry[2], table.concat(packages, " ")))
      os.exit(1)
    end
    local seen = {}
    lists[i] = {}
    for line in file:lines() do
      local word = line:lower()
      if word:match "^%l+$" and #word >= 4 and #word <= LONGEST and not seen[word] then
        seen[word] = true
        count[word] = (count[word] or 0) + 1
        lists[i][#lists[i] + 1] = word
      end
    end
    file:close()
  end
  return lists, count
end

local function ids_of(words)
  local rows = {}
  for i, word in ipairs(words) do
    local row = {}
    for k = 1, LONGEST do row[k] = k <= #word and word:byte(k) - 95 or PADDING end
    rows[i] = row
  end
  return bp.tensor(rows, { dtype = "i64" })
end

-- The same draw of words on every run: some to learn from, others to be tested on.
local function draw()
  local lists, count = read_lists()
  local train, test = { words = {}, labels = {} }, { words = {}, labels = {} }
  for label, words in ipairs(lists) do
    local taken = 0
    for _, place in ipairs(bp.randperm(#words):totable()) do
      local word = words[place]
      if count[word] == 1 and taken < TRAIN + TEST then
        taken = taken + 1
        local part = taken <= TRAIN and train or test
        part.words[#part.words + 1], part.labels[#part.labels + 1] = word, label
      end
    end
  end
  for _, part in ipairs{ train, test } do part.x, part.y = ids_of(part.words), bp.tensor(part.labels, { dtype = "i64" }) end
  return train, test
end

local train, test = draw()

local model = nn.sequential{
  nn.embedding{ 27, 24, padding_index = PADDING }, -- short words end where their letters do: the layers behind know
  nn.gru{ 64, bidirectional = true },
  nn.dropout(0.3),
  nn.dense(#LISTS),
}
model:compile{ optimizer = optim.adam{ lr = 2e-3 }, loss = "sparse_categorical_crossentropy", metrics = { "accuracy" } }
model:fit{ train.x, train.y, epochs = quick and 2 or 10, batch_size = 64, verbose = 2 }
print(model:summary())
print("test: " .. tostring(model:evaluate{ test.x, test.y, batch_size = 500 }))

-- Rows: what a word is; columns: what it was taken for.
local answers, confusion = model:predict{ test.x, batch_size = 500 }:argmax(2):totable(), {}
for i = 1, #LISTS do confusion[i] = { 0, 0, 0, 0, 0 } end
for i, answer in ipairs(answers) do
  local row = confusion[test.labels[i]]
  row[answer] = row[answer] + 1
end
print(("%10s" .. ("%9s"):rep(5)):format("", table.unpack((function()
  local names = {}
  for i, entry in ipairs(LISTS) do names[i] = entry[1] end
  return names
end)())))
for i, entry in ipairs(LISTS) do print(("%10s" .. ("%9d"):rep(5)):format(entry[1], table.unpack(confusion[i]))) end

for _, word in ipairs(words_to_judge) do
  local letters = word:lower():gsub("[^a-z]", ""):sub(1, LONGEST)
  local chances = model:predict(ids_of{ letters }):softmax{ axis = 2 }
  local best = chances:argmax(2):item()
  print(("%-16s %s (%.0f %%)"):format(word, LISTS[best][1], 100 * chances[{ 1, best }]:item()))
end

assert(model:save "language.safetensors")
print "wrote language.safetensors"
