--- bp.checkpoint: everything a training needs to go on as if it had never ended, in one safetensors file. model:fit writes such files by
--- callbacks.checkpoint and takes them up by resume = true; a loop of one's own does the same with save and load:
---
---     local saved = bp.checkpoint.load{ "run/ckpt", model = net, optimizer = opt }
---     local epoch, from = saved and saved.epoch or 1, saved and saved.batches
---     for e = epoch, 10 do
---       local batches = train:batches{ 64, shuffle = true, resume = from }
---       from = nil
---       for batch in batches do
---         step(batch.x, batch.y)
---         if opt:steps() % 100 == 0 then
---           assert(bp.checkpoint.save{ "run/ckpt", at = opt:steps(), model = net, optimizer = opt,
---             state = { epoch = e, batches = batches } })
---         end
---       end
---     end
---
--- A file holds the weights and buffers under their names, so that bp.load reads it as a model, the optimizer's tensors under
--- "@optimizer.", tensors of the state under "@state.", and in the metadata entry "bplua.training" the rest: where the random streams
--- stand, the state, the shapes the layers were built for, and what program on what machine wrote it. Every file is written whole or not
--- at all, with checksums; a damaged one is passed over for the one before.
local core = require "bp.core"
local environment = require "bp.environment"
local init = require "bp.nn.initializers"
local interrupt = require "bp.interrupt"
local json = require "bp.json"
local leftovers = require "bp.leftovers"
local options = require "bp.options"
local pack = require "bp.state"
local serialize = require "bp.serialize"
local streams = require "bp.streams"
local tree = require "bp.nn.tree"
local warning = require "bp.warning"
local weights = require "bp.nn.weights"

local checkpoint = {}

local FORMAT = 1
local KEY = "bplua.training"
local EXTENSION = "%.safetensors$"
local DIFFERENCES = 12 -- lines of a diff that are shown

-- ---- files of a folder ---------------------------------------------------------------------------------------------------------------

-- Place of a file in the training, by its name: epoch-00003 is after all of epoch 3, epoch-00003-batch-000200 within it.
local function place(name)
  local epoch, batch = name:match("^epoch%-(%d+)%-batch%-(%d+)" .. EXTENSION)
  if epoch then return tonumber(epoch), tonumber(batch) end
  epoch = name:match("^epoch%-(%d+)" .. EXTENSION)
  if epoch then return tonumber(epoch), math.maxinteger end
  local at = name:match("^step%-(%d+)" .. EXTENSION)
  if at then return tonumber(at), 0 end
end

--- The name of a checkpoint of fit.
---@param epoch integer
---@param batch integer|nil within the epoch
---@return string name
---@private
function checkpoint.name(epoch, batch)
  return batch and ("epoch-%05d-batch-%06d.safetensors"):format(epoch, batch) or ("epoch-%05d.safetensors"):format(epoch)
end

