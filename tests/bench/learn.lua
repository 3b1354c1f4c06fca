--- Do both sides learn alike? From fresh starts, seed by seed, over the same batches in the same order: the mean loss of the last steps
--- after a fixed number of steps. The means over the seeds may differ by what their spread allows (four standard errors) and 3 %.
local TAIL, STANDARD_ERRORS, SHARE = 24, 4, 0.03

local learn = {}

local function mean_and_variance(list)
  local sum, squares = 0, 0
  for _, x in ipairs(list) do sum = sum + x end
  local mean = sum / #list
  for _, x in ipairs(list) do squares = squares + (x - mean) ^ 2 end
  return mean, #list > 1 and squares / (#list - 1) or 0
end

local function losses(entry, workload)
  local steps, seeds, list = workload.learn[1], workload.learn[2], {}
  for seed = 1, seeds do
    local answer = entry.program:ask("learn %s %s %d %d %d", workload.name, entry.word, seed, steps, math.min(TAIL, steps // 2))
    if answer.error then return nil, answer.error end
    list[seed] = answer.loss
  end
  return list
end

--- Compares two programs on a workload.
---@return table { ours =, theirs = mean losses, allowed =, alike = boolean } or { error = }
function learn.compare(workload, ours, peer)
  local a, why = losses(ours, workload)
  local b
  if a then b, why = losses(peer, workload) end
  if not b then return { error = why, alike = false, peer = peer.label } end
  local mean_a, var_a = mean_and_variance(a)
  local mean_b, var_b = mean_and_variance(b)
  local allowed = STANDARD_ERRORS * math.sqrt((var_a + var_b) / #a) + SHARE * math.max(math.abs(mean_a), math.abs(mean_b))
  return { ours = mean_a, theirs = mean_b, allowed = allowed, alike = math.abs(mean_a - mean_b) <= allowed, peer = peer.label }
end

--- The peers that a workload is compared with: the best one, and PyTorch where that is not it. KANN trains with another optimizer.
function learn.peers(result, best)
  local list = {}
  if best and best.program.framework ~= "kann" then list[1] = best end
  if not (list[1] and list[1].program.framework == "torch") then
    for _, entry in ipairs(result.tried) do
      if entry.scouted and entry.program.framework == "torch" and entry.variant:match "^eager" then
        list[#list + 1] = entry
        break
      end
    end
  end
  return list
end

return learn
