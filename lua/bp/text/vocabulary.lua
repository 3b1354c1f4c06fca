--- A vocabulary: which tokens there are, and the id of each. Id 1 is padding, id 2 stands for every token that is not known.
---
---     local vocabulary = text.vocabulary{ lists, min_count = 2, max_size = 10000 }
---     vocabulary:encode{ "a", "text" }  --> { 3, 17 }
local core = require "bp.core"
local options = require "bp.options"

local Vocabulary = { __name = "vocabulary" }
local vocabulary = {} -- the methods
Vocabulary.__index = vocabulary

local PADDING, UNKNOWN = 1, 2

local spec = options.define("text.vocabulary", "The tokens of lists of tokens, the most frequent first.", {
  { "lists", "table", help = "lists of tokens to count, as text.words gives them" },
  { "min_count", "int", min = 1, default = 1, named = true, help = "tokens seen less often are left out" },
  { "max_size", "int", min = 2, named = true, help = "most ids, padding and unknown included; default any number" },
  { "tokens", "table", named = true, help = "the tokens themselves, in the order of their ids from 3, instead of lists" },
  { "padding", "string", default = "<pad>", named = true, help = "how the padding reads when decoded" },
  { "unknown", "string", default = "<unk>", named = true, help = "how an unknown token reads when decoded" },
})

local function count(lists)
  local counts = {}
  for i, list in ipairs(lists) do
    if type(list) ~= "table" then
      spec:fail("list %d is %s; expected a list of tokens, as text.words(...) gives it", i, options.describe(list))
    end
    for k = 1, #list do
      local token = list[k]
      counts[token] = (counts[token] or 0) + 1
    end
  end
  return counts
end

-- By falling count; equal counts by their bytes, so that the order of the texts does not matter.
local function frequent(counts, o)
  local list = {}
  for token, n in pairs(counts) do
    if type(token) ~= "string" then spec:fail("a token is %s; expected strings", options.describe(token)) end
    if n >= o.min_count then list[#list + 1] = token end
  end
  table.sort(list, function(a, b)
    if counts[a] ~= counts[b] then return counts[a] > counts[b] end
    return a < b
  end)
  if o.max_size then
    for i = #list, math.max(1, o.max_size - 1), -1 do list[i] = nil end
  end
  return list
end

--- A vocabulary of what lists of tokens hold, or of tokens given in order.
---@param given table { lists, min_count = 1, max_size =, tokens = }
---@return table vocabulary
local function new(given, ...)
  local o = spec:read(given, ...)
  if (o.lists == nil) == (o.tokens == nil) then
    spec:fail("%s; expected either lists of tokens to count, or tokens = { ... }", o.lists and "lists and tokens are both given"
      or "neither lists nor tokens are given")
  end
  local self = setmetatable({ tokens = { o.padding, o.unknown }, ids = {} }, Vocabulary)
  for i, token in ipairs(o.tokens or frequent(count(o.lists), o)) do
    if type(token) ~= "string" then spec:fail("token %d is %s; expected a string", i, options.describe(token)) end
    if self.ids[token] then spec:fail("the token %q stands at %d and at %d; expected each once", token, self.ids[token] - 2, i) end
    self.tokens[i + 2], self.ids[token] = token, i + 2
  end
  return self
end

--- Number of ids, padding and unknown included; #vocabulary too.
---@return integer
function vocabulary:size() return #self.tokens end

function Vocabulary.__len(self) return #self.tokens end

function Vocabulary.__tostring(self) return ("vocabulary of %d tokens"):format(#self.tokens) end

--- The tokens without padding and unknown, in the order of their ids from 3: what text.vocabulary{ tokens = } takes.
---@return string[] tokens
function vocabulary:list() return table.move(self.tokens, 3, #self.tokens, 1, {}) end

--- The id of a token; that of the unknown when there is none.
---@param token string
---@return integer id
function vocabulary:id(token) return self.ids[token] or UNKNOWN end

--- The token of an id.
---@param id integer
---@return string token
function vocabulary:token(id)
  return self.tokens[id] or core.error(("vocabulary: id %s; expected 1 to %d"):format(tostring(id), #self.tokens))
end

--- The ids of a list of tokens.
---@param list string[]
---@return integer[] ids
function vocabulary:encode(list)
  if type(list) ~= "table" or core.is_tensor(list) then
    core.error(("vocabulary: encode takes a list of tokens, not %s; text.words(s) cuts a text into words"):format(options.describe(list)))
  end
  local ids, result = self.ids, {}
  for i = 1, #list do result[i] = ids[list[i]] or UNKNOWN end
  return result
end

--- The tokens of a list or a tensor of ids, padding left out.
---@param list any
---@return string[] tokens
function vocabulary:decode(list)
  if core.is_tensor(list) then list = list:reshape(-1):totable() end
  if type(list) ~= "table" then core.error(("vocabulary: decode takes a list of ids, not %s"):format(options.describe(list))) end
  local result = {}
  for i = 1, #list do
    if list[i] ~= PADDING then result[#result + 1] = self:token(list[i]) end
  end
  return result
end

return { new = new, PADDING = PADDING, UNKNOWN = UNKNOWN }
