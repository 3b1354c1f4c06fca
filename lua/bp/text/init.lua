--- bp.text: from text to numbers and back.
---
---     local text = bp.text
---     local lists = { text.words "A first line.", text.words "and a second one" }
---     local vocabulary = text.vocabulary{ lists, min_count = 1 }
---     local x, lengths = text.pad{ { vocabulary:encode(lists[1]), vocabulary:encode(lists[2]) } }
---
--- A model that takes texts by itself begins with nn.text_vectorization; batches of sequences of unlike lengths come from data.sequences.
local core = require "bp.core"
local options = require "bp.options"
local tokens = require "bp.text.tokens"
local vocabulary = require "bp.text.vocabulary"

local ops = core.ops

local text = {
  words = tokens.words,
  characters = tokens.characters,
  bytes = tokens.bytes,
  lower = tokens.lower,
  vocabulary = vocabulary.new,
}

-- ---- padding -------------------------------------------------------------------------------------------------------------------------

local pad_spec = options.define("text.pad", "Lists of ids as one tensor, the short ones filled up.", {
  { "lists", "table", required = true, help = "lists of ids" },
  { "length", "int", min = 0, named = true, help = "steps of the result; longer lists are cut; default the longest list" },
  { "value", "int", default = vocabulary.PADDING, named = true, help = "what fills up" },
  { "side", "choice", choices = { "end", "beginning" }, default = "end", named = true, help = "where it is filled up" },
  { "cut", "choice", choices = { "end", "beginning" }, default = "end", named = true, help = "where a list that is too long is cut" },
})

--- Lists of ids as one tensor [lists][steps], and how many steps of each are its own.
---@param given table { lists, length =, value = 1, side = "end", cut = "end" }
---@return table ids tensor i64 [n][length]
---@return table lengths tensor i64 [n]
function text.pad(given)
  local o = pad_spec:read(given)
  local lists, length, lengths = o.lists, o.length, {}
  for i, list in ipairs(lists) do
    if not options.is_plain(list) then pad_spec:fail("list %d is %s; expected a list of ids", i, options.describe(list)) end
    lengths[i] = #list
  end
  if not length then
    length = 0
    for _, n in ipairs(lengths) do length = math.max(length, n) end
  end
  local flat = {}
  for i, list in ipairs(lists) do
    local n = math.min(lengths[i], length)
    local from = o.cut == "end" and 0 or lengths[i] - n
    local before = o.side == "end" and 0 or length - n
    local at = (i - 1) * length
    lengths[i] = n
    for t = 1, length do
      local place = t - before
      flat[at + t] = place >= 1 and place <= n and list[from + place] or o.value
    end
  end
  local shape = { #lists, length }
  return ops.reshape(core.tensor(flat, { dtype = "i64" }), { shape = shape }), core.tensor(lengths, { dtype = "i64" })
end

-- ---- augmentation --------------------------------------------------------------------------------------------------------------------

local function drawn(n)
  return ops.random_uniform(core.stream "augment", { shape = { n } }):totable()
end

local function share(who, p)
  if type(p) ~= "number" or not (p >= 0 and p < 1) then
    core.error(("%s: the probability is %s; expected at least 0 and below 1"):format(who, options.describe(p)))
  end
end

--- A copy without some of the tokens, each left out with probability p; one always stays. Draws from the stream "augment".
---@param list table tokens or ids
---@param p number
---@return table list
function text.drop(list, p)
  share("text.drop", p)
  local result = {}
  if #list == 0 then return result end
  local random = drawn(#list)
  for i = 1, #list do
    if random[i] >= p then result[#result + 1] = list[i] end
  end
  if #result == 0 then result[1] = list[1 + math.floor(random[1] / math.max(p, 1e-9) * #list) % #list] end
  return result
end

--- A copy in which neighbours have changed places, each pair with probability p. Draws from the stream "augment".
---@param list table tokens or ids
---@param p number
---@return table list
function text.swap(list, p)
  share("text.swap", p)
  local result = table.move(list, 1, #list, 1, {})
  if #list < 2 then return result end
  local random, i = drawn(#list - 1), 1
  while i < #list do
    if random[i] < p then
      result[i], result[i + 1] = result[i + 1], result[i]
      i = i + 1 -- no token moves twice
    end
    i = i + 1
  end
  return result
end

return text
