--- `bplua inspect FILE`: what a .safetensors file holds, and the net it describes if bp wrote it.
local bp = require "bp"

--- 1234567 -> "1,234,567"
local function commas(n)
  local text = ("%d"):format(n):reverse():gsub("(%d%d%d)", "%1,"):reverse()
  return (text:gsub("^,", ""))
end

--- A key by which "layer.10" comes after "layer.9".
local function natural(name) return (name:gsub("%d+", function(digits) return ("%012d"):format(math.tointeger(digits) or 0) end)) end

local function sorted_names(t)
  local names = {}
  for name in pairs(t) do names[#names + 1] = name end
  table.sort(names, function(a, b) return natural(a) < natural(b) end)
  return names
end

local function print_tensors(tensors)
  local names, width, total = sorted_names(tensors), 0, 0
  for _, name in ipairs(names) do width = math.max(width, #name) end
  for _, name in ipairs(names) do
    local t = tensors[name]
    total = total + t:numel()
    print(("  %-" .. width .. "s  %-4s  [%s]"):format(name, t.dtype, table.concat(t:shape(), "][")))
  end
  print(("%d tensors, %s numbers"):format(#names, commas(total)))
end

--- Metadata as written, long texts cut.
local function print_metadata(metadata)
  for _, key in ipairs(sorted_names(metadata)) do
    local text = metadata[key]:gsub("%c", " ")
    if #text > 100 then text = text:sub(1, 97) .. ("... (%s bytes)"):format(commas(#text)) end
    print(("  %s: %s"):format(key, text))
  end
end

--- @param path string
-- @return 0, or nil and a message
return function(path)
  if not path then return nil, "inspect: expected a file: bplua inspect model.safetensors" end
  local tensors, metadata = bp.load_tensors(path)
  if not tensors then return nil, metadata end
  print(path)
  print_tensors(tensors)
  if next(metadata) then
    print "metadata"
    print_metadata(metadata)
  end
  if metadata["bplua.model"] then
    -- Layers of the script's own are unknown here; the rest of the file is still worth showing.
    local model, message = bp.load(path)
    print(model and model:summary() or message)
  end
  return 0
end
