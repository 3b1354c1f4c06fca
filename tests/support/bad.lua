--- Misuse and its messages. A case is { what, function, found, mend... }: the function has to raise an error that blames a line of its
--- own, says what was found and how to mend it; and afterwards training gives the same bits as ever.
local bp = require "bp"
local alive = require("support.core").alive
local assert, it, setup = require "luassert", require("busted").it, require("busted").setup

local bad = {}

-- Losses of three small steps, one captured and one eager: what has to stay the same whatever went wrong before.
local function training()
  bp.seed(11)
  local net = bp.nn.sequential{ bp.nn.dense{ 4, activation = "relu" }, bp.nn.dropout(0.2), bp.nn.dense(3) }
  local x, y = bp.randn(6, 5), bp.randint(1, 3, 6)
  net(x)
  local optimizer, losses = bp.optim.adam(net:parameters(), { lr = 0.1 }), {}
  local function step(a, b)
    local loss = bp.nn.loss.cross_entropy(net(a), b)
    optimizer:zero_grad()
    loss:backward()
    optimizer:step()
    return loss
  end
  local captured = bp.capture(step)
  for i, fn in ipairs{ captured, captured, step } do losses[i] = fn(x, y):item() end
  return losses
end

local reference = training()
assert(reference[3] < reference[1])

--- Fails unless training gives the same losses, to the bit, as before anything went wrong.
function bad.still_works()
  assert.same(reference, training())
end

local function has(message, text)
  assert(message:find(text, 1, true), ("expected %q in the message:\n%s"):format(text, message))
end

--- Fails unless the function raises an error that blames one of its own lines and holds all the texts.
function bad.raises(fn, ...)
  local info = debug.getinfo(fn, "S")
  local ok, message = pcall(fn)
  assert(not ok, "there was no error")
  assert(type(message) == "string", "the error is no string")
  local file, line = message:match "^(.-):(%d+): "
  assert(file == info.short_src and tonumber(line) >= info.linedefined and tonumber(line) <= info.lastlinedefined,
    ("blames another line than %s:%d-%d:\n%s"):format(info.short_src, info.linedefined, info.lastlinedefined, message))
  for _, text in ipairs{ ... } do has(message, text) end
end

--- Fails unless the function returns nil, a message that holds all the texts, and the code.
function bad.refuses(code, fn, ...)
  local ok, result, message, got = pcall(fn)
  assert(ok, "it raised: " .. tostring(result))
  assert(result == nil, "it did not fail")
  for _, text in ipairs{ ... } do has(message, text) end
  assert.equal(code, got, message)
end

--- Makes a test of every case, and one that all of them together left no tensor behind.
-- @param cases list of { what, function, found, mend, ... }
function bad.cases(cases)
  local names, before = {}, nil
  setup(function() before = alive() end)
  for _, case in ipairs(cases) do
    local what, fn = case[1], case[2]
    assert(not names[what], "two cases: " .. what)
    assert(#case >= 4, what .. ": a message has to say what was found and how to mend it")
    names[what] = true
    it(what, function()
      bad.raises(fn, table.unpack(case, 3))
      bad.still_works()
    end)
  end
  it("leaves nothing behind", function() assert.equal(before, alive()) end)
end

return bad
