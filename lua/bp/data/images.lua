--- data.images: folders of pictures into datasets.
local core = require "bp.core"
local dataset = require "bp.data.dataset"
local options = require "bp.options"

local ops = core.ops
local data = {}

local spec = options.define("data.images", "Reads a folder of PNG, JPEG and BMP pictures as a dataset.", {
  { "folder", "string", required = true, help = "the folder" },
  { "size", "pair", named = true,
    help = "{height, width} to which the pictures are resized; without it all must have the size of the first" },
  { "labels", "choice", choices = { "directory", "none" }, default = "directory", named = true,
    help = '"directory": each folder inside is a class, named by it; "none": the pictures lie in the folder itself' },
  { "channels", "int", min = 1, max = 4, default = 3, named = true, help = "1 (grey), 3, or 4 (with alpha)" },
  { "skip_bad", "boolean", default = false, named = true, help = "leave out files that cannot be read, and list them in dataset.skipped" },
})

local ENDINGS = { png = true, jpg = true, jpeg = true, bmp = true }

-- Adds the pictures in a folder; files with other endings and folders further down are none of ours.
local function add_files(list, folder, label)
  local names, folders = core.list_folder(folder)
  if not names then return nil, folders end
  for _, name in ipairs(names) do
    local ending = name:match "%.(%w+)$"
    if not folders[name] and ending and ENDINGS[ending:lower()] then list[#list + 1] = { path = folder .. "/" .. name, label = label } end
  end
  return true
end

-- Files in order of class and name, and the names of the classes; or nil, message.
local function find(o)
  local list, classes = {}, nil
  if o.labels == "none" then
    local ok, message = add_files(list, o.folder)
    if not ok then return nil, message end
  else
    local names, folders = core.list_folder(o.folder)
    if not names then return nil, folders end
    classes = {}
    for _, name in ipairs(names) do
      if folders[name] and name:sub(1, 1) ~= "." then
        classes[#classes + 1] = name
        local ok, message = add_files(list, o.folder .. "/" .. name, #classes)
        if not ok then return nil, message end
      end
    end
  end
  if #list > 0 then return list, classes end
  local hint = o.labels == "none" and "" or '; expected one folder for each class (or labels = "none")'
  return nil, ("%s: holds no file that ends in .png, .jpg, .jpeg or .bmp%s"):format(o.folder, hint)
end

-- The picture, or nil, message, code: it must have the size of those before.
local function load(o, file, shape)
  local image, message, code = core.image_load(file.path, { channels = o.channels, size = o.size })
  if not image then return nil, message, code end
  local height, width = image:shape(1), image:shape(2)
  if shape and (height ~= shape[2] or width ~= shape[3]) then
    return nil, ("%s: has %d x %d pixels (height x width), those before %d x %d; give size = {height, width} to resize all"):format(
      file.path, height, width, shape[2], shape[3]), "eformat"
  end
  return image
end

--- Reads pictures as x u8 [n][height][width][channels], in order of class and file name.
---
---     local photos = data.images{ "photos", size = {64, 64} }       -- photos/cat/1.jpg, photos/dog/1.jpg, ...
---
--- The dataset has classes (names of the folders, sorted), files (paths) and skipped (list of { path =, message = }).
---@param given string|table { folder, size =, labels = "directory", channels = 3, skip_bad = false }
---@return table|nil dataset y has labels from 1 unless labels = "none"
---@return string|nil message
---@return string|nil code
function data.images(given)
  local o = spec:read(given)
  if o.channels == 2 then spec:fail("option 'channels' is 2; expected 1 (grey), 3, or 4 (with alpha)") end
  local list, classes = find(o)
  if not list then return nil, classes, "eio" end
  local files, labels, skipped = {}, {}, {}
  local x, shape
  for _, file in ipairs(list) do
    local image, message, code = load(o, file, shape)
    if image then
      if not x then
        shape = { #list, image:shape(1), image:shape(2), o.channels }
        x = ops.full{ shape = shape, value = 0, dtype = "u8" }
      end
      files[#files + 1], labels[#labels + 1] = file.path, file.label
      x[#files] = image
      image:free()
    elseif o.skip_bad then
      skipped[#skipped + 1] = { path = file.path, message = message }
    else
      return nil, message .. "; skip_bad = true leaves such files out", code
    end
  end
  if not x then
    return nil, ("%s: none of its %d pictures can be read; the first: %s"):format(o.folder, #list, skipped[1].message), "eformat"
  end
  return core.no_grad(function()
    if #files < #list then x = ops.contiguous(x[{ { 1, #files } }]) end
    local y = classes and core.tensor(labels, { dtype = "i64" }) or nil
    return dataset.make("data.images", { x = x, y = y }, { classes = classes, files = files, skipped = skipped })
  end)
end

return data.images
