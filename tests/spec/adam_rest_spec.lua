--- Adam passes over blocks whose gradient and momentum are zero. The bits must be those of the full equations: the same elements laid out
-- so that no block is all zero give them.
local bp = require "bp"
local core = require "bp.core"
local ops = bp.ops

local function bits(t) return core.to_bytes(t:contiguous()) end

describe("adam leaves elements at rest as the equations do", function()
  for _, dtype in ipairs{ "f32", "f64" } do
    it("in " .. dtype, function()
      bp.seed(3)
      local n = 4096
      local place = bp.randperm(n)
      local rest = bp.arange(n):lt(n // 2):to(dtype) -- the second half is at rest
      local function at_first() return { w = bp.randn(n):to(dtype), g = bp.randn(n):to(dtype) * rest, m = bp.randn(n):to(dtype) * rest,
        v = bp.rand(n):to(dtype) * bp.arange(n):lt(3 * n // 4):to(dtype) } end
      local lr, count = bp.tensor({ 0.1 }, { dtype = "f64" }), bp.tensor({ 3 }, { dtype = "i64" })
      for number, o in ipairs{ {}, { weight_decay = 0.1 }, { weight_decay = 0.1, decoupled = true } } do
        local a, b = at_first(), {}
        for name, t in pairs(a) do b[name] = t:take(place) end
        local before = a.w:clone()
        for _, one in ipairs{ a, b } do ops.adam_step(one.w, one.g, one.m, one.v, nil, lr, count, o) end
        for name, t in pairs(a) do assert.equal(bits(t:take(place)), bits(b[name]), ("%d %s"):format(number, name)) end
        assert.equal(number == 1, bits(before[{ { n // 2 + 1, n } }]) == bits(a.w[{ { n // 2 + 1, n } }]))
      end
    end)
  end
end)
