--- history:diagnose(): what the curves of a training say, with what may help.
local report = require "bp.report"

local function finite(value) return value == value and math.abs(value) < math.huge end

-- The finite numbers of a column.
local function column(history, name)
  local list = {}
  for _, value in ipairs(history:column(name) or {}) do
    if value == value then list[#list + 1] = value end
  end
  return list
end

local function least(list)
  local best = 1
  for i, value in ipairs(list) do
    if value < list[best] then best = i end
  end
  return list[best], best
end

-- Slope of a straight line through the last n values, as a share of their mean per epoch.
local function trend(list, n)
  n = math.min(n, #list)
  if n < 2 then return 0 end
  local sx, sy, sxx, sxy = 0, 0, 0, 0
  for i = 1, n do
    local y = list[#list - n + i]
    sx, sy, sxx, sxy = sx + i, sy + y, sxx + i * i, sxy + i * y
  end
  local slope, mean = (n * sxy - sx * sy) / (n * sxx - sx * sx), sy / n
  return mean ~= 0 and slope / math.abs(mean) or 0
end

-- Whether the last n values neither move on nor about.
local function stands_still(list, n)
  local low, high = math.huge, -math.huge
  for i = math.max(1, #list - n + 1), #list do low, high = math.min(low, list[i]), math.max(high, list[i]) end
  return math.abs(trend(list, n)) < 1e-3 and high - low < 0.02 * math.max(math.abs(high), math.abs(low))
end

-- Share of the steps from epoch to epoch that turn back.
local function restlessness(list)
  local turns, up = 0, 0
  for i = 3, #list do
    if (list[i] - list[i - 1]) * (list[i - 1] - list[i - 2]) < 0 then turns = turns + 1 end
  end
  for i = 2, #list do up = up + math.max(0, list[i] - list[i - 1]) end
  local low, high = least(list), -least((function()
    local negated = {}
    for i, value in ipairs(list) do negated[i] = -value end
    return negated
  end)())
  return #list > 2 and turns / (#list - 2) or 0, high > low and up / (high - low) or 0
end

local function diverged(history, found)
  for i, value in ipairs(history:column("loss")) do
    if not finite(value) then
      return found:add("diverged", ("the loss is %s in epoch %d"):format(tostring(value), history.epochs[i]),
        "lower the learning rate, set clip_norm in the optimizer, look at model:check(data), find the layer with callbacks.nan_guard")
    end
  end
  local loss = column(history, "loss")
  local low, at = least(loss)
  if #loss >= 3 and loss[#loss] > loss[1] and loss[#loss] > 1.5 * low then
    found:add("diverging", ("the loss rose from %.4g in epoch %d to %.4g"):format(low, history.epochs[at], loss[#loss]),
      "lower the learning rate three to ten times; model:lr_find shows where it bears no more")
  end
end

local function fitting(history, found)
  local loss, val = column(history, "loss"), column(history, "val_loss")
  if #loss < 3 then return found:add("short", ("%d epochs are too few to tell anything"):format(#loss), "train for longer") end
  if #val >= 3 then
    local low, at = least(val)
    local last, gap = val[#val], (val[#val] - loss[#loss]) / math.max(math.abs(val[#val]), 1e-12)
    local falling = loss[#loss] < 0.98 * loss[math.max(1, at)]
    if at < #val and last > 1.03 * low and falling then
      found:add("overfitting", ("val_loss was best in epoch %d (%.4g) and is now %.4g, while the loss went on falling to %.4g")
        :format(history.epochs[at], low, last, loss[#loss]),
        "stop there with callbacks.early_stopping; more data, augmentation, dropout, l2, or a smaller model")
    elseif gap > 0.5 and last > loss[#loss] then
      found:add("overfitting", ("val_loss %.4g is far above the loss %.4g"):format(last, loss[#loss]),
        "more data, augmentation, dropout, l2, or a smaller model; do both parts come from the same source?")
    elseif last < 0.7 * loss[#loss] then
      found:add("validation_easier", ("val_loss %.4g is well below the loss %.4g"):format(last, loss[#loss]),
        "dropout and augmentation work in training alone, which is fine; without them look for samples that are in both parts")
    end
  end
  local fall = (loss[1] - least(loss)) / math.max(math.abs(loss[1]), 1e-12)
  if fall < 0.05 and not found:has "diverged" and not found:has "diverging" then
    found:add("underfitting", ("the loss fell by %.1f %% only, from %.4g to %.4g"):format(100 * fall, loss[1], least(loss)),
      "try a learning rate from model:lr_find, scale the inputs, look at model:check(data), then a larger model")
  end
  local slope = trend(loss, 5)
  if slope < -0.02 and not found:has "overfitting" then
    found:add("unfinished", ("the loss still falls by %.1f %% an epoch"):format(-100 * slope), "train for more epochs")
  elseif #loss >= 8 and fall >= 0.05 and stands_still(loss, math.max(5, #loss // 3)) then
    found:add("plateau", ("the loss has stood still for some %d epochs"):format(math.max(5, #loss // 3)),
      "lower the learning rate (callbacks.reduce_lr_on_plateau), or stop earlier")
  end
end

local function shaking(history, found)
  local loss = column(history, "loss")
  local turns, climbed = restlessness(loss)
  if #loss >= 6 and turns > 0.6 and climbed > 1 and not found:has "plateau" then
    found:add("unsteady", ("the loss turned around in %.0f %% of the epochs"):format(100 * turns),
      "lower the learning rate, or take larger batches")
  end
end

--- What the curves say: overfitting, underfitting, divergence, a plateau, an end too early, and what may help.
---@param self table history
---@return table report a list of { kind, text, advice }; print shows it
return function(self)
  local found = report.new("diagnosis", "nothing conspicuous")
  if not self:column "loss" then
    found:add("empty", "there is no loss in the history")
    return found
  end
  diverged(self, found)
  if not found:has "diverged" then
    fitting(self, found)
    shaking(self, found)
  end
  return found
end
