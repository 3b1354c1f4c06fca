--- Where data lies on this machine. @internal
local files = {}

--- Whether a file can be read.
---@param path string
---@return boolean
function files.exists(path)
  local f = io.open(path, "rb")
  if not f then return false end
  f:close()
  return true
end

--- The folder that holds a data set, among the places where it may be: $BPLUA_DATA/NAME, ./data/NAME, ~/.cache/bplua/data/NAME,
--- /usr/share/datasets/NAME.
---@param name string
---@param file string a file that has to be in it
---@return string|nil folder nil when it is nowhere
---@return string[] places where it was looked for
function files.find(name, file)
  local roots, places = {}, {}
  local own, home = os.getenv "BPLUA_DATA", os.getenv "HOME"
  if own and own ~= "" then roots[#roots + 1] = own end
  roots[#roots + 1] = "data"
  if home then roots[#roots + 1] = home .. "/.cache/bplua/data" end
  roots[#roots + 1] = "/usr/share/datasets"
  for i, root in ipairs(roots) do
    places[i] = root .. "/" .. name
    if files.exists(places[i] .. "/" .. file) then return places[i], places end
  end
  return nil, places
end

return files
