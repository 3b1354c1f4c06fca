--- Writes the reference manual from the sources: bplua docs/generate.lua FOLDER, or with --check compares instead of writing.
-- Five pages: layers and functions of Lua (from `---` comments and the declared option tables), tensor methods (from `/***` comments in
-- bindings/), ops (from the op table), the C interface (from core/bp*.h and bindings/bplua.h),
-- what is checked (docs/checks.lua, from the tests' tables). Anything public without a description is
-- an error.
local bp = require "bp"
local core = require "bp.core"
local options = require "bp.options"

local check = false
local folder = "docs/reference"
for _, word in ipairs(arg) do
  if word == "--check" then check = true else folder = word end
end

local problems = {}
local function problem(...) problems[#problems + 1] = string.format(...) end

local function read(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end

local function files(command)
  local list = {}
  local p <close> = io.popen(command)
  for line in p:lines() do list[#list + 1] = line end
  table.sort(list)
  return list
end

local function anchor(text) return (text:lower():gsub("[^%w%- _]", ""):gsub(" ", "-")) end

-- ---- option tables -------------------------------------------------------------------------------------------------------------------

local function cell(value) return (tostring(value):gsub("|", "\\|"):gsub("\n", " ")) end

local function value_text(value)
  if value == nil then return "" end
  if type(value) == "string" then return ("`%q`"):format(value) end
  if type(value) == "table" then
    local parts = {}
    for i, v in ipairs(value) do parts[i] = tostring(v) end
    return "`{" .. table.concat(parts, ", ") .. "}`"
  end
  return "`" .. tostring(value) .. "`"
end

local function range_text(o)
  if o.choices then
    local parts = {}
    for i, choice in ipairs(o.choices) do parts[i] = tostring(choice) end
    return table.concat(parts, ", ")
  end
  local low, high = o.min, o.max
  if low and high then return ("%s to %s"):format(low, high) end
  if low then return low .. " or more" end
  if high then return "up to " .. high end
  return ""
end

local function option_table(out, fields)
  if #fields == 0 then return end
  out[#out + 1] = "| option | type | default | range | |"
  out[#out + 1] = "|--|--|--|--|--|"
  for _, o in ipairs(fields) do
    local default = o.required and "required" or value_text(o.default)
    local kind = cell(o.type or o.kind or "")
    out[#out + 1] = ("| `%s` | %s | %s | %s | %s |"):format(o.name, kind, default, cell(range_text(o)), cell(o.help or ""))
  end
  out[#out + 1] = ""
end

-- ---- ops -----------------------------------------------------------------------------------------------------------------------------

local function ops_page()
  local out = { "# Ops", "", "Made from the op table by `make docs`. Every op is `bp.ops.NAME(inputs…, options)`; those marked *method*",
    "are `x:NAME(…)` too, and those marked *in place* have a form `x:NAME_(…)` that writes over x. Options are given as a table by",
    "name, or in this order.", "" }
  local groups, order = {}, {}
  for _, row in ipairs(core.ops_table()) do
    if not groups[row.group] then
      groups[row.group] = {}
      order[#order + 1] = row.group
    end
    table.insert(groups[row.group], row)
    if not row.summary or row.summary == "" then problem("op %s has no summary", row.name) end
    for _, input in ipairs(row.inputs) do
      if not input.help or input.help == "" then problem("op %s: input %s has no description", row.name, input.name) end
    end
    for _, o in ipairs(row.options) do
      if not o.help or o.help == "" then problem("op %s: option %s has no description", row.name, o.name) end
    end
  end
  for _, group in ipairs(order) do
    out[#out + 1] = "## " .. group:sub(1, 1):upper() .. group:sub(2) .. "\n"
    for _, row in ipairs(groups[group]) do
      local names = {}
      for i, input in ipairs(row.inputs) do
        names[i] = input.optional and "[" .. input.name .. "]" or input.variadic and input.name .. "…" or input.name
      end
      if #row.options > 0 then names[#names + 1] = "options" end
      local notes = {}
      for _, flag in ipairs{ "method", "inplace", "view", "internal" } do
        if row.flags and row.flags[flag] then notes[#notes + 1] = flag == "inplace" and "in place" or flag end
      end
      out[#out + 1] = ("### %s\n\n`bp.ops.%s(%s)`%s\n"):format(row.name, row.name, table.concat(names, ", "),
        #notes > 0 and " — *" .. table.concat(notes, ", ") .. "*" or "")
      out[#out + 1] = row.summary .. "\n"
      if row.detail and row.detail ~= "" then out[#out + 1] = row.detail .. "\n" end
      for _, input in ipairs(row.inputs) do out[#out + 1] = ("- `%s`: %s"):format(input.name, input.help or "") end
      if row.outputs and row.outputs ~= "" then out[#out + 1] = "- result: " .. row.outputs end
      out[#out + 1] = ""
      option_table(out, row.options)
    end
  end
  return table.concat(out, "\n") .. "\n"
end

-- ---- Lua -----------------------------------------------------------------------------------------------------------------------------

-- Blocks of `---` lines, each with the code line that follows it.
local function doc_blocks(path)
  local blocks, current, number = {}, nil, 0
  for line in (read(path) .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    local text = line:match "^%s*%-%-%-%s?(.*)$"
    if text then
      current = current or {}
      current[#current + 1] = text
    elseif current then
      blocks[#blocks + 1] = { text = current, code = line, line = number }
      current = nil
    end
  end
  return blocks
end

-- The name that a code line defines, as a user writes it.
local function defined_name(code, aliases)
  local name = code:match "^%s*function%s+([%w_.:]+)" or code:match "^%s*([%w_.]+)%s*=[^=]" or code:match "^%s*local%s+([%w_]+)%s*="
  if not name then return nil end
  local head, rest = name:match "^([%w_]+)(.*)$"
  return (aliases[head] or head) .. rest
end

-- Comment lines into Markdown: ---@param and ---@return become a list.
local function render(text)
  local body, list = {}, {}
  for _, line in ipairs(text) do
    local name, kind, help = line:match "^@param%s+(%S+)%s+(%S+)%s*(.*)$"
    if name then
      if kind == "table" and help:find "^tensor%f[%W]" then kind, help = "tensor", help:gsub("^tensor,?%s*", "") end
      list[#list + 1] = (("- `%s` (%s) %s"):format(name, kind, help):gsub("%s+$", ""))
    elseif line:match "^@return" then
      local what, rest = line:match "^@return%s+(%S+)%s*(.*)$"
      if what == "table" and rest:find "^tensor%f[%W]" then what, rest = "tensor", rest:gsub("^tensor,?%s*", "") end
      list[#list + 1] = (("- returns %s %s"):format(what or "", rest or ""):gsub("%s+$", ""))
    elseif line:match "^@" then goto continue -- for tools other than this
    elseif #list > 0 and line ~= "" then list[#list] = list[#list] .. " " .. line -- a description goes on in the next line
    else body[#body + 1] = line end
    ::continue::
  end
  local result = table.concat(body, "\n"):gsub("%s+$", "")
  if #list > 0 then result = result .. "\n\n" .. table.concat(list, "\n") end
  return result
end

local documented = {} -- "source:line" of every function with a block

-- "source:line" of a function written in Lua; a method that checks its self (lua/bp/methods.lua) stands for the one inside.
local function place(fn)
  local info = debug.getinfo(fn, "S")
  local path = info.source:match "lua/bp/.*$"
  for i = 1, path == "lua/bp/methods.lua" and 10 or 0 do
    local name, value = debug.getupvalue(fn, i)
    if name == "method" then return place(value) end
  end
  return path and path .. ":" .. info.linedefined
end

-- Names under which functions are reached from bp, by "source:line" of their definition.
local function public_names()
  local names, seen = {}, {}
  local function visit(name, value, part)
    if type(value) == "function" then
      local key = place(value)
      if key and (not names[key] or #name < #names[key]) then names[key] = name end
    elseif type(value) == "table" and not seen[value] and (part or getmetatable(value) == nil) and not core.is_tensor(value) then
      seen[value] = true
      for key, v in pairs(value) do
        if type(key) == "string" then visit(name .. "." .. key, v) end
      end
    end
  end
  for _, part in ipairs{ "nn", "optim", "data", "callbacks", "augment", "search", "metrics", "json", "text", "rl", "explain" } do
    visit("bp." .. part, bp[part], true)
  end
  for key, value in pairs(bp) do visit("bp." .. key, value) end
  for key, value in pairs(require("bp.nn.module").Module) do -- what any model has
    local key_place = type(value) == "function" and place(value)
    if key_place and not names[key_place] then names[key_place] = "model:" .. key end
  end
  return names
end

-- A method is shown on a lower-case object: History:plot is history:plot, methods:split in dataset.lua dataset:split.
local function method_name(name, path)
  local class, method = name:match "^([%w_]+):([%w_]+)$"
  if not class then return nil end
  if class == "methods" or class == "self" then class = path:match "([%w_]+)%.lua$" end
  if method == "__call" then return class:lower() .. "(...)" end
  return class:lower() .. ":" .. method
end

local function lua_page()
  local public = public_names()
  local toc, body = {}, {}
  for _, path in ipairs(files "find lua/bp -name '*.lua'") do
    local blocks = doc_blocks(path)
    local module = path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")
    local text = read(path)
    if #blocks == 0 then problem("%s has no `---` description at its head", path) end
    local sections, shown = {}, text:match "options%.define%(" ~= nil or text:match "layer%.define%(" ~= nil
    for i, block in ipairs(blocks) do
      local key = path .. ":" .. block.line
      documented[key] = true
      local name = i > 1 and defined_name(block.code, {}) or nil
      local title = public[key] or (name and method_name(name, path))
      if i == 1 then sections[1] = render(block.text) .. "\n"
      elseif title and not table.concat(block.text, "\n"):match "@private" then
        sections[#sections + 1] = ("### %s\n\n%s\n"):format(title, render(block.text))
        shown = true
      end
    end
    if shown and not (blocks[1] and table.concat(blocks[1].text, "\n"):match "@internal") and not module:match "^bp%.cli" then
      toc[#toc + 1] = ("- [%s](#%s)"):format(module, anchor(module))
      body[#body + 1] = ("## %s\n\n%s"):format(module, table.concat(sections, "\n"))
    end
  end
  body[#body + 1] = "## Options\n\nWhat each constructor takes in its table. Positional entries follow this order; a single value may "
    .. "stand alone.\n"
  local declared, names = {}, {}
  for _, spec in ipairs(options.declared) do
    declared[spec.name] = spec
    names[#names + 1] = spec.name
  end
  table.sort(names)
  for i, name in ipairs(names) do
    if name ~= names[i - 1] then
      local spec = declared[name]
      body[#body + 1] = ("### %s options\n\n%s\n"):format(name, spec.summary or "")
      for _, field in ipairs(spec.fields) do
        if not field.help or field.help == "" then problem("option '%s' of %s has no description", field.name, name) end
      end
      option_table(body, spec.fields)
    end
  end
  local out = { "# Lua", "", "Made from the sources by `make docs`.", "" }
  table.move(toc, 1, #toc, #out + 1, out)
  out[#out + 1] = "- [Options](#options)\n"
  table.move(body, 1, #body, #out + 1, out)
  return table.concat(out, "\n") .. "\n"
end

-- ---- C comments ----------------------------------------------------------------------------------------------------------------------

-- "/*** signature\n * text */" blocks of the bindings, by signature name.
local bound = {}
local function bindings_page()
  local out = { "# Tensors and functions written in C", "",
    "Made from the sources by `make docs`. Ops that are methods are in [ops](ops.md).", "" }
  local entries = {}
  for _, path in ipairs(files "ls bindings/*.c") do
    for block in read(path):gmatch "/%*%*%*%s(.-)%*/" do
      local signature, text = block:match "^([^\n]*)\n?(.*)$"
      text = ("\n" .. text):gsub("\n%s*%*%s?", "\n"):gsub("^%s+", ""):gsub("%s+$", "")
      signature = signature:gsub("%s+$", "")
      local name = signature:match "^[%w_.]+[:.]([%w_]+)" or signature
      bound[name] = true
      if text == "" then problem("%s: %s has no description", path, signature) end
      entries[#entries + 1] = ("### %s\n\n`%s`\n\n%s\n"):format(name, signature, text)
    end
  end
  table.sort(entries)
  table.move(entries, 1, #entries, #out + 1, out)
  return table.concat(out, "\n") .. "\n"
end

-- A header cut into comments, blank lines and declarations (up to `;`, or with their braces). Preprocessor lines are left out, but for
-- tables of rows (X macros), which stand for what they list.
local function c_items(text)
  local items, at = {}, 1
  text = text:gsub("#ifdef __cplusplus.-#endif\n", ""):gsub("\n#[^\n]*\\\n.-[^\\]\n", "\n"):gsub("\n#[^\n]*", "\n#")
  while at <= #text do
    local blank, comment = text:match("^[ \t]*\n()", at), text:match("^%s*/%*.-%*/[ \t]*\n?()", at)
    if text:match("^#", at) then at = text:match("^#[^\n]*\n?()", at)
    elseif blank then
      items[#items + 1] = { kind = "blank" }
      at = blank
    elseif comment then
      items[#items + 1] = { kind = "comment", text = text:sub(at, comment - 1) }
      at = comment
    else
      local stop, depth = at, 0
      while stop <= #text do
        local c = text:sub(stop, stop)
        if c == "{" then depth = depth + 1 elseif c == "}" then depth = depth - 1 end
        if depth == 0 and (c == ";" or (c == "}" and text:match("^}%s*\n", stop))) then break end
        stop = stop + 1
      end
      items[#items + 1] = { kind = "declaration", text = text:sub(at, stop):gsub("^%s+", "") }
      at = (text:match("^[ \t]*\n()", stop + 1)) or stop + 1
      local trailing = text:match("^[ \t]*/%*.-%*/[ \t]*\n?()", stop + 1)
      if trailing and not text:sub(stop + 1, trailing - 1):match "^%s*\n" then at = trailing end
    end
  end
  return items
end

local function comment_text(text)
  return (text:gsub("^%s*/%*+%s?", ""):gsub("%s*%*/%s*$", ""):gsub("\n%s*%*%s?", " "):gsub("%s+", " "))
end

-- The name that a declaration declares: of a function, or of a type. A name alone (struct x;) declares nothing to be described.
local function c_name(declaration)
  if declaration:match "^typedef" then
    return declaration:match "}%s*([%w_]+)%s*;$" or declaration:match "^[^{]-%(%*?([%w_]+)%)%s*%(" or declaration:match "([%w_]+)%s*;$"
  end
  return declaration:match "^[%w_%s%*]-([%w_]+)%s*%("
end

-- A comment covers the declarations below it up to a blank line or another comment.
local function c_page()
  local out = { "# C", "", "Made from the headers by `make docs`.", "" }
  for _, path in ipairs(files "ls core/bp*.h bindings/bplua.h") do
    out[#out + 1] = ("## %s\n"):format(path:match "[^/]+$")
    local comment, covered, first = nil, false, true
    for _, item in ipairs(c_items(read(path))) do
      if item.kind == "comment" then
        local text = comment_text(item.text)
        if text:match "^%-%-%-%-" then
          out[#out + 1] = ("### %s\n"):format((text:gsub("%-%-+", ""):gsub("^%s+", ""):gsub("%s+$", "")))
          comment = nil
        elseif first then
          local lines = item.text:gsub("^%s*/%*%s?", ""):gsub("%s*%*/%s*$", ""):gsub("\n %*[ \t]?", "\n")
          out[#out + 1] = lines .. "\n"
          comment = nil
        else comment, covered = text, false end
        first = false
      elseif item.kind == "blank" then
        if covered then comment = nil end
      else
        local name = c_name(item.text)
        if name then
          if not comment and item.text:match "%)%s*;$" then problem("%s: %s has no description", path, name) end
          out[#out + 1] = ("#### %s\n\n```c\n%s\n```\n"):format(name, (item.text:gsub("\n#[^\n]*", "")))
          if comment and not covered then out[#out + 1] = comment .. "\n" end
        end
        covered = true
      end
    end
  end
  return table.concat(out, "\n") .. "\n"
end

-- ---- what is reachable must be described ---------------------------------------------------------------------------------------------

local function check_reachable()
  local ops = {}
  for _, row in ipairs(core.ops_table()) do ops[row.name], ops[row.name .. "_"] = true, true end
  local seen = {}
  local function visit(name, value)
    if type(value) == "function" then
      local info = debug.getinfo(value, "S")
      local last = name:match "[%w_]+$"
      if info.what == "C" then
        if not bound[last] and not ops[last] then problem("%s is a C function without a /*** description in bindings/", name) end
      elseif info.source:match "lua/bp/" then
        if not documented[place(value)] and not seen[value] then problem("%s (%s) has no `---` description", name, place(value)) end
      end
      seen[value] = true
    elseif type(value) == "table" and not seen[value] and not core.is_tensor(value) then
      seen[value] = true
      if getmetatable(value) == nil then
        for key, v in pairs(value) do
          if type(key) == "string" then visit(name .. "." .. key, v) end
        end
      end
    end
  end
  visit("bp", bp)
  local methods = debug.getmetatable(bp.zeros(1)).__methods
  for key, value in pairs(type(methods) == "table" and methods or {}) do
    if type(value) == "function" and not bound[key] and not ops[key] then
      problem("tensor method %s has no /*** description in bindings/", key)
    end
  end
end

-- ---- main ----------------------------------------------------------------------------------------------------------------------------

local pages = { ["ops.md"] = ops_page(), ["lua.md"] = lua_page(), ["tensors.md"] = bindings_page(), ["c.md"] = c_page(),
  ["checks.md"] = dofile "docs/checks.lua"(bp.nn, files, read) }
check_reachable()

-- A code block of docs/ that says <!-- file: PATH --> is that file.
for _, path in ipairs(files "ls docs/*.md README.md") do
  for name, code in read(path):gmatch "<!%-%- file: (%S+) %-%->\n```%w*\n(.-)```" do
    if read(name) ~= code then problem("%s shows %s, which has changed; copy it anew", path, name) end
  end
end

if not check then os.execute("mkdir -p " .. folder) end
for name, text in pairs(pages) do
  local path = folder .. "/" .. name
  if check then
    local f = io.open(path, "rb")
    if not f or f:read "a" ~= text then problem("%s is not what the sources say; run make docs", path) end
    if f then f:close() end
  else
    local f <close> = assert(io.open(path, "wb"))
    f:write(text)
  end
end
table.sort(problems)
for _, text in ipairs(problems) do io.stderr:write(text, "\n") end
if #problems > 0 then os.exit(1) end
