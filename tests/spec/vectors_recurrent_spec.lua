--- Recurrent layers against PyTorch (packed sequences, stacks, both directions) and Keras (GRU with reset_after both ways, masks): outputs,
--- last states and all gradients, in f64 to 1e-9, and in f32 to what f32 can hold.
local vectors = require "support.vectors"
local bp = require "bp"
local near, leaf = vectors.near, vectors.leaf
local nn = bp.nn

-- k1, u1, b1, bu1: kernel, recurrent_kernel, bias, recurrent_bias of the part called 1.
local FIELDS = { k = "kernel", u = "recurrent_kernel", b = "bias", bu = "recurrent_bias" }

-- Parameters by the name they are stored under.
local function by_stored_name(layer, part)
  local list = {}
  for short, field in pairs(FIELDS) do
    if layer[field] then list[short .. part] = { layer, field } end
  end
  return list
end

local function parameters(layer, o)
  if not o.bidirectional and not o.num_layers then return by_stored_name(layer, "1") end
  local all = {}
  for i = 1, o.num_layers or 1 do
    for _, d in ipairs(o.bidirectional and { "", "r" } or { "" }) do
      local one = layer[("layer_%d%s"):format(i, d == "r" and "_reverse" or "")]
      for name, place in pairs(by_stored_name(one, i .. d)) do all[name] = place end
    end
  end
  return all
end

-- [layers * directions][batch][units] of the state's tensor number `which`.
local function stacked(state, which, is_stack)
  if not is_stack then return bp.stack({ state[which] }, { axis = 1 }) end
  local list = {}
  for i, one in ipairs(state) do list[i] = one[which] end
  return bp.stack(list, { axis = 1 })
end

local function check(case)
  for _, fused in ipairs{ true, false } do
    for dtype, rtol in pairs{ f64 = 1e-9, f32 = 3e-4 } do
      local given = { units = case.about.units, fused = fused, return_state = true, return_sequences = case.y.ndim == 3 }
      for key, value in pairs(case.options) do given[key] = value end
      local layer, x = nn[case.op](given), leaf(case.x, dtype)
      layer(x:detach())
      local params = parameters(layer, case.options)
      for name, place in pairs(params) do place[1][place[2]] = nn.parameter(case[name]:to(dtype)) end
      local h0, c0 = case.h0 and leaf(case.h0, dtype), case.c0 and leaf(case.c0, dtype)
      local y, state = layer(x, { lengths = case.lengths, initial_state = h0 and { h0, c0 } })
      near(case.y, y, dtype .. " y", rtol)
      local total = (y * case.dy:to(dtype)):sum()
      for which, name in ipairs{ "h_n", "c_n" } do
        if case[name] then
          local found = stacked(state, which, case.options.bidirectional or case.options.num_layers)
          near(case[name], found, dtype .. " " .. name, rtol)
          total = total + (found * case["d" .. name]:to(dtype)):sum()
        end
      end
      total:backward()
      near(case.dx, x.grad, dtype .. " dx", rtol)
      if h0 then near(case.dh0, h0.grad, dtype .. " dh0", rtol) end
      if c0 then near(case.dc0, c0.grad, dtype .. " dc0", rtol) end
      for name, place in pairs(params) do near(case["d" .. name], place[1][place[2]].grad, ("%s d%s"):format(dtype, name), rtol) end
    end
  end
end

describe("recurrent layers agree with PyTorch and Keras:", function()
  vectors.compare("recurrent", { simple_rnn = check, gru = check, lstm = check }, {})
end)
