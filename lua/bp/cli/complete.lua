--- Completion at the prompt: names and their fields, and file names inside a string.
-- A word is replaced from `start` on, where the line editor thinks it begins; candidates are cut or filled up to fit.

local keywords = {
  "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local", "nil", "not", "or", "repeat",
  "return", "then", "true", "until", "while",
}

--- Where the string that the line ends in begins, or nil; false inside a comment.
local function open_string(line)
  local i, quote, first = 1, nil, nil
  while i <= #line do
    local c = line:sub(i, i)
    if quote then
      if c == "\\" then i = i + 1 elseif c == quote then quote = nil end
    elseif c == '"' or c == "'" then
      quote, first = c, i + 1
    elseif line:sub(i, i + 1) == "--" then
      return false
    end
    i = i + 1
  end
  return quote and first
end

--- The table that indexing a value looks into: __index, or __methods where __index is a function.
local function fields_behind(value)
  local meta = debug.getmetatable(value)
  if type(meta) ~= "table" then return nil end
  local index = rawget(meta, "__index")
  if type(index) ~= "table" then index = rawget(meta, "__methods") end
  return type(index) == "table" and index or nil
end

--- Calls visit(key, value) for what can be read from value by name: what pairs shows, its own fields, then along __index.
local function each_field(value, visit)
  local meta = debug.getmetatable(value)
  if type(meta) == "table" and rawget(meta, "__pairs") then
    pcall(function() for k, v in pairs(value) do visit(k, v) end end)
  end
  local seen = {}
  local t = type(value) == "table" and value or fields_behind(value)
  while t and not seen[t] do
    seen[t] = true
    for k, v in next, t do visit(k, v) end
    t = fields_behind(t)
  end
end

local function field(value, name)
  local found
  each_field(value, function(k, v) if found == nil and k == name then found = v end end)
  return found
end

--- Candidates for "bp.nn.de": the names of bp.nn that begin with "de", in full.
local function names(word, env)
  local path, separator, last = word:match "^(.-)([.:]?)([%w_]*)$"
  local value = env
  for name in path:gmatch "[^.:]+" do
    value = field(value, name)
    if value == nil then return {} end
  end
  local found = {}
  each_field(value, function(k, v)
    if type(k) == "string" and k:match "^[%a_][%w_]*$" and k:sub(1, #last) == last
      and (last ~= "" or k:sub(1, 1) ~= "_") and (separator ~= ":" or type(v) == "function") then
      found[path .. separator .. k] = true
    end
  end)
  if path == "" and last ~= "" then
    for _, k in ipairs(keywords) do
      if k:sub(1, #last) == last then found[k] = true end
    end
  end
  return found
end

--- Candidates for the path of a file: entries of its folder, hidden ones only when asked for.
local function files(path, list_folder)
  local folder, last = path:match "^(.-)([^/]*)$"
  local found = {}
  for _, entry in ipairs(list_folder(folder == "" and "." or folder) or {}) do
    if entry:sub(1, #last) == last and (last ~= "" or entry:sub(1, 1) ~= ".") then found[folder .. entry] = true end
  end
  return found
end

--- What could stand at the end of a line.
-- @param line string the line up to the cursor
-- @param start integer where the word to be replaced begins
-- @param env table the globals
-- @param list_folder function path -> list of names, folders with a slash behind, or nil
-- @return a sorted list of replacements for line:sub(start)
return function(line, start, env, list_folder)
  local first = open_string(line)
  local found
  if first then
    found = files(line:sub(first), list_folder)
  elseif first == nil then
    first = line:find "[%a_][%w_.:]*$" or #line + 1
    found = names(line:sub(first), env)
  end
  local words = {}
  for word in pairs(found or {}) do
    words[#words + 1] = start <= first and line:sub(start, first - 1) .. word or word:sub(start - first + 1)
  end
  table.sort(words)
  return words
end
