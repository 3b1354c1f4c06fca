--- data.fashion_mnist: 70,000 pictures of clothes in ten classes (Xiao, Rasul and Vollgraf, 2017), from the Debian package.
local core = require "bp.core"
local idx = require "bp.data.idx"
local options = require "bp.options"

local data = {}

local CLASSES = { "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot" }
local NAME = "fashion-mnist"

local spec = options.define("data.fashion_mnist", "Fashion-MNIST: 60,000 samples for training and 10,000 for testing.", {
  { "folder", "string", help = "where the four files are; by default the usual places are searched" },
})

-- The places where data are looked for, most particular first.
local function places()
  local getenv = os and os.getenv or function() end
  local list = {}
  for _, root in ipairs{ getenv "BPLUA_DATA" or "", "data", getenv "HOME" and getenv "HOME" .. "/.cache/bplua/data" or "" } do
    if root ~= "" then
      list[#list + 1] = root .. "/" .. NAME
      list[#list + 1] = root
      list[#list + 1] = root .. "/usr/share/datasets/" .. NAME -- a package unpacked with dpkg-deb -x
    end
  end
  list[#list + 1] = "/usr/share/datasets/" .. NAME
  return list
end

-- The path of a file of that name, gzip'd or not, in a listing; or nil.
local function pick(folder, there, name)
  if there[name .. ".gz"] then return folder .. "/" .. name .. ".gz" end
  if there[name] then return folder .. "/" .. name end
end

-- The paths of images and labels of both parts, or nil when one is not in the folder.
local function files_in(folder)
  local there = {}
  for _, name in ipairs(core.list_folder(folder) or {}) do there[name] = true end
  local files = {}
  for _, part in ipairs{ "train", "t10k" } do
    files[#files + 1] = pick(folder, there, part .. "-images-idx3-ubyte")
    files[#files + 1] = pick(folder, there, part .. "-labels-idx1-ubyte")
  end
  return #files == 4 and files or nil
end

--- Fashion-MNIST as two datasets: x u8 [n][28][28][1], y 1..10, classes with their names.
---
--- It is looked for in $BPLUA_DATA, ./data, ~/.cache/bplua/data and /usr/share/datasets/fashion-mnist, and never downloaded.
---@param given table|nil { folder = where the files are }
---@return table|nil train 60,000 samples
---@return table|string test 10,000 samples, or the message
---@return string|nil code
function data.fashion_mnist(given)
  local o = spec:read(given)
  local searched = o.folder and { o.folder } or places()
  for _, folder in ipairs(searched) do
    local files = files_in(folder)
    if files then
      local train, test, message, code
      train, message, code = idx{ files[1], files[2], classes = CLASSES }
      if train then test, message, code = idx{ files[3], files[4], classes = CLASSES } end
      if not test then return nil, message, code end
      return train, test
    end
  end
  return nil, ("Fashion-MNIST is not there; searched %s; install it with: apt-get install dataset-fashion-mnist (as root, or with sudo), "
    .. "or set BPLUA_DATA to a folder that holds its four files"):format(table.concat(searched, ", ")), "eio"
end

return data.fashion_mnist
