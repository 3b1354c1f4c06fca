--- Random programs, run eagerly and captured: the same bits in every result, in what they write, and in the random streams.
--
-- A program is a list of instructions over registers: ops of the table (elementwise, reductions, products, sorting, indexing, random),
-- views, in-place writes, scopes, no_grad, gradients by both ways, tables and their updates, tensors kept outside. It is made by trying
-- instructions one after the other and keeping those that run. A failure names the seed and prints the program: FUZZ_SEED=n runs that one
-- alone, FUZZ_COUNT=n so many.
local bp = require "bp"
local core = require "bp.core"
local ops = bp.ops

local FIRST = math.tointeger(tonumber(os.getenv "FUZZ_SEED")) or 1
local COUNT = math.tointeger(tonumber(os.getenv "FUZZ_COUNT")) or os.getenv "FUZZ_SEED" and 1 or 500
local LARGEST, LENGTH = 3000, 14

-- ---- choices -------------------------------------------------------------------------------------------------------------------------

local random -- of the program being made: random(n) is 1..n
local function generator(seed)
  local x = (seed * 2654435761 + 12345) & 0xffffffffffff
  return function(n)
    x = (x * 25214903917 + 11) & 0xffffffffffff
    return (x >> 20) % n + 1
  end
end
local function one_of(list) return list[random(#list)] end

-- Names in the table by what they take: one tensor, two.
local unary, binary = {}, {}
for _, row in ipairs(core.ops_table()) do
  local required = false
  for _, o in ipairs(row.options) do required = required or o.required end
  local plain = not required and not (row.flags and row.flags.internal) and not row.name:find "_grad$"
  local inputs = #row.inputs
  for _, input in ipairs(row.inputs) do plain = plain and not input.variadic and not input.optional end
  if plain and row.name ~= "masked_select" then
    if inputs == 1 then unary[#unary + 1] = row.name end
    if inputs == 2 then binary[#binary + 1] = row.name end
  end
end

local function shape_of(t) return t:shape() end

-- A shape with as many elements.
local function other_shape(t)
  local shape = shape_of(t)
  if random(2) == 1 then return { -1 } end
  local n, sizes = t:numel(), {}
  for _, d in ipairs{ 2, 3, 5 } do
    if n > 0 and n % d == 0 and random(2) == 1 then
      sizes[#sizes + 1] = d
      n = n // d
    end
  end
  sizes[#sizes + 1] = n
  return #shape > 0 and sizes or shape
end

local function place_in(t) -- a key for t[key]
  local key, shape = {}, shape_of(t)
  for d, size in ipairs(shape) do
    local kind = random(4)
    if size == 0 or kind == 1 then key[d] = {}
    elseif kind == 2 then key[d] = random(size)
    else
      local first = random(size)
      key[d] = { first, first + random(size - first + 1) - 1, kind == 3 and 1 or random(2) }
    end
  end
  return key
end

-- ---- instructions --------------------------------------------------------------------------------------------------------------------
-- Each maker looks at the live registers and gives text and fn(r); fn returns what new registers hold.

local makers = {}
local function maker(weight, fn)
  for _ = 1, weight do makers[#makers + 1] = fn end
end
local function pick(r) return random(#r) end

maker(6, function(r)
  local name, a = one_of(unary), pick(r)
  return ("%s(r%d)"):format(name, a), function(x) return ops[name](x[a]) end
end)
maker(6, function(r)
  local name, a, b = one_of(binary), pick(r), pick(r)
  return ("%s(r%d, r%d)"):format(name, a, b), function(x) return ops[name](x[a], x[b]) end
end)
maker(4, function(r)
  local name, a, v = one_of{ "add", "sub", "mul", "div", "maximum", "minimum", "gt", "le", "pow" }, pick(r), random(7) / 2 - 2
  return ("%s(r%d, %g)"):format(name, a, v), function(x) return ops[name](x[a], v) end
end)
maker(4, function(r)
  local name, a = one_of{ "sum", "mean", "max", "min", "prod" }, pick(r)
  local axes, keep = r[a].ndim > 0 and random(3) > 1 and { random(r[a].ndim) } or nil, random(2) == 1
  return ("%s(r%d, axes %s, keepdims %s)"):format(name, a, axes and axes[1] or "all", keep),
    function(x) return ops[name](x[a], { axes = axes, keepdims = keep }) end
end)
maker(4, function(r)
  local name, a = one_of{ "softmax", "log_softmax", "cumsum", "argmax", "argsort", "argmin" }, pick(r)
  local axis = random(math.max(1, r[a].ndim))
  return ("%s(r%d, axis %d)"):format(name, a, axis), function(x) return ops[name](x[a], { axis = axis }) end
end)
maker(2, function(r)
  local a = pick(r)
  local axis = random(math.max(1, r[a].ndim))
  return ("sort(r%d, axis %d)"):format(a, axis), function(x) return ops.sort(x[a], { axis = axis }) end
end)
maker(2, function(r)
  local a, b, reverse = pick(r), pick(r), random(2) == 1
  local axis = random(math.max(1, r[a].ndim))
  return ("linear_scan(r%d, r%d)"):format(a, b),
    function(x) return ops.linear_scan(x[a], x[b] * 0.5, { axis = axis, reverse = reverse }) end
end)
maker(5, function(r) -- views
  local a = pick(r)
  local t, kind = r[a], random(6)
  if kind == 1 then
    local shape = other_shape(t)
    return ("reshape(r%d, {%s})"):format(a, table.concat(shape, ",")), function(x) return ops.reshape(x[a], { shape = shape }) end
  elseif kind == 2 and t.ndim > 1 then
    local axes = {}
    for d = 1, t.ndim do table.insert(axes, random(d), d) end
    return ("permute(r%d, {%s})"):format(a, table.concat(axes, ",")), function(x) return ops.permute(x[a], { axes = axes }) end
  elseif kind == 3 then
    local axis = random(t.ndim + 1)
    return ("unsqueeze(r%d, %d)"):format(a, axis), function(x) return ops.unsqueeze(x[a], { axis = axis }) end
  elseif kind == 4 then
    local shape = shape_of(t)
    table.insert(shape, 1, random(3))
    return ("expand(r%d, {%s})"):format(a, table.concat(shape, ",")), function(x) return ops.expand(x[a], { shape = shape }) end
  elseif kind == 5 then
    return ("flip(r%d)"):format(a), function(x) return ops.flip(x[a]) end
  end
  local key = place_in(t)
  return ("r%d[part]"):format(a), function(x) return x[a][key] end
end)
maker(4, function(r)
  local name, a, b, c = one_of{ "concat", "stack" }, pick(r), pick(r), pick(r)
  local axis = random(math.max(1, r[a].ndim))
  return ("%s(r%d, r%d, r%d, axis %d)"):format(name, a, b, c, axis),
    function(x) return ops[name]({ x[a], x[b], x[c] }, { axis = axis }) end
end)
maker(3, function(r)
  local a, b = pick(r), pick(r)
  return ("take(r%d, positions by r%d)"):format(a, b), function(x)
    local n = x[a]:size(1)
    local place = ops.clamp(ops.floor(ops.abs(ops.cast(x[b]:detach(), { dtype = "f32" }))), { max = n - 1 })
    return ops.take(x[a], ops.cast(place, { dtype = "i64" }) + 1, { axis = 1 })
  end
end)
maker(2, function(r)
  local a, b, c = pick(r), pick(r), pick(r)
  return ("where(r%d > 0, r%d, r%d)"):format(a, b, c), function(x) return ops.where(ops.gt(x[a], 0), x[b], x[c]) end
end)
maker(3, function(r)
  local a, units, activation = pick(r), random(9), one_of{ "relu", "tanh", "none" }
  local inputs = r[a].ndim > 0 and r[a]:size(-1) or 1
  local w = bp.randn(inputs, units)
  return ("linear(r%d, w[%d][%d], %s)"):format(a, inputs, units, activation),
    function(x) return ops.linear(x[a], w, nil, activation ~= "none" and { activation = activation } or nil) end
end)
maker(5, function(r) -- what a plan fuses: a normalisation, perhaps an addition, perhaps relu
  local a, b, how = random(2) == 1 and 1 or pick(r), pick(r), one_of{ "", " + rb", "ra + ", " + norm" }
  local relu, eval = random(4) > 1, random(4) == 1
  return ("%s%snorm(ra)%s%s, ra r%d, rb r%d"):format(relu and "relu " or "", how == "ra + " and how or "", how ~= "ra + " and how or "",
    eval and ", evaluating" or "", a, b), function(x)
    local function norm(t)
      local c = t:size(-1)
      local scale = c == 4 and x.leaves[2] or nil
      if not eval then return (ops.batch_norm(t, scale)) end
      return ops.batch_norm_inference(t, scale, nil, bp.zeros(c), bp.ones(c) * 2)
    end
    local y = norm(x[a])
    if how == " + rb" then y = y + x[b] elseif how == "ra + " then y = x[a] + y elseif how == " + norm" then y = y + norm(x[b]) end
    return relu and ops.relu(y) or y
  end
end)
maker(2, function(r)
  local shape, kind, a = { random(4), random(5) }, random(3), pick(r)
  if kind == 1 then return "random_normal", function() return ops.random_normal(core.stream "noise", { shape = shape }) end end
  if kind == 2 then return ("dropout(r%d)"):format(a), function(x) return ops.dropout(x[a], { p = 0.3 }) end end
  return "random_permutation", function() return ops.random_permutation(core.stream "shuffle", { n = shape[1] * 3 }) end
end)
maker(6, function(r) -- in place
  local a, b, kind, v = pick(r), pick(r), random(6), random(5) - 2.5
  if kind == 1 then return ("r%d:add_(r%d)"):format(a, b), function(x) x[a]:add_(x[b]) end end
  if kind == 2 then return ("r%d:mul_(%g)"):format(a, v), function(x) x[a]:mul_(v) end end
  if kind == 3 then return ("r%d:copy_(r%d)"):format(a, b), function(x) x[a]:copy_(x[b]) end end
  if kind == 4 then return ("r%d:fill_(%g)"):format(a, v), function(x) x[a]:fill_(v) end end
  if kind == 5 then
    local name = one_of{ "tanh_", "abs_", "relu_", "sigmoid_", "exp_", "neg_" }
    return ("r%d:%s()"):format(a, name), function(x) x[a][name](x[a]) end
  end
  local key = place_in(r[a])
  return ("r%d[part] = %g, r%d"):format(a, v, b), function(x)
    x[a][key] = v
    x[a][key] = x[b]
  end
end)
maker(3, function(r) -- tensors kept outside
  local s, a, kind = random(2), pick(r), random(3)
  if kind == 1 then return ("state%d:add_(mean r%d)"):format(s, a), function(x) x.state[s]:add_(ops.mean(x[a]:detach())) end end
  if kind == 2 then return ("state%d:copy_(part of r%d)"):format(s, a), function(x) x.state[s]:copy_(x[a]:detach()) end end
  return ("state%d * 2"):format(s), function(x) return x.state[s] * 2 end
end)
maker(3, function(r) -- gradients
  local a, b, second = pick(r), pick(r), random(4) == 1
  return ("gradients(sum r%d, r%d and leaves%s)"):format(a, b, second and ", second order" or ""), function(x)
    local loss = ops.sum(ops.square(x[a]))
    local wanted = { x.leaves[1], x.leaves[2] }
    if x[b].requires_grad then wanted[3] = x[b] end
    local found = core.gradients(loss, wanted, { retain_graph = true, create_graph = second })
    if second then
      local again = found[1] and found[1].requires_grad and core.gradients(ops.sum(ops.square(found[1])), wanted, { retain_graph = true })
      if again then table.move(again, 1, #again, #found + 1, found) end
    end
    local list = {}
    for _, g in ipairs(found) do
      if g then list[#list + 1] = g end
    end
    return table.unpack(list)
  end
end)
maker(3, function(r)
  local a, zero = pick(r), random(3) > 1
  return ("%sbackward(sum r%d)"):format(zero and "zero_grad, " or "", a), function(x)
    if zero then
      for _, leaf in ipairs(x.leaves) do leaf:zero_grad() end
    end
    ops.mean(ops.tanh(x[a])):backward{ retain_graph = true }
    local g = x.leaves[1].grad
    return g + 0, g * 2
  end
end)
maker(3, function(r) -- tables: a leaf's rows by number, and an update of the leaf
  local b, one = pick(r), random(2) == 1
  return ("embedding(%s by r%d, r1)"):format(one and "one row" or "rows", b), function(x)
    local place = ops.abs(ops.cast(x[b]:detach(), { dtype = "f32" }))
    place = ops.clamp(ops.floor(one and ops.mean(place) or place), { max = x.leaves[1]:size(1) - 1 })
    return ops.embedding(ops.cast(place, { dtype = "i64" }) + 1, x.leaves[1])
  end
end)
local rate, first_step = bp.tensor({ 0.25 }, { dtype = "f64" }), bp.tensor({ 1 }, { dtype = "i64" })
maker(2, function()
  return "sgd_step(r1)", function(x)
    bp.no_grad(function() ops.sgd_step(x.leaves[1], x.leaves[1].grad, nil, rate, first_step) end)
  end
end)
maker(1, function(r)
  local a = pick(r)
  return ("detach r%d"):format(a), function(x) return x[a]:detach() end
end)

local make_instruction

-- A few instructions on registers of their own, in a scope or without gradients; the last register comes out.
local function nested(r, name, wrap)
  local inner, texts = {}, {}
  local live = setmetatable({ state = r.state, leaves = r.leaves }, { __index = r })
  for i = 1, #r do live[i] = r[i] end
  for _ = 1, 1 + random(3) do
    local text, fn = make_instruction(live, true)
    if fn then
      inner[#inner + 1], texts[#texts + 1] = fn, text
    end
  end
  return ("%s{ %s }"):format(name, table.concat(texts, "; ")), function(x)
    return wrap(function()
      local own = { state = x.state, leaves = x.leaves }
      for i = 1, #x do own[i] = x[i] end
      local before = #own
      for _, fn in ipairs(inner) do
        for _, t in ipairs{ fn(own) } do own[#own + 1] = t end
      end
      if #own > before then return own[#own] end
    end)
  end
end
local function add_nested()
  maker(2, function(r) return nested(r, "scope", bp.scope) end)
  maker(2, function(r) return nested(r, "no_grad", bp.no_grad) end)
end

-- An instruction that runs on the live registers, which then hold its results; nothing when the one tried does not.
function make_instruction(r, inside)
  local make = makers[random(inside and #makers - 4 or #makers)]
  local made, text, fn = pcall(make, r)
  if not made then return nil end
  local got = table.pack(pcall(fn, r))
  if not got[1] then return nil end
  for i = 2, got.n do
    if not core.is_tensor(got[i]) or got[i]:numel() > LARGEST or got[i].ndim > 5 then return nil end
  end
  for i = 2, got.n do r[#r + 1] = got[i] end
  return text, fn
end
add_nested()

-- ---- programs ------------------------------------------------------------------------------------------------------------------------

-- What a program runs on: two leaves and two tensors outside, the same for both ways of running it.
local function world(seed)
  bp.seed(seed)
  local place = { leaves = { bp.randn(3, 4):requires_grad_(), bp.randn(4):requires_grad_() }, state = { bp.randn(1), bp.randn(3, 4) } }
  -- whether there is a gradient is asked in Lua, so it has to be the same at every call
  for _, leaf in ipairs(place.leaves) do leaf.grad = bp.zeros_like(leaf) end
  return place
end

local function inputs_of(seed)
  bp.seed(seed)
  local shift = seed % 2
  return { bp.randn(3, 4), bp.randn(4, 3):t() + shift, bp.randint(1, 9, { 4 }), shift == 1 and bp.randn(2, 3, 4) or bp.rand(2, 3, 4) }
end

local function run(list, place, given)
  local r = { place.leaves[1], place.leaves[2], state = place.state, leaves = place.leaves }
  for _, t in ipairs(given) do r[#r + 1] = t end
  for _, fn in ipairs(list) do
    for _, t in ipairs{ fn(r) } do r[#r + 1] = t end
  end
  local results = {}
  for i = math.max(1, #r - 24), #r do results[#results + 1] = r[i] end
  return results
end

-- Instructions and their texts.
local function program(seed)
  random = generator(seed)
  local place, list, texts = world(seed), {}, {}
  local r = { place.leaves[1], place.leaves[2], table.unpack(inputs_of(seed)) }
  r.state, r.leaves = place.state, place.leaves
  for _ = 1, LENGTH * 3 do
    if #list == LENGTH then break end
    local before = #r
    local text, fn = make_instruction(r)
    if fn then
      list[#list + 1] = fn
      texts[#texts + 1] = #r > before and ("r%d%s = %s"):format(before + 1, #r > before + 1 and (".." .. #r) or "", text) or text
    end
  end
  return list, texts
end

-- Whether all elements are the same; NaN counts as NaN.
local function same(a, b)
  if a.dtype ~= b.dtype or table.concat(a:shape(), "x") ~= table.concat(b:shape(), "x") then return false end
  if a:numel() == 0 then return true end
  local x, y = a:detach(), b:detach()
  return ops.all(ops.logical_or(ops.eq(x, y), ops.logical_and(ops.ne(x, x), ops.ne(y, y)))):item()
end

local function check(seed)
  local list, texts = program(seed)
  local function complain(what)
    error(("seed %d: %s\n  r1, r2 leaves; r3..r6 arguments\n  %s"):format(seed, what, table.concat(texts, "\n  ")), 0)
  end
  local here, there = world(seed), world(seed)
  local captured = bp.capture(function(...) return run(list, there, { ... }) end)
  for round = 1, 4 do
    local data = seed * 100 + round * 2
    local mine, theirs = inputs_of(data), inputs_of(data)
    bp.seed(data)
    local ok, eager = pcall(bp.scope, run, list, here, mine)
    local draws = core.stream "noise":totable()
    bp.seed(data)
    local fine, replayed = pcall(captured, table.unpack(theirs))
    if not fine or not ok then -- a program may also fail on other numbers: then both ways
      if ok ~= fine then complain(("round %d: eager %s, captured %s"):format(round, tostring(eager), tostring(replayed))) end
      return false
    end
    for i, t in ipairs(eager) do
      if not same(t, replayed[i]) then
        complain(("round %d: result %d of %d differs\neager %s\ncaptured %s"):format(round, i, #eager, t, replayed[i]))
      end
    end
    for i, t in ipairs(here.state) do
      if not same(t, there.state[i]) then
        complain(("round %d: state%d differs\neager %s\ncaptured %s"):format(round, i, t, there.state[i]))
      end
    end
    for i, leaf in ipairs(here.leaves) do
      local a, b = leaf.grad, there.leaves[i].grad
      if not same(a, b) then complain(("round %d: the gradient of r%d differs\neager %s\ncaptured %s"):format(round, i, a, b)) end
    end
    for _, i in ipairs{ 1, 3, 4 } do
      if not same(mine[i], theirs[i]) then complain(("round %d: what was written into argument %d differs"):format(round, i)) end
    end
    if draws[2] ~= core.stream "noise"[2]:item() then complain(("round %d: the noise stream stands elsewhere"):format(round)) end
  end
  return true
end

describe("random programs", function()
  it(("%d to %d give the same bits eagerly and captured"):format(FIRST, FIRST + COUNT - 1), function()
    local whole, failures = 0, {}
    for seed = FIRST, FIRST + COUNT - 1 do
      local ok, result = pcall(check, seed)
      if not ok then failures[#failures + 1] = tostring(result) end
      if ok and result then whole = whole + 1 end
      if seed % 50 == 0 then collectgarbage() end
      if #failures == 3 then break end
    end
    assert(#failures == 0, "\n" .. table.concat(failures, "\n\n"))
    assert(whole >= COUNT * 0.7, ("only %d of %d programs ran through"):format(whole, COUNT))
  end)
end)
