--- rl.normal: actions of n numbers, each with a mean and a standard deviation of its own.
local core = require "bp.core"
local options = require "bp.options"
local policy = require "bp.rl.policy"

local ops = core.ops
local normal = {}

local spec = options.define("rl.normal", "A policy over actions of n numbers: independent normal distributions.", {
  { "mean", "tensor", required = true, help = "[..][n]: the last dimension holds the numbers of one action" },
  { "std", "tensor|number", named = true, help = "standard deviations, above 0: a number or a tensor that broadcasts to the mean" },
  { "log_std", "tensor|number", named = true, help = "their logarithm, instead of std: any value is allowed, so a parameter can hold it" },
  policy.stream_field,
})

local HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

local Normal = {}

-- Actions are drawn and weighed as a whole: what belongs to one number is summed over the last dimension.
local function total(each) return ops.sum(each, { axes = { -1 } }) end

local function draw(self)
  return self.mean + self.std * ops.random_normal(self.stream, { shape = self.shape, dtype = self.mean.dtype })
end

--- One action for each row. No gradient goes through it.
---@return tensor actions [..][n]
function Normal:sample() return core.no_grad(draw, self) end

--- The same, as mean + std z: the gradient goes on into mean and std.
---@return tensor actions [..][n]
function Normal:rsample() return draw(self) end

--- The logarithm of the density at actions, summed over the numbers of an action.
---@param action any [..][n]: a tensor or list
---@return tensor log_prob [..]
function Normal:log_prob(action)
  local z = (policy.action("normal:log_prob", action, self.shape, self.mean.dtype) - self.mean) / self.std
  return total(ops.square(z) * -0.5 - self.log_std - HALF_LOG_2PI)
end

--- The entropy of an action, in nats: the sum of 1/2 + log(2 pi)/2 + log std.
---@return tensor entropy [..]
function Normal:entropy() return total(self.log_std + (0.5 + HALF_LOG_2PI)) end

--- The divergence KL(self || other), summed over the numbers of an action, in nats.
---@param other table a normal policy of the same shape
---@return tensor kl [..]
function Normal:kl(other)
  if getmetatable(other) ~= getmetatable(self) then
    core.error(("normal:kl: the other policy is %s; expected an rl.normal"):format(options.describe(other)))
  end
  local ratio, distance = ops.square(self.std / other.std), ops.square((self.mean - other.mean) / other.std)
  return total(other.log_std - self.log_std + (ratio + distance - 1) * 0.5)
end

--- The likeliest action: the mean.
---@return tensor actions [..][n]
function Normal:mode() return self.mean end

local new = policy.class(Normal, "normal")

-- A number or a tensor, in the shape of the mean.
local function like_mean(mean, name, value)
  if type(value) == "number" then return ops.full{ shape = mean:shape(), value = value, dtype = mean.dtype } end
  local ok, expanded = pcall(ops.expand, value, { shape = mean:shape() })
  if not ok then
    spec:fail("option '%s' is %s; expected a shape that broadcasts to the mean's, %s", name, policy.shape_text(value:shape()),
      policy.shape_text(mean:shape()))
  end
  return expanded
end

--- A policy over actions of n numbers: local d = rl.normal{ mean = net(observation), log_std = spread }; d:sample(), d:rsample(),
--- d:log_prob(action), d:entropy(), d:kl(other), d:mode(). Works inside bp.capture; all but sample are differentiable.
---@param given table { mean =, std = or log_std =, stream = "noise" }
---@return table policy
function normal.normal(given, ...)
  local o = spec:read(given, ...)
  if (o.std == nil) == (o.log_std == nil) then spec:fail("expected either std or log_std") end
  local shape = o.mean:shape()
  if #shape == 0 then spec:fail("the mean is one number; expected [..][n], n numbers for an action") end
  if type(o.std) == "number" and o.std <= 0 then spec:fail("option 'std' is %g; expected a number above 0", o.std) end
  local std = o.std and like_mean(o.mean, "std", o.std)
  local log_std = o.log_std and like_mean(o.mean, "log_std", o.log_std) or ops.log(std)
  return new{ mean = o.mean, std = std or ops.exp(log_std), log_std = log_std, shape = shape, stream = policy.stream(spec, o.stream) }
end

return normal
