--- rl.cartpole: a pole balanced on a cart that is pushed left or right. A. G. Barto, R. S. Sutton and C. W. Anderson, "Neuronlike Adaptive
--- Elements That Can Solve Difficult Learning Control Problems", 1983; constants, time step and limits as in CartPole-v1, whose task counts
--- as solved at a mean return of 475 over 100 episodes.
local core = require "bp.core"
local options = require "bp.options"

local cartpole = {}

local spec = options.define("rl.cartpole", "The cart and pole of Barto, Sutton and Anderson.", {
  { "seed", "int", named = true, help = "starts the random numbers of this environment; default the stream noise" },
  { "max_steps", "int", min = 1, default = 500, named = true, help = "after so many steps the episode is cut off" },
})

local GRAVITY, CART, POLE, HALF_LENGTH, FORCE, DT = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
local X_LIMIT, ANGLE_LIMIT = 2.4, 12 * math.pi / 180
local START = 0.05 -- all four numbers begin within this of 0

local Cartpole = { actions = 2, observation_shape = { 4 } }
local meta = { __index = Cartpole, __name = "rl.cartpole" }

--- The environment: observations are { position, speed, angle (radians, 0 upright), turning speed }, action 1 pushes left and 2 right,
--- every step gives a reward of 1 until the pole leans more than 12 degrees or the cart is 2.4 from the middle.
---@param given table|nil { seed =, max_steps = 500 }
---@return table env with reset and step
function cartpole.cartpole(given, ...)
  local o = spec:read(given, ...)
  local stream = o.seed and core.pause(core.tensor, { o.seed, 0 }, { dtype = "i64" }) or core.stream "noise"
  return setmetatable({ stream = stream, max_steps = o.max_steps }, meta)
end

--- Begins an episode near the balance.
---@return table observation list of four numbers
function Cartpole:reset()
  local start = core.ops.random_uniform(self.stream, { shape = { 4 }, low = -START, high = START, dtype = "f64" })
  self.state, self.steps = start:totable(), 0
  return table.move(self.state, 1, 4, 1, {})
end

-- Euler's method over
--   w'' = (g sin w - cos w q) / (l (4/3 - m cos^2 w / M)),  x'' = q - m l w'' cos w / M,  q = (F + m l w'^2 sin w) / M
-- with angle w, pole mass m, half length l, total mass M.
local function move(state, force)
  local x, speed, angle, turning = table.unpack(state)
  local sin, cos, total = math.sin(angle), math.cos(angle), CART + POLE
  local push = (force + POLE * HALF_LENGTH * turning ^ 2 * sin) / total
  local angular = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4 / 3 - POLE * cos ^ 2 / total))
  local linear = push - POLE * HALF_LENGTH * angular * cos / total
  return { x + DT * speed, speed + DT * linear, angle + DT * turning, turning + DT * angular }
end

--- One step of 0.02 seconds.
---@param action number|table 1 pushes left, 2 right (a tensor of one number will do)
---@return table observation
---@return number reward 1
---@return boolean done
---@return table info { truncated = whether max_steps ended it }
function Cartpole:step(action)
  if core.is_tensor(action) and action:numel() == 1 then action = action:item() end
  if action ~= 1 and action ~= 2 then
    core.error(("cartpole:step: the action is %s; expected 1 (left) or 2 (right)"):format(options.describe(action)))
  end
  if not self.state then core.error "cartpole:step: the episode is over, or none began; call reset first" end
  self.state, self.steps = move(self.state, action == 2 and FORCE or -FORCE), self.steps + 1
  local observation = table.move(self.state, 1, 4, 1, {})
  local fallen = math.abs(self.state[1]) > X_LIMIT or math.abs(self.state[3]) > ANGLE_LIMIT
  local truncated = not fallen and self.steps >= self.max_steps
  if fallen or truncated then self.state = nil end
  return observation, 1, fallen or truncated, { truncated = truncated }
end

return cartpole
