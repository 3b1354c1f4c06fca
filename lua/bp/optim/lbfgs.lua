--- optim.lbfgs: limited-memory BFGS (Nocedal & Wright, Numerical Optimization, 2006, ch. 7.2) for whole data sets, in PyTorch's form. It
--- has to evaluate the loss several times in a step, so step() takes a function that does so:
---
---     local opt = optim.lbfgs(net:parameters(), { line_search = "strong_wolfe" })
---     local loss = opt:step(function()
---       opt:zero_grad()
---       local value = nn.loss.mse(net(x), y)
---       value:backward()
---       return value
---     end)
---
--- The function may be a captured one.
local core = require "bp.core"
local optimizer = require "bp.optim.optimizer"
local options = require "bp.options"

local ops = core.ops

-- ---- line search ---------------------------------------------------------------------------------------------------------------------

-- Where the cubic through two points with their slopes is least, within bounds; the middle where it has no minimum.
local function cubic_minimum(a, b, low, high)
  if not low then low, high = math.min(a.t, b.t), math.max(a.t, b.t) end
  if b.t < a.t then a, b = b, a end
  local d1 = a.slope + b.slope - 3 * (a.f - b.f) / (a.t - b.t)
  local square = d1 * d1 - a.slope * b.slope
  if square < 0 or square ~= square then return (low + high) / 2 end
  local d2 = math.sqrt(square)
  local t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
  return math.min(math.max(t, low), high)
end

local SUFFICIENT, CURVATURE, MOST_TRIALS = 1e-4, 0.9, 25

-- A step that fulfils the strong Wolfe conditions (Nocedal & Wright, algorithms 3.5 and 3.6): f falls enough, and the slope has become flat
-- enough. at(t) gives { t, f, g, slope }. size is the largest element of the direction.
local function strong_wolfe(at, start, t, size, least)
  local function rises(p) return p.f > start.f + SUFFICIENT * p.t * start.slope end
  local function flat(p) return math.abs(p.slope) <= -CURVATURE * start.slope end
  local before, now, trials = start, at(t), 0
  local low, high
  while trials < MOST_TRIALS do
    if rises(now) or (trials > 1 and now.f >= before.f) then low, high = before, now break end
    if flat(now) then return now end
    if now.slope >= 0 then low, high = before, now break end
    local next_t = cubic_minimum(before, now, now.t + 0.01 * (now.t - before.t), now.t * 10)
    before, now = now, at(next_t)
    trials = trials + 1
  end
  if not low then low, high = start, now end
  if high.f < low.f then low, high = high, low end

  local slow = false
  while trials < MOST_TRIALS do
    if math.abs(high.t - low.t) * size < least then break end
    local from, to = math.min(low.t, high.t), math.max(low.t, high.t)
    t = cubic_minimum(low, high)
    local margin = 0.1 * (to - from)
    if math.min(to - t, t - from) < margin then -- hardly away from an end: go a tenth in at the second time
      if slow or t >= to or t <= from then
        t = math.abs(t - to) < math.abs(t - from) and to - margin or from + margin
        slow = false
      else slow = true end
    else slow = false end
    now = at(t)
    trials = trials + 1
    if rises(now) or now.f >= low.f then
      high = now
      if high.f < low.f then low, high = high, low end
    else
      local done = flat(now)
      if not done and now.slope * (high.t - low.t) >= 0 then high = low end
      low = now
      if done then break end
    end
  end
  return low
end

-- ---- directions ----------------------------------------------------------------------------------------------------------------------

local function dot(a, b) return ops.sum(ops.cast(a, { dtype = "f64" }) * ops.cast(b, { dtype = "f64" })):item() end
local function largest(v) return ops.max(ops.abs(v)):item() end

-- The two loops: minus the inverse Hessian times the gradient.
local function direction(memory, g)
  local q, share = -g, {}
  for i = #memory.pairs, 1, -1 do
    local one = memory.pairs[i]
    share[i] = dot(one.s, q) * one.rho
    q = q - one.y * share[i]
  end
  q = q * memory.scale
  for i, one in ipairs(memory.pairs) do q = q + one.s * (share[i] - dot(one.y, q) * one.rho) end
  return q
end

