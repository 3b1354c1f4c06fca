--- nn.text_vectorization: texts to ids, as the first layer of a model that takes texts.
---
---     local vectorize = nn.text_vectorization{ max_tokens = 20000 }
---     vectorize:adapt(train_texts)                       -- the training part only
---     local model = nn.sequential{ vectorize, nn.embedding{ vectorize:size(), 64, padding_index = 1 }, ... }
---     model:predict{ { "a text", "another one" } }
---
--- A list of strings becomes a tensor of ids outside of tape and capture; a tensor of ids goes through as it is. The vocabulary is saved
--- with the model.
local core = require "bp.core"
local layer = require "bp.nn.layer"
local options = require "bp.options"
local tokens = require "bp.text.tokens"
local text = require "bp.text"

--- Texts to ids.
---@class nn.text_vectorization
local Vectorization = layer.define("text_vectorization", "Texts to ids: cuts them into tokens and looks these up in a vocabulary.", {
  { "max_tokens", "int", min = 2, help = "most ids, padding (1) and unknown (2) included; default any number" },
  { "mode", "choice", choices = { "word", "character", "byte" }, default = "word", named = true, help = "what a token is" },
  { "min_count", "int", min = 1, default = 1, named = true, help = "tokens seen less often are unknown" },
  { "length", "int", min = 1, named = true, help = "steps of the result: longer texts are cut; default as long as the longest" },
  { "lower", "boolean", named = true, help = "in small letters first; default for words only" },
  { "vocabulary", "table", named = true, help = "list of tokens in the order of their ids from 3, instead of adapt" },
})

Vectorization.wants_dtype = "i64"
Vectorization.takes_texts = true

local function use(self, list)
  rawset(self, "words", text.vocabulary{ tokens = list })
  self.options.vocabulary = list
end

function Vectorization:setup(o)
  if o.lower == nil then o.lower = o.mode == "word" end
  if o.vocabulary then use(self, o.vocabulary) end
end

local function need_texts(self, who, list)
  if not options.is_plain(list) then
    core.error(("text_vectorization '%s': %s takes a list of strings, not %s"):format(self:own_name(), who, options.describe(list)))
  end
  for i = 1, #list do
    if type(list[i]) ~= "string" then
      core.error(("text_vectorization '%s': %s: text %d is %s; expected a string"):format(self:own_name(), who, i,
        options.describe(list[i])))
    end
  end
end

-- Tokens of each text.
local function cut(self, list)
  local o, result = self.options, {}
  local by = tokens.cut[o.mode]
  for i = 1, #list do result[i] = by(list[i], o) end
  return result
end

--- Takes the vocabulary from texts: those of the training part only, or what the model will be asked later is no longer new to it.
---@param texts string[]
---@return table self
function Vectorization:adapt(texts)
  need_texts(self, "adapt", texts)
  local o = self.options
  use(self, text.vocabulary{ cut(self, texts), min_count = o.min_count, max_size = o.max_tokens }:list())
  return self
end

local function vocabulary_of(self)
  return rawget(self, "words") or core.error(("text_vectorization '%s': it has no vocabulary yet; call adapt{ texts of the training part } "
    .. "first"):format(self:own_name()))
end

--- The vocabulary, once there is one.
---@return table vocabulary
function Vectorization:vocabulary() return vocabulary_of(self) end

--- Number of ids, padding and unknown included: what nn.embedding takes as vocab.
---@return integer size
function Vectorization:size() return #vocabulary_of(self) end

--- The ids of texts as lists of unlike lengths: what data.sequences takes.
---@param texts string[]
---@return table lists
function Vectorization:encode(texts)
  need_texts(self, "encode", texts)
  local vocabulary, lists, most = vocabulary_of(self), cut(self, texts), self.options.length
  for i = 1, #lists do
    local ids = vocabulary:encode(lists[i])
    lists[i] = most and #ids > most and table.move(ids, 1, most, 1, {}) or ids
  end
  return lists
end

--- The texts of ids, unknown and padding as the vocabulary writes them.
---@param ids table tensor [n][time], or a list of lists
---@return string[] texts
function Vectorization:decode(ids)
  local vocabulary, result = vocabulary_of(self), {}
  if core.is_tensor(ids) then ids = ids:totable() end
  for i, list in ipairs(ids) do result[i] = tokens.join[self.options.mode](vocabulary:decode(list)) end
  return result
end

--- Texts to ids; ids go through.
---@param x any a list of strings, or a tensor
---@return table ids tensor i64 [texts][steps]
function Vectorization:forward(x)
  if core.is_tensor(x) then return x end
  local lists = self:encode(x)
  return core.pause(core.no_grad, function()
    return (text.pad{ lists, length = self.options.length })
  end)
end

return Vectorization