--- The checkpoints in a folder, oldest first.
---@param folder string
---@return table|nil list of { name =, path =, epoch =, batch = }
---@return string|nil message
---@return string|nil code
---@private
function checkpoint.files(folder)
  local names, message, code = core.list_folder(folder)
  if not names then return nil, message, code end
  local list = {}
  for _, name in ipairs(names) do
    local epoch, batch = place(name)
    if epoch then list[#list + 1] = { name = name, path = folder .. "/" .. name, epoch = epoch, batch = batch } end
  end
  table.sort(list, function(a, b)
    if a.epoch ~= b.epoch then return a.epoch < b.epoch end
    return a.batch < b.batch
  end)
  return list
end

--- Removes all but the newest checkpoints.
---@param folder string
---@param keep integer
---@private
function checkpoint.prune(folder, keep)
  local list = checkpoint.files(folder) or {}
  for i = 1, #list - keep do core.remove_file(list[i].path) end
end

--- Removes half-written files that a killed program left.
---@param folder string
---@private
function checkpoint.sweep(folder) leftovers.remove(folder, { "epoch-", "step-", "best.", ".writable" }) end

-- ---- parts ---------------------------------------------------------------------------------------------------------------------------

-- { name or "" = object } for one object or a table of them.
local function each(given, is_one)
  if given == nil then return {} end
  if is_one(given) then return { [""] = given } end
  local list = {}
  for name, one in pairs(given) do list[tostring(name)] = one end
  return list
end

local function is_optimizer(value) return type(value) == "table" and getmetatable(value) ~= nil and value.load_state ~= nil end

local function models(given) return each(given, tree.is_module) end
local function optimizers(given) return each(given, is_optimizer) end

local function prefix(name) return name == "" and "" or name .. "." end

-- The shapes that layers were built for, and which parameters are frozen.
local function structure(model)
  local built, frozen = {}, json.array{}
  for _, entry in ipairs(tree.modules(model)) do
    local shape = rawget(entry.module, "built_for")
    if shape then built[#built + 1] = { entry.path, shape } end
  end
  for _, entry in ipairs(tree.parameters(model)) do
    if not entry.tensor.requires_grad then frozen[#frozen + 1] = entry.name end
  end
  return { built = pack.pack(built, {}, "built"), frozen = frozen }
end

--- The contents of a checkpoint.
---@param given table { model =, optimizer =, state =, extra = } extra: more entries of the JSON
---@return table tensors by name
---@return table metadata strings by name
---@private
function checkpoint.contents(given)
  local tensors, metadata, training = {}, {}, { format = FORMAT, models = {}, optimizers = {} }
  for key, value in pairs(given.extra or {}) do training[key] = value end
  for name, model in pairs(models(given.model)) do
    tree.require_built(model)
    for _, entry in ipairs(weights.state(model)) do tensors[prefix(name) .. entry.name] = entry.tensor:detach() end
    training.models[name] = structure(model)
    -- what a file cannot hold, such as a layer of an unnamed function, keeps it from being loaded as a model, but not from resuming
    local ok, architecture = pcall(serialize.architecture, model)
    if ok and name == "" then metadata[serialize.KEY] = architecture end
  end
  for name, optimizer in pairs(optimizers(given.optimizer)) do
    training.optimizers[name] = optimizer.name
    for key, tensor in pairs(optimizer:state()) do tensors["@optimizer." .. prefix(name) .. key] = tensor end
  end
  training.environment = environment.describe()
  training.streams = streams.get()
  training.state = pack.pack(given.state or {}, tensors, "@state")
  metadata[KEY] = json.encode(training)
  return tensors, metadata
end

--- Writes a checkpoint.
---@param path string
---@param given table as for contents
---@return boolean|nil ok
---@return string|nil message
---@return string|nil code
---@private
function checkpoint.write(path, given)
  local tensors, metadata = core.pause(core.no_grad, function() return checkpoint.contents(given) end)
  return core.safetensors_save(path, tensors, metadata)
end

-- ---- reading -------------------------------------------------------------------------------------------------------------------------

--- Reads a checkpoint and verifies its checksums.
---@param path string
---@return table|nil saved { path, tensors, training, state }
---@return string|nil message
---@return string|nil code
---@private
function checkpoint.read(path)
  local tensors, metadata, code = core.safetensors_load(path)
  if not tensors then return nil, metadata, code end
  if not metadata[KEY] then return nil, path .. ": it is no checkpoint: its metadata lacks " .. KEY, "eformat" end
  local training, message = json.decode(metadata[KEY])
  if type(training) ~= "table" then
    return nil, ("%s: its training state is no JSON object: %s"):format(path, tostring(message)), "eformat"
  end
  if math.type(training.format) ~= "integer" or training.format > FORMAT then
    return nil, ("%s: the checkpoint has format %s; this bp (%s) reads up to %d; take a newer one")
      :format(path, tostring(training.format), core.version, FORMAT), "eversion"
  end
  return { path = path, tensors = tensors, training = training, state = pack.unpack(training.state, tensors) }
end

--- The newest sound checkpoint of a folder. Damaged ones are passed over with a warning; when none is sound, an error says so.
---@param folder string
---@return table|nil saved nil when there is no checkpoint at all
---@private
function checkpoint.newest(folder)
  local list = checkpoint.files(folder) or {}
  local problems = {}
  for i = #list, 1, -1 do
    local saved, message, code = checkpoint.read(list[i].path)
    if saved then
      if #problems > 0 then
        warning.give("resume: %s; going back to the checkpoint before it, %s", table.concat(problems, "; "), saved.path)
      end
      return saved
    end
    if code == "eversion" then core.error("resume: " .. message) end
    problems[#problems + 1] = message
  end
  if #problems > 0 then
    core.error(("resume: no checkpoint in %s is sound: %s; remove them to start from the beginning")
      :format(folder, table.concat(problems, "; ")))
  end
end

-- ---- putting it back -----------------------------------------------------------------------------------------------------------------

local function describe(tensor) return ("%s [%s]"):format(tensor.dtype, table.concat(tensor:shape(), "][")) end

-- Lines that say how the tensors of a file differ from a model's.
local function differences(model, theirs)
  local lines, mine = {}, {}
  for _, entry in ipairs(weights.state(model)) do
    local there = theirs[entry.name]
    mine[entry.name] = true
    if not there then
      lines[#lines + 1] = ("%s: %s here, missing there"):format(entry.name, describe(entry.tensor))
    elseif describe(there) ~= describe(entry.tensor) then
      lines[#lines + 1] = ("%s: %s here, %s there"):format(entry.name, describe(entry.tensor), describe(there))
    end
  end
  local names = {}
  for name in pairs(theirs) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    if not mine[name] then lines[#lines + 1] = ("%s: missing here, %s there"):format(name, describe(theirs[name])) end
  end
  return lines
end

-- The tensors of a file that are weights of the model of that name.
local function weights_of(saved, name)
  local list, start = {}, prefix(name)
  for key, tensor in pairs(saved.tensors) do
    if key:sub(1, 1) ~= "@" and key:sub(1, #start) == start then list[key:sub(#start + 1)] = tensor end
  end
  return list
end

-- Gives layers that were not called yet their parameters, for the shapes that the file names.
local function build(model, built)
  local by_path = {}
  for _, entry in ipairs(tree.modules(model)) do by_path[entry.path] = entry.module end
  init.without_drawing(function()
    for _, entry in ipairs(built) do
      local one, shape = by_path[entry[1]], entry[2]
      if one and not rawget(one, "built_for") then
        if one.build then core.pause(core.no_grad, function() pcall(one.build, one, shape) end) end
        rawset(one, "built_for", shape)
      end
    end
  end)
end

local function restore_model(saved, name, model)
  local theirs = weights_of(saved, name)
  local info = saved.training.models[name]
  if not info then core.error(("checkpoint: %s holds no model%s"):format(saved.path, name == "" and "" or " called '" .. name .. "'")) end
  build(model, pack.unpack(info.built, {}))
  local lines = differences(model, theirs)
  if #lines > 0 then
    local more = #lines - DIFFERENCES
    if more > 0 then lines[DIFFERENCES + 1] = ("and %d more"):format(more) end
    core.error(("checkpoint: %s is of another model:\n  %s\nexpected the model that wrote it; another folder starts anew")
      :format(saved.path, table.concat(lines, "\n  ", 1, math.min(#lines, DIFFERENCES + 1))))
  end
  weights.set(model, theirs)
  local frozen = {}
  for _, parameter in ipairs(info.frozen) do frozen[parameter] = true end
  for _, entry in ipairs(tree.parameters(model)) do
    if entry.tensor.requires_grad == (frozen[entry.name] == true) then tree.set_trainable(model, entry.name, not frozen[entry.name]) end
  end
end

local function restore_optimizer(saved, name, optimizer, model)
  local theirs, start = {}, "@optimizer." .. prefix(name)
  for key, tensor in pairs(saved.tensors) do
    if key:sub(1, #start) == start then theirs[key:sub(#start + 1)] = tensor end
  end
  local known = saved.training.optimizers[name]
  if known ~= optimizer.name then
    core.error(("checkpoint: %s was written with the optimizer %s, this one is %s; it comes from another optimizer")
      :format(saved.path, tostring(known or "none"), tostring(optimizer.name)))
  end
  if #optimizer.groups == 0 and model then optimizer:bind(model:parameters()) end
  local ok, message = pcall(optimizer.load_state, optimizer, theirs)
  if not ok then core.error(("checkpoint: %s: %s"):format(saved.path, (tostring(message):gsub("^[^\n]-:%d+: ", "")))) end
end

--- Puts weights, optimizer and random streams back to what a checkpoint holds.
---@param saved table
---@param given table { model =, optimizer = }
---@private
function checkpoint.restore(saved, given)
  local by_name = models(given.model)
  for name, model in pairs(by_name) do restore_model(saved, name, model) end
  for name, optimizer in pairs(optimizers(given.optimizer)) do restore_optimizer(saved, name, optimizer, by_name[name]) end
  local missing = streams.set(saved.training.streams)
  if #missing > 0 then
    warning.give("resume: the program has fewer random streams of its own than when %s was written (%s); its draws will differ",
      saved.path, table.concat(missing, ", "))
  end
end

--- Says what is otherwise than when a checkpoint was written.
---@param saved table
---@private
function checkpoint.report(saved)
  for _, line in ipairs(environment.differences(saved.training.environment)) do warning.give("resume: %s", line) end
end

-- ---- for loops of one's own ----------------------------------------------------------------------------------------------------------

local both = {
  { "path", "string", required = true, help = "folder of the checkpoints" },
  { "model", "table", named = true, help = "the model, or a table of models by name" },
  { "optimizer", "table", named = true, help = "the optimizer, or a table of optimizers by name" },
}

local save_spec = options.define("checkpoint.save", "Writes what a loop of one's own needs to go on later.", {
  both[1], both[2], both[3],
  { "at", "int", min = 0, required = true, named = true, help = "how far the training is, such as optimizer:steps(): orders the files" },
  { "state", "table", named = true, help = "what else is to be kept: numbers, strings, tensors, tables of them, what train:batches gave" },
  { "keep", "int", min = 1, default = 2, named = true, help = "how many of the newest files stay" },
})

--- Writes a checkpoint: weights, optimizer, random streams and a state of one's own.
---@param given table { "folder", at = steps, model =, optimizer =, state = {}, keep = 2 }
---@return string|nil path of the file
---@return string|nil message
---@return string|nil code
function checkpoint.save(given, ...)
  local o = save_spec:read(given, ...)
  local ok, message, code = core.make_folder(o.path)
  if not ok then return nil, message, code end
  local path = ("%s/step-%010d.safetensors"):format(o.path, o.at)
  ok, message, code = checkpoint.write(path, { model = o.model, optimizer = o.optimizer, state = o.state })
  if not ok then return nil, message, code end
  checkpoint.prune(o.path, o.keep)
  return path
end

local load_spec = options.define("checkpoint.load", "Takes up the newest sound checkpoint of a folder.", both)

--- Takes up the newest sound checkpoint: weights, optimizer and random streams are put back. Says which file it was; warns about damaged
--- ones, and about another program or machine.
---@param given table { "folder", model =, optimizer = }
---@return table|nil state what save was given; nil when the folder has no checkpoint
---@return string|nil path of the file
function checkpoint.load(given, ...)
  local o = load_spec:read(given, ...)
  local saved = checkpoint.newest(o.path)
  if not saved then return nil end
  checkpoint.sweep(o.path)
  checkpoint.restore(saved, o)
  checkpoint.report(saved)
  return saved.state, saved.path
end

local Watch = { __name = "watch" }
Watch.__index = Watch

--- Whether Ctrl-C was pressed or SIGTERM came.
---@return boolean
function Watch:interrupted() return self.pending() ~= nil end

--- Ends the process as that asks for, with status 130 or 143; at the prompt it returns.
function Watch:leave()
  local signal = self.pending()
  if signal then interrupt.leave(signal) end
end

function Watch:__close() getmetatable(self.held).__close(self.held) end

--- For loops of one's own: until the value is closed, Ctrl-C and SIGTERM only set a flag, which the loop asks for where it can save. A
--- second one ends the process at once. In a host other than the bplua command it never reports anything.
---
---     local watch <close> = bp.checkpoint.watch()
---     for ... do
---       step(...)
---       if watch:interrupted() then assert(bp.checkpoint.save{ ... }); watch:leave() end
---     end
---@return table watch with :interrupted() and :leave()
function checkpoint.watch()
  return setmetatable({ held = interrupt.hold(), pending = interrupt.poll() }, Watch)
end

return checkpoint