local function remember(memory, g, history)
  local y, s = g - memory.g, memory.d * memory.t
  local ys = dot(y, s)
  if ys <= 1e-10 then return end
  if #memory.pairs == history then table.remove(memory.pairs, 1) end
  memory.pairs[#memory.pairs + 1] = { y = core.keep(y), s = core.keep(s), rho = 1 / ys }
  memory.scale = ys / dot(y, y)
end

-- ---- a step --------------------------------------------------------------------------------------------------------------------------

local function only_block(self)
  local found
  for _, group in ipairs(self.groups) do
    for _, entry in ipairs(group.blocks) do
      if found then
        core.error("lbfgs: its parameters do not lie in one block; give it one list of parameters of one dtype, all of them trained from "
          .. "the beginning")
      end
      found = entry.block
    end
  end
  if not found then core.error("lbfgs: there is no parameter to train") end
  return found
end

local function evaluate(self, closure, gather)
  local loss = core.enable_grad(closure)
  gather(self)
  local value = core.is_tensor(loss) and loss:numel() == 1 and loss:item() or loss
  if type(value) ~= "number" then
    core.error(("lbfgs: the function returned %s; expected the loss: one number, after backward()"):format(options.describe(loss)))
  end
  return value
end

local function iterate(self, o, one, loss, evaluations, at, finish)
  local memory, lr, iterations = self.memory, self.groups[1].rate:item(), 0
  local g = one.grad:clone()
  while iterations < o.max_iter do
    iterations, memory.iterations = iterations + 1, memory.iterations + 1
    if memory.iterations == 1 then
      memory.d = -g
      memory.t = math.min(1, 1 / ops.sum(ops.abs(g)):item()) * lr
    else
      remember(memory, g, o.history)
      memory.d, memory.t = direction(memory, g), lr
    end
    memory.g = g
    local slope, before = dot(g, memory.d), loss
    if slope > -o.tolerance_change then break end
    if o.line_search == "strong_wolfe" then
      local count = 0
      local found = strong_wolfe(function(t)
        count = count + 1
        return at(t)
      end, { t = 0, f = loss, g = g, slope = slope }, memory.t, largest(memory.d), 1e-9)
      evaluations = evaluations + count
      loss, g, memory.t = found.f, found.g, found.t
      finish(memory.t)
    else
      finish(memory.t)
      if iterations < o.max_iter then
        local now = at(memory.t)
        loss, g, evaluations = now.f, now.g, evaluations + 1
      end
    end
    if evaluations >= o.max_eval or largest(g) <= o.tolerance_grad or largest(memory.d) * memory.t <= o.tolerance_change
      or math.abs(loss - before) < o.tolerance_change then break end
  end
end

local function step(self, closure, gather)
  if closure == nil or not (type(closure) == "function" or getmetatable(closure) and getmetatable(closure).__call) then
    core.error(("lbfgs: step() was given %s; expected a function that clears the gradient, computes the loss, calls backward() and returns "
      .. "the loss; fit cannot do this, a loop of one's own can"):format(options.describe(closure)))
  end
  local o = self.groups[1].options
  local max_eval = o.max_eval or o.max_iter * 5 // 4
  local first
  core.no_grad(function()
    first = evaluate(self, closure, gather)
    local one = only_block(self)
    ops.increment(self.count)
    if largest(one.grad) <= o.tolerance_grad then return end
    self.memory = self.memory or { iterations = 0, pairs = {}, scale = 1, t = 0 }
    local base = one.data:clone()
    local function finish(t) -- leaves the parameters t along the direction, from where the next one starts
      one.data:copy_(base + self.memory.d * t)
      base = one.data:clone()
    end
    local function at(t)
      local moved = o.line_search == "strong_wolfe"
      if moved then one.data:copy_(base + self.memory.d * t) end
      local f = evaluate(self, closure, gather)
      local g = one.grad:clone()
      if moved then one.data:copy_(base) end
      return { t = t, f = f, g = g, slope = moved and dot(g, self.memory.d) or 0 }
    end
    iterate(self, { max_iter = o.max_iter, max_eval = max_eval, history = o.history, line_search = o.line_search,
      tolerance_grad = o.tolerance_grad, tolerance_change = o.tolerance_change }, one, first, 1, at, finish)
  end)
  return first
end

-- ---- state ---------------------------------------------------------------------------------------------------------------------------

local function more_state(self, tensors)
  local memory = self.memory
  if not memory then return end
  tensors["lbfgs.numbers"] = core.tensor({ memory.iterations, memory.t, memory.scale, #memory.pairs }, { dtype = "f64" })
  tensors["lbfgs.d"], tensors["lbfgs.g"] = memory.d, memory.g
  for i, one in ipairs(memory.pairs) do tensors["lbfgs.y." .. i], tensors["lbfgs.s." .. i] = one.y, one.s end
end

local function load_more(self, tensors)
  local numbers = tensors["lbfgs.numbers"]
  self.memory = nil
  if not numbers then return end
  local n, one = numbers:totable(), only_block(self)
  local function vector(name)
    local value = tensors["lbfgs." .. name]
    if not value or value:numel() ~= one.data:numel() then
      core.error(("lbfgs: the state's 'lbfgs.%s' does not fit %d parameters; it comes from another model"):format(name, one.data:numel()))
    end
    return value:clone()
  end
  local memory = { iterations = math.tointeger(n[1]), t = n[2], scale = n[3], pairs = {}, d = vector "d", g = vector "g" }
  for i = 1, math.tointeger(n[4]) do
    local y, s = vector("y." .. i), vector("s." .. i)
    memory.pairs[i] = { y = y, s = s, rho = 1 / dot(y, s) }
  end
  self.memory = memory
end

return optimizer.define("lbfgs", "Limited-memory BFGS, for whole data sets; step() takes a function that computes the loss.", 1, {
  { "max_iter", "int", min = 1, default = 20, named = true, help = "directions taken in one step()" },
  { "max_eval", "int", min = 1, named = true, help = "evaluations of the loss in one step(); default 1.25 * max_iter" },
  { "history", "int", min = 1, default = 100, named = true, help = "how many past steps the curvature is known from" },
  { "line_search", "choice", choices = { "none", "strong_wolfe" }, default = "none", named = true,
    help = '"strong_wolfe": a step along the direction that lowers the loss enough; "none": lr times the direction' },
  { "tolerance_grad", "number", min = 0, default = 1e-7, named = true, help = "stop when no element of the gradient is larger" },
  { "tolerance_change", "number", min = 0, default = 1e-9, named = true, help = "stop when loss or parameters change less" },
}, {
  slots = function() return {} end,
  step = step,
  more_state = more_state,
  load_more = load_more,
  check = function(spec, o)
    for _, name in ipairs{ "weight_decay", "accumulate", "clip_norm", "clip_value", "ema" } do
      if o[name] and o[name] ~= (name == "accumulate" and 1 or 0) then
        spec:fail("it has no %s, which would not be the gradient of the loss that it searches along; add such a term to the loss", name)
      end
    end
  end,
})
