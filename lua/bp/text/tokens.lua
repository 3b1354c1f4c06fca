--- Cutting text into tokens: words, characters, bytes. Text is UTF-8; bytes that are none end a word, and are U+FFFD among characters.
local core = require "bp.core"
local options = require "bp.options"

local tokens = {}

-- ---- lower case ----------------------------------------------------------------------------------------------------------------------

-- Capitals of Latin-1, Latin Extended-A, Greek and Cyrillic with their small letters, as UTF-8.
local small = {}
local function pairs_from(first, last, distance, step)
  for code = first, last, step or 1 do small[utf8.char(code)] = utf8.char(code + distance) end
end
pairs_from(0xC0, 0xD6, 32)
pairs_from(0xD8, 0xDE, 32)
pairs_from(0x100, 0x12E, 1, 2)
pairs_from(0x132, 0x136, 1, 2)
pairs_from(0x139, 0x147, 1, 2)
pairs_from(0x14A, 0x176, 1, 2)
small[utf8.char(0x178)] = utf8.char(0xFF)
pairs_from(0x179, 0x17D, 1, 2)
pairs_from(0x391, 0x3A1, 32)
pairs_from(0x3A3, 0x3AB, 32)
for capital, letter in pairs{ [0x386] = 0x3AC, [0x388] = 0x3AD, [0x389] = 0x3AE, [0x38A] = 0x3AF, [0x38C] = 0x3CC, [0x38E] = 0x3CD,
  [0x38F] = 0x3CE } do
  small[utf8.char(capital)] = utf8.char(letter)
end
pairs_from(0x410, 0x42F, 32)
pairs_from(0x400, 0x40F, 80)
pairs_from(0x460, 0x480, 1, 2)
pairs_from(0x48A, 0x4BE, 1, 2)
pairs_from(0x4D0, 0x52E, 1, 2)

local function need_string(who, s)
  if type(s) ~= "string" then core.error(("%s: the text is %s; expected a string"):format(who, options.describe(s))) end
end

local ascii_small = {}
for code = 65, 90 do ascii_small[string.char(code)] = string.char(code + 32) end

local CAPITALS, LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"

local function is_ascii(s) return utf8.len(s) == #s end

-- The same whatever locale a host has set: string.lower is quick, and right where the locale leaves ASCII alone.
local function lower(s)
  if is_ascii(s) and CAPITALS:lower() == LETTERS then return s:lower() end
  s = s:gsub("[A-Z]", ascii_small)
  return (s:gsub("[\xC3-\xD4][\x80-\xBF]", small))
end

--- The text in small letters: of ASCII, Latin-1, Latin Extended-A, Greek and Cyrillic. Other scripts stay as they are; no letter becomes
--- two.
---@param s string
---@return string
function tokens.lower(s)
  need_string("text.lower", s)
  return lower(s)
end

-- ---- tokenisers ----------------------------------------------------------------------------------------------------------------------

-- What is no letter above ASCII: Latin-1's signs but for its letters, general punctuation and spaces, CJK punctuation.
local function without_signs(s)
  s = s:gsub("\xC2[\x80-\xA9\xAB-\xB4\xB6-\xB9\xBB-\xBF]", " "):gsub("\xC3[\x97\xB7]", " ")
  return (s:gsub("\xE2[\x80\x81][\x80-\xBF]", " "):gsub("\xE3\x80[\x80-\xBF]", " "))
end

--- The words of a text: runs of letters, digits and underscores. All other ASCII characters and the punctuation of Unicode end a word and
--- are left out.
---@param s string
---@param given table|nil { lower = true }: in small letters first
---@return string[] words
function tokens.words(s, given)
  need_string("text.words", s)
  if not given or given.lower ~= false then s = lower(s) end
  local ascii = is_ascii(s)
  if not ascii then
    if not utf8.len(s) then s = table.concat(tokens.characters(s)):gsub("\u{FFFD}", " ") end
    if s:find "[\xC2\xC3\xE2\xE3]" then s = without_signs(s) end
  end
  local list, n = {}, 0
  for word in s:gmatch(ascii and "[%w_]+" or "[0-9A-Za-z_\x80-\xFF]+") do
    n = n + 1
    list[n] = word
  end
  return list
end

--- The characters of a text (code points).
---@param s string
---@param given table|nil { lower = false }
---@return string[] characters
function tokens.characters(s, given)
  need_string("text.characters", s)
  if given and given.lower then s = lower(s) end
  local list, n = {}, 0
  if not s:find "[\x80-\xFF]" then
    for i = 1, #s do list[i] = s:sub(i, i) end
    return list
  end
  local at = 1
  while at <= #s do
    local _, wrong = utf8.len(s, at)
    local stop = wrong and wrong - 1 or #s
    for _, code in utf8.codes(s:sub(at, stop)) do
      n = n + 1
      list[n] = utf8.char(code)
    end
    if wrong then
      n = n + 1
      list[n] = "\u{FFFD}"
    end
    at = stop + (wrong and 2 or 1)
  end
  return list
end

--- The bytes of a text, each a string of length 1.
---@param s string
---@param given table|nil { lower = false }
---@return string[] bytes
function tokens.bytes(s, given)
  need_string("text.bytes", s)
  if given and given.lower then s = lower(s) end
  local list = {}
  for i = 1, #s do list[i] = s:sub(i, i) end
  return list
end

local as_character, as_byte = {}, {}
for byte = 0, 255 do
  as_character[string.char(byte)], as_byte[utf8.char(byte)] = utf8.char(byte), string.char(byte)
end

-- Bytes as the characters U+0000..U+00FF, so that a vocabulary of bytes is text that a file can hold.
local function byte_characters(s, given)
  local list = tokens.bytes(s, given)
  for i = 1, #list do list[i] = as_character[list[i]] end
  return list
end

local function joined_bytes(list)
  for i = 1, #list do list[i] = as_byte[list[i]] or list[i] end
  return table.concat(list)
end

-- By mode of nn.text_vectorization: a text into tokens, and a list of tokens into a text.
tokens.cut = { word = tokens.words, character = tokens.characters, byte = byte_characters }
tokens.join = { word = function(list) return table.concat(list, " ") end, character = table.concat, byte = joined_bytes }

return tokens
