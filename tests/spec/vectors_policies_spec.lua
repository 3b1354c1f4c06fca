--- Policies against torch.distributions.
local bp = require "bp"
local vectors = require "support.vectors"
local rl = bp.rl

local function compare(case, policy, other, action, parameters)
  local log_prob, entropy, kl = policy:log_prob(action), policy:entropy(), policy:kl(other)
  vectors.near(case.log_prob, log_prob, "log_prob", 1e-9)
  vectors.near(case.entropy, entropy, "entropy", 1e-9)
  vectors.near(case.kl, kl, "kl", 1e-9);
  (log_prob * case.w + entropy * case.v + kl * case.u):sum():backward()
  for name, p in pairs(parameters) do vectors.near(case["d_" .. name], p.grad, "d_" .. name, 1e-8) end
end

local tests = {
  categorical = function(case)
    local logits = vectors.leaf(case.logits)
    compare(case, rl.categorical{ logits = logits }, rl.categorical{ logits = case.other_logits }, case.action + 1, { logits = logits })
  end,
  normal = function(case)
    local mean, std = vectors.leaf(case.mean), vectors.leaf(case.std)
    compare(case, rl.normal{ mean = mean, std = std }, rl.normal{ mean = case.other_mean, log_std = case.other_std:log() }, case.action,
      { mean = mean, std = std })
  end,
}

describe("policies agree with PyTorch:", function()
  vectors.compare("policies", tests, {})
end)
