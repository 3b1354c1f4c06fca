--- A small transformer that writes like a licence, character by character: bplua scripts/char_lm.lua [--quick]
-- Learns from the licences that every Debian has in /usr/share/common-licenses, measures bits per character on one that it never saw, and
-- writes a sample. A minute or two on two cores. Writes char_lm.safetensors. --quick takes 40 steps.
local bp = require "bp"
local nn, optim = bp.nn, bp.optim
local quick = arg[1] == "--quick"
local steps, batch, window, features = quick and 40 or 1200, 32, 64, 96
bp.seed(1)

-- ---- text ----------------------------------------------------------------------------------------------------------------------------

local folder = "/usr/share/common-licenses/"
local function read(name)
  local f = io.open(folder .. name, "rb")
  if not f then error(("%s%s is not there; Debian's package base-files brings it"):format(folder, name), 0) end
  local text <close> = f
  return text:read "a"
end

local learned = {}
for _, name in ipairs{ "Artistic", "GFDL-1.2", "GFDL-1.3", "GPL-1", "GPL-2", "GPL-3", "LGPL-2", "LGPL-2.1", "LGPL-3", "MPL-1.1",
  "MPL-2.0" } do
  learned[#learned + 1] = read(name)
end
local vectorize = nn.text_vectorization{ mode = "character" }:adapt(learned)
local function ids_of(text) return bp.tensor(vectorize:encode{ text }[1], { dtype = "i64" }) end
local corpus, unseen = ids_of(table.concat(learned)), ids_of(read "Apache-2.0")
print(("%d characters to learn from, %d to measure, %d different"):format(corpus:size(1), unseen:size(1), vectorize:size()))

-- ---- net -----------------------------------------------------------------------------------------------------------------------------

local net = nn.sequential{
  nn.embedding{ vectorize:size(), features },
  nn.positional(),
  nn.transformer_block{ 4, causal = true, dropout = 0.05 },
  nn.transformer_block{ 4, causal = true, dropout = 0.05 },
  nn.layer_norm(),
  nn.dense(vectorize:size()),
}
-- Mean loss of guessing each next character of windows that begin at some places.
local offsets = bp.arange(window + 1, { dtype = "i64" })
local function loss_at(text, places)
  local ids = bp.ops.take(text, (places:reshape(-1, 1) + offsets - 1):reshape(-1), { axis = 1 }):reshape(-1, window + 1)
  local scores = net(ids[{ {}, { 1, window } }])
  return nn.loss.cross_entropy(scores:reshape(-1, vectorize:size()), ids[{ {}, { 2, window + 1 } }]:reshape(-1))
end

net(corpus[{ { 1, window } }]:reshape(1, window))
local opt = optim.adamw(net:parameters(), { lr = optim.schedule.cosine{ 3e-3, steps = steps, warmup = 50 } })
local last = corpus:size(1) - window
local step = bp.capture(function()
  local loss = loss_at(corpus, bp.randint(1, last, { batch })) -- drawn anew at every replay
  opt:zero_grad()
  loss:backward()
  bp.clip_grad_norm(net:parameters(), 1.0)
  opt:step()
  return loss
end)

local sum, tenth = 0, steps // 10
for i = 1, steps do
  sum = sum + step():item()
  if i % tenth == 0 then
    print(("step %d: %.2f bits per character"):format(i, sum / tenth / math.log(2)))
    sum = 0
  end
end

-- ---- measure and write ---------------------------------------------------------------------------------------------------------------

net:eval()
local places, total, count = bp.arange(1, unseen:size(1) - window, window, { dtype = "i64" }), 0, 0
for first = 1, places:size(1), batch do
  local part = places[{ { first, math.min(first + batch - 1, places:size(1)) } }]
  total = total + bp.no_grad(loss_at, unseen, part):item() * part:size(1)
  count = count + part:size(1)
end
print(("unseen licence: %.2f bits per character"):format(total / count / math.log(2)))
assert(net:save "char_lm.safetensors")

-- The next character, drawn from what the net thinks likely: the greatest of scores / temperature + Gumbel noise.
local draw = bp.capture(function(ids)
  return bp.no_grad(function()
    local scores = net(ids)[{ 1, window }]
    return (scores / 0.7 - (-bp.rand(vectorize:size()):clamp{ min = 1e-9 }:log()):log()):argmax(1)
  end)
end)
local context = vectorize:encode{ (" "):rep(window - 12) .. "\n\n  You may " }[1]
for _ = 1, quick and 40 or 400 do
  local recent = bp.tensor(table.move(context, #context - window + 1, #context, 1, {}), { dtype = "i64" })
  context[#context + 1] = draw(recent:reshape(1, window)):item()
end
print(vectorize:decode{ table.move(context, window - 9, #context, 1, {}) }[1])
