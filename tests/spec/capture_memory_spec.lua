--- Arguments of a captured function that lie in the same memory, in memory that the function uses from outside, or in views with gaps: the
--- bits are those of the function itself, in what it returns and in all that it writes, whatever the call that was recorded looked like.
local bp = require "bp"
local ops = bp.ops

-- What a program may reach. Matrices of 4x4, so that each may stand for any other.
local function world()
  bp.seed(3)
  local base = bp.randn(6, 8)
  return { base = base, w = bp.randn(4, 4), p = bp.randn(4, 4):requires_grad_(), x = bp.randn(4, 4), y = bp.randn(4, 4),
    mean = bp.zeros(4), variance = bp.ones(4), scale = bp.rand(4), block = bp.randn(2, 4, 4) }
end

-- The two arguments of a call.
local patterns = {
  apart = function(o) return o.x, o.y end,
  one_twice = function(o) return o.x, o.x end,
  halves_of_one = function(o) return o.block[1], o.block[2] end,
  rows_that_meet = function(o) return o.base[{ { 1, 4 }, { 1, 4 } }]:contiguous(), o.base[{ { 3, 6 }, { 1, 4 } }] end,
  views_that_meet = function(o) return o.base[{ { 1, 4 }, { 1, 4 } }], o.base[{ { 2, 5 }, { 3, 6 } }] end,
  columns_between = function(o) return o.base[{ { 1, 4 }, { 1, 8, 2 } }], o.base[{ { 1, 4 }, { 2, 8, 2 } }] end,
  flat_that_meet = function(o)
    local flat = o.base:reshape(48)
    return flat[{ { 1, 16 } }]:reshape(4, 4), flat[{ { 9, 24 } }]:reshape(4, 4)
  end,
  transposed = function(o) return o.x:t(), o.y end,
  with_itself_transposed = function(o) return o.x, o.x:t() end,
  outside_first = function(o) return o.w, o.y end,
  outside_second = function(o) return o.x, o.w end,
  outside_twice = function(o) return o.w, o.w end,
  outside_transposed = function(o) return o.w:t(), o.x end,
  parameter = function(o) return o.p:detach(), o.y end,
  parameter_second = function(o) return o.x, o.p:detach() end,
}

local function trained(o, loss)
  o.p:zero_grad()
  loss:backward()
  bp.no_grad(function() o.p:detach():sub_(o.p.grad * 0.125) end)
  return loss:detach()
end

local programs = {
  reads = function(_, a, b) return a + b, a:matmul(b) end,
  hands_on = function(o, a, b) return a, b, o.w, a:t() end,
  writes_first = function(_, a, b)
    a:add_(1)
    return a + b
  end,
  writes_second = function(_, a, b)
    b:mul_(2)
    return a - b
  end,
  writes_both = function(_, a, b)
    a:add_(b)
    b:mul_(a)
    return a * b, b
  end,
  writes_outside = function(o, a, b)
    local before = a * b
    o.w:add_(a)
    return a + o.w, before
  end,
  writes_first_reads_outside = function(o, a)
    local before = o.w * 2
    a:mul_(3)
    return a + o.w + before
  end,
  copies_product_outside = function(o, a, b)
    local t = a:matmul(b)
    local u = a * 2 + b
    o.w:copy_(t)
    return o.w + a, u
  end,
  copies_product_into_first = function(o, a, b)
    local t = o.w:matmul(b)
    local u = a * 2 + o.w
    a:copy_(t)
    return u - a, o.w + b
  end,
  copies_what_is_read_later = function(o, a, b)
    local t = ops.softmax(a, { axis = 2 })
    local u = (o.w + b):tanh()
    o.w:copy_(t)
    local v = a + b
    a:copy_(u)
    return v, a + o.w
  end,
  normalises = function(o, a, b)
    local t = ops.batch_norm_inference(a, o.scale, nil, o.mean, o.variance)
    o.w:mul_(2)
    b:add_(1)
    local sum = t + b
    o.w:add_(1)
    return sum:relu(), o.w:sum()
  end,
  normalises_outside = function(o, a, b)
    local t = ops.batch_norm_inference(o.w, o.scale, nil, o.mean, o.variance)
    a:mul_(2)
    return (t + b):relu()
  end,
  trains = function(o, a, b) return trained(o, (a:matmul(o.p) - b):square():mean()) end,
  trains_and_writes = function(o, a, b)
    local loss = trained(o, (a:matmul(o.p) - b):square():mean())
    a:add_(1)
    return loss, a * b
  end,
  drops_and_sums = function(o, a, b)
    local t = ops.dropout(a, nil, { p = 0.5 })
    b:add_(t)
    return t + o.w, b:sum(1)
  end,
}

local names = {}
for name in pairs(patterns) do names[#names + 1] = name end
table.sort(names)

local TENSORS = { "base", "w", "p", "x", "y", "mean", "variance", "scale", "block" }

local function same(a, b) return a.dtype == b.dtype and bp.ops.eq(a, b):all():item() end

-- What a protected call of fn on arguments of o gives.
local function call(fn, o, pattern) return table.pack(pcall(fn, patterns[pattern](o))) end

describe("arguments in shared memory", function()
  for name, program in pairs(programs) do
    it("are those of the function itself when it " .. name, function()
      for _, first in ipairs(names) do
        for _, second in ipairs(names) do
          bp.scope(function()
            local plain, o = world(), world()
            local captured = bp.capture(function(a, b) return program(o, a, b) end)
            for step, pattern in ipairs{ first, second, second, first } do
              local what = ("%s, then %s, call %d"):format(first, second, step)
              bp.seed(step)
              local want = call(function(a, b) return program(plain, a, b) end, plain, pattern)
              bp.seed(step)
              local got = call(captured, o, pattern)
              assert.equal(want[1], got[1], what .. ": " .. tostring(want[1] and got[2] or want[2]))
              assert.equal(want.n, got.n, what)
              for i = 2, want[1] and want.n or 1 do assert.is_true(same(want[i], got[i]), what .. ", result " .. (i - 1)) end
              for _, t in ipairs(TENSORS) do assert.is_true(same(plain[t], o[t]), what .. ", " .. t) end
            end
          end)
        end
      end
    end)
  end
end)
