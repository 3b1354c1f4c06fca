--- rl.categorical: one of n actions, numbered from 1.
local core = require "bp.core"
local options = require "bp.options"
local policy = require "bp.rl.policy"

local ops = core.ops
local categorical = {}

local spec = options.define("rl.categorical", "A policy over n actions, numbered from 1.", {
  { "logits", "tensor", help = "[..][n] scores; their softmax is the chance of each action; -inf rules an action out" },
  { "probs", "tensor", named = true, help = "[..][n] chances, instead of logits" },
  policy.stream_field,
})

-- Stands for log 0, so that 0 * log 0 is 0 and no NaN.
local LOG_0 = -1e30
-- Half the distance between the numbers that random_uniform draws: keeps log u finite.
local LEAST = 2.0 ^ -25

local Categorical = {}

-- log of the chances, [..][n].
local function log_probs(self)
  self.log_softmax = self.log_softmax or ops.log_softmax(self.logits, { axis = -1 })
  return self.log_softmax
end

--- The chances of the actions, [..][n].
---@return table tensor
function Categorical:probs() return ops.softmax(self.logits, { axis = -1 }) end

--- One action for each row, drawn by its chances: argmax(logits - log(-log u)), the Gumbel-max trick. No gradient goes through it.
---@return tensor actions i64 [..] from 1
function Categorical:sample()
  return core.no_grad(function()
    local u = ops.random_uniform(self.stream, { shape = self.logits:shape(), dtype = self.logits.dtype })
    local waiting = ops.neg(ops.log(ops.clamp(u, { min = LEAST, max = 1 - LEAST }))) -- exponential
    return ops.argmax(self.logits:detach() - ops.log(waiting), { axis = -1 })
  end)
end

--- The logarithm of the chance of actions.
---@param action any i64 [..] from 1: a tensor, number or list
---@return tensor log_prob [..]
function Categorical:log_prob(action)
  return ops.neg(ops.cross_entropy(self.logits, policy.action("categorical:log_prob", action, self.shape, "i64")))
end

--- How undecided the policy is, in nats: -sum p log p.
---@return tensor entropy [..]
function Categorical:entropy()
  local log_p = log_probs(self)
  return ops.neg(ops.sum(ops.exp(log_p) * ops.clamp(log_p, { min = LOG_0 }), { axes = { -1 } }))
end

--- The divergence KL(self || other) = sum p log(p / q), in nats.
---@param other table a categorical policy over as many actions
---@return tensor kl [..]
function Categorical:kl(other)
  if getmetatable(other) ~= getmetatable(self) then
    core.error(("categorical:kl: the other policy is %s; expected an rl.categorical"):format(options.describe(other)))
  end
  local log_p, log_q = log_probs(self), log_probs(other)
  local difference = ops.clamp(log_p, { min = LOG_0 }) - ops.clamp(log_q, { min = LOG_0 })
  return ops.sum(ops.exp(log_p) * difference, { axes = { -1 } })
end

--- The likeliest action.
---@return tensor actions i64 [..] from 1
function Categorical:mode() return ops.argmax(self.logits, { axis = -1 }) end

local new = policy.class(Categorical, "categorical")

--- A policy over n actions: local d = rl.categorical{ logits = net(observation) }; d:sample(), d:log_prob(action), d:entropy(),
--- d:kl(other), d:mode(), d:probs(). Works inside bp.capture; all but sample and mode are differentiable.
---@param given table { logits =, probs =, stream = "noise" }
---@return table policy
function categorical.categorical(given, ...)
  local o = spec:read(given, ...)
  if (o.logits == nil) == (o.probs == nil) then spec:fail("expected either logits or probs") end
  local logits = o.logits or ops.log(o.probs)
  if logits.dtype ~= "f32" and logits.dtype ~= "f64" then spec:fail("the logits are %s; expected f32 or f64", logits.dtype) end
  local shape = logits:shape()
  if #shape == 0 or shape[#shape] == 0 then
    spec:fail("the logits are %s; expected [..][n], a score for each of n actions", policy.shape_text(shape))
  end
  shape[#shape] = nil
  return new{ logits = logits, shape = shape, stream = policy.stream(spec, o.stream) }
end

return categorical
