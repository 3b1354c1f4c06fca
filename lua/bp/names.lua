--- Tables that say so when a name is asked for that they do not have: nn.Dense, optim.Adam, bp.foo. Lua would go on with nil and fail
--- elsewhere. Whether there is a name, rawget and pairs tell.
---@internal
local core = require "bp.core"
local options = require "bp.options"

local names = {}

-- What other frameworks call something that we call otherwise, by table. Words that differ in case or underscores alone need no entry.
local elsewhere = {
  bp = { tensors = "bp.tensor", array = "bp.tensor", linear = "nn.dense", cat = "bp.concat", save = "model:save", manual_seed = "bp.seed",
    no_gradient = "bp.no_grad", set_seed = "bp.seed", layers = "bp.nn", optimizers = "bp.optim", losses = "bp.nn.loss",
      losses_ = "bp.nn.loss",
    model = "nn.sequential or nn.model", sequential = "nn.sequential", dense = "nn.dense", adam = "optim.adam" },
  nn = { linear = "nn.dense", conv = "nn.conv2d", batchnorm2d = "nn.batch_norm", batchnorm1d = "nn.batch_norm", batch_normalization =
    "nn.batch_norm", spatialconvolution = "nn.conv2d", spatialmaxpooling = "nn.max_pool2d", view = "nn.reshape", mseloss = "nn.loss.mse",
    l1loss = "nn.loss.mae", crossentropyloss = "nn.loss.cross_entropy", bcewithlogitsloss = "nn.loss.binary_crossentropy", bceloss =
    "nn.loss.binary_crossentropy with from_logits = false", nllloss = "nn.loss.cross_entropy", msecriterion = "nn.loss.mse",
      crossentropycriterion =
    "nn.loss.cross_entropy", classnllcriterion = "nn.loss.cross_entropy", ctcloss = "nn.loss.ctc", huberloss = "nn.loss.huber",
      smoothl1loss =
    "nn.loss.huber", tripletmarginloss = "nn.loss.triplet", kldivloss = "nn.loss.kl_divergence", maxpooling2d = "nn.max_pool2d",
    averagepooling2d = "nn.avg_pool2d", globalaveragepooling2d = "nn.global_avg_pool2d", layernormalization = "nn.layer_norm",
      model = "nn.model",
    initializers = "nn.init", losses = "nn.loss" },
  optim = { schedules = "optim.schedule", lr_scheduler = "optim.schedule", steplr = "optim.schedule.step", cosineannealinglr =
    "optim.schedule.cosine", onecyclelr = "optim.schedule.onecycle", exponentiallr = "optim.schedule.exp", reducelronplateau =
    "optim.schedule.plateau, or callbacks.reduce_lr_on_plateau", clip_grad_norm = "bp.clip_grad_norm" },
  callbacks = { modelcheckpoint = "callbacks.checkpoint", csvlogger = "callbacks.csv_logger", learningratescheduler =
    "callbacks.lr_schedule, or a schedule in the optimizer", tensorboard = "callbacks.tfevents", terminateonnan = "callbacks.nan_guard",
    backupandrestore = "callbacks.checkpoint with resume = true", reducelronplateau = "callbacks.reduce_lr_on_plateau" },
  data = { dataloader = "dataset:batches{ 32 }", tensordataset = "data.tensors", dataset = "data.tensors" },
  metrics = { accuracy = '"accuracy" in compile, or metrics.sparse_categorical_accuracy', meansquarederror = "metrics.mse" },
  ["nn.init"] = { xavier_uniform = "nn.init.glorot_uniform", xavier_normal = "nn.init.glorot_normal",
    kaiming_uniform = "nn.init.he_uniform",
    kaiming_normal = "nn.init.he_normal", randomnormal = "nn.init.normal", randomuniform = "nn.init.uniform" },
}

-- Without case and underscores.
local function plain(name) return (name:lower():gsub("_", "")) end

local function known_names(t, more)
  local list = table.move(more or {}, 1, #(more or {}), 1, {})
  for key in next, t do -- not pairs, which loads the parts of bp
    if type(key) == "string" and key:sub(1, 1) ~= "_" then list[#list + 1] = key end
  end
  table.sort(list)
  return list
end

--- The name in a list that differs in case and underscores alone, or is nearest.
---@param key string
---@param list string[]
---@return string|nil
local function nearest(key, list)
  for _, name in ipairs(list) do
    if plain(name) == plain(key) then return name end
  end
  return options.nearest(key, list)
end

local function complain(where, t, key, more)
  local foreign = elsewhere[where] or {}
  local hint = foreign[key:lower()] or foreign[key:lower():match "^(.-)_*$"] or foreign[plain(key)]
  if not hint then
    local near = nearest(key, known_names(t, more))
    hint = near and where .. "." .. near
  end
  core.error(("%s has no '%s'%s"):format(where, key, hint and (" (did you mean %s?)"):format(hint)
    or ("; bp.help \"%s\" lists what there is"):format(where)))
end

--- Has a table complain about names it does not have. What it looks up so far (parts that load at first use) goes first.
---@param where string what it is called: "nn"
---@param t table
---@param more string[]|nil names that it finds beside those in it
---@return table t
function names.strict(where, t, more)
  local meta = getmetatable(t) or {}
  local before = meta.__index
  meta.__index = function(self, key)
    local value
    if before then value = before(self, key) end
    if value ~= nil or type(key) ~= "string" or key:sub(1, 2) == "__" then return value end
    complain(where, self, key, more)
  end
  return setmetatable(t, meta)
end

return names
