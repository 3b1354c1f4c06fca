--- Runs every program in scripts/ as it is, shortened with --quick, in an empty folder; looks at what it prints and writes.
local function here(path)
  if path:sub(1, 1) == "/" then return path end
  return io.popen("pwd"):read "l" .. "/" .. path
end
local bplua = here(arg[-1])

local function read(path)
  local f = io.open(path, "rb")
  if not f then return nil end
  local text <const> = f:read "a"
  f:close()
  return text
end

-- What each has to print (patterns), and the files it has to write with what they begin with.
local programs = {
  train_fashion = {
    prints = { "parameters: [%d,]+, trained", "epoch 1/1 %- .*val_accuracy: 0%.%d+", "test: {loss = [%d.]+, accuracy = 0%.%d+}",
      "picture 1: Ankle boot" },
    writes = { ["fashion.safetensors"] = "", ["history.svg"] = "^<svg ",
      ["history.csv"] = "^epoch,loss,accuracy,val_loss,val_accuracy\n1," },
    needs_data = true,
  },
  keras_hello = {
    prints = { "parameters: 385, trained: 385", "epoch 10/10", "{loss = [%d.]+, mae = [%d.]+, accuracy = 0%.0000}",
      "warning: compile: accuracy counts predictions that equal the target exactly" },
  },
  backprop_by_hand = {
    prints = { "step 2000 ", "largest difference %d%.%de%-%d+", "0 xor 1 = 1, the net says 0%.9", "1 xor 1 = 0, the net says 0%.0" },
  },
  own_loop = { prints = { "epoch 2: loss [%d.]+, test accuracy 0%.[5-9]" }, needs_data = true },
  search_fashion = {
    prints = { "random: 4 trials, maximize val_accuracy", "grid: 2 trials" },
    writes = { ["trials.csv"] = "^number,state,value,activation,dropout,lr,units,seconds,message\n1,complete,0%.",
      ["grid.csv"] = "\n2,complete," },
    needs_data = true,
  },
  language_rnn = {
    prints = { "epoch 2/2", "test: {loss = [%d.]+, accuracy = 0%.[5-9]", "daughter +%l+ %(%d+ %%%)" },
    writes = { ["language.safetensors"] = "" },
    needs_words = true,
  },
  cartpole = { prints = { "ppo: 50 episodes, %d+ steps", "ppo: mean return over 100 episodes: %d%d%d?%.%d" } },
  explain = {
    prints = { "add up to the difference of the scores within 0%.%d+", "confidence: 0%.%d+; without the tenth", "height +%-?%d%.%d+ " },
    writes = { ["explain-saliency.png"] = "^\137PNG\r\n", ["explain-grad_cam.png"] = "^\137PNG\r\n", ["explain.svg"] = "^<svg ",
      ["importance.svg"] = "^<svg ", ["dependence.svg"] = "^<svg " },
    needs_data = true,
  },
  finetune = {
    prints = { "4 tensors loaded", "from the first five +0%.%d+", "adapters, a new head +0%.%d+" },
    writes = { ["first.safetensors"] = "", ["adapters.safetensors"] = "", ["adapted.safetensors"] = "" },
    needs_data = true,
  },
  augment = {
    prints = { "without augmentation\nepoch 1/1", "with augmentation\nepoch 1/1" },
    writes = { ["augment.png"] = "^\137PNG\r\n" },
    needs_data = true,
  },
  char_lm = {
    prints = { "characters to learn from", "step 40: [%d.]+ bits per character", "unseen licence: [345]%.%d+ bits per character",
      "  You may " },
    writes = { ["char_lm.safetensors"] = "" },
  },
  text_sections = {
    prints = { "2400 descriptions to learn from, 600 to measure", "padding: %d+ %%", "test: {loss = [%d.]+, accuracy = 0%.[2-9]",
      "fonts for Arabic calligraphy +%a+" },
    writes = { ["sections.safetensors"] = "" },
    needs = "test $(apt-cache dumpavail 2>/dev/null | grep -c '^Description:') -gt 20000",
    missing = "apt has no lists of packages here (apt-get update)",
  },
}

local has_words = true
for _, list in ipairs{ "american-english", "ngerman", "french", "italian", "spanish" } do
  has_words = has_words and read("/usr/share/dict/" .. list) ~= nil
end
local has_data = read "/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz" ~= nil

-- Runs one and returns what is wrong, or nil.
local function run(path, expected)
  local folder = os.tmpname()
  os.remove(folder)
  assert(os.execute("mkdir " .. folder))
  local ok = os.execute(("cd %s && '%s' '%s' --quick > out.txt 2>&1 < /dev/null"):format(folder, bplua, path))
  local out, wrong = read(folder .. "/out.txt"), nil
  if not ok then wrong = "it failed" end
  for _, pattern in ipairs(expected.prints) do
    if not out:find(pattern) then wrong = wrong or "it does not print " .. pattern end
  end
  for name, pattern in pairs(expected.writes or {}) do
    local text = read(folder .. "/" .. name)
    if not text or not text:find(pattern) then wrong = wrong or "it does not write " .. name .. " as it should" end
  end
  os.execute("rm -rf " .. folder)
  return wrong and wrong .. "\n" .. out
end

local passed, failed = 0, 0
local list = io.popen "ls scripts/*.lua"
for path in list:lines() do
  local name = path:match "([^/]+)%.lua$"
  local expected = programs[name]
  if not expected then
    failed = failed + 1
    print(("%s: add what it prints and writes to tests/scripts/programs_test.lua"):format(path))
  elseif expected.needs_data and not has_data then
    print(("%s: SKIPPED, the package dataset-fashion-mnist is not installed"):format(path))
  elseif expected.needs and not os.execute(expected.needs) then
    print(("%s: SKIPPED, %s"):format(path, expected.missing))
  elseif expected.needs_words and not has_words then
    print(("%s: SKIPPED, the word lists are not installed; see the script"):format(path))
  else
    local wrong = run(here(path), expected)
    passed, failed = passed + (wrong and 0 or 1), failed + (wrong and 1 or 0)
    if wrong then print(path .. ": " .. wrong) end
  end
end
print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0)
