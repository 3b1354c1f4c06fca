--- The page of checks: for every layer and op what is checked, taken from the tests' own tables: the rows of
-- tests/support/layer_checks.lua, the cases of the op table, the stored vectors, and the tables of misuse in tests/spec.
local core = require "bp.core"

-- How many cases the stored vectors have by the name of what they are of, and who computed them.
local function vectors_of(paths)
  local by_name = {}
  for _, path in ipairs(paths) do
    local _, metadata = assert(core.safetensors_load(path))
    for _, case in ipairs(metadata.cases and core.json_decode(metadata.cases) or {}) do
      local text = metadata["case." .. case] -- a file of another kind names cases without saying what they are of
      local about = text and core.json_decode(text) or {}
      if about.op then
        local entry = by_name[about.op] or { count = 0, sources = {} }
        by_name[about.op], entry.count = entry, entry.count + 1
        if about.source == "both" or about.source == "pytorch" then entry.sources.PyTorch = true end
        if about.source == "both" or about.source == "keras" then entry.sources.Keras = true end
      end
    end
  end
  return by_name
end

local function vectors_text(entry)
  if not entry then return "" end
  local names = {}
  for name in pairs(entry.sources) do names[#names + 1] = name end
  table.sort(names)
  return ("%d: %s"):format(entry.count, table.concat(names, ", "))
end

-- How many cases of misuse name nn.NAME or ops.NAME: the entries { "what", function ... } of specs that use support.bad.
local function misuse_of(paths, read)
  local counts = {}
  for _, path in ipairs(paths) do
    local text = read(path)
    if text:find("bad.cases{", 1, true) then
      for case in text:gmatch '\n%s*{ "[^\n]-function%(.-\n' do
        local seen = {}
        for name in case:gmatch "[%w_]*%.?([%a_][%w_]*)[%(%{%s\"]" do
          if not seen[name] then counts[name], seen[name] = (counts[name] or 0) + 1, true end
        end
      end
    end
  end
  return counts
end

local layers_head = [[
# Checks

What is checked of every layer and op. Made from the tests by `make docs`; `tests/spec/layers_spec.lua` fails where a layer has no row.

## Layers

*Gradient*: the orders that are compared with differences in f64. *Captured* and *file*: a captured step gives the bits of an eager one,
and a saved layer comes back with its bits. *Vectors*: stored cases and who computed them. *Misuse*: cases that name it and whose message is
tested, beside an unknown option and a value too many, which every layer has.

| layer | gradient | captured | file | vectors | misuse |
|--|--|--|--|--|--|]]

local ops_head = [[

## Ops

*Gradient*: `tests/c/test_grad.c` compares first and second order with differences in f64 over the cases of the row, and makes sure that
the cases would notice a wrong gradient. Ops without one by nature have a dash. *Vectors* are those of the op's name; a layer's vectors
check the ops that it is made of, too.

| op | cases | gradient | vectors | misuse |
|--|--|--|--|--|]]

--- The page as text.
-- @param nn table bp.nn
-- @param files function(command) -> list of lines
-- @param read function(path) -> text
return function(nn, files, read)
  local checks = dofile "tests/support/layer_checks.lua"
  local vectors = vectors_of(files "ls tests/vectors/*.safetensors")
  local misuse = misuse_of(files "ls tests/spec/*_spec.lua", read)
  local out = { layers_head }
  for _, name in ipairs(checks.layers(nn)) do
    local row = checks.rows[name]
    local gradient, kept = "**nothing**", "**nothing**"
    if row and row.elsewhere then gradient, kept = row.elsewhere, "the same"
    elseif row then
      gradient = type(row.gradient) == "string" and row.gradient or row.gradient == 2 and "first, second" or "first"
      kept = "yes"
    end
    out[#out + 1] = ("| %s | %s | %s | %s | %s | %s |"):format(name, gradient, kept, kept, vectors_text(vectors[name]), misuse[name] or "")
  end
  out[#out + 1] = ops_head
  local rows = core.ops_table()
  table.sort(rows, function(a, b) return a.name < b.name end)
  for _, row in ipairs(rows) do
    out[#out + 1] = ("| %s | %d | %s | %s | %s |"):format(row.name, row.cases, row.differentiable and "first, second" or "—",
      vectors_text(vectors[row.name]), misuse[row.name] or "")
  end
  return table.concat(out, "\n") .. "\n"
end
