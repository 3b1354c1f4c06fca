--- Gradients as Lua sees them. That each op's gradient is right is checked in C.
local core = require "bp.core"
local support = require "support.core"
local failure = support.failure

local tensor = core.tensor

local function leaf(value) return tensor(value, { requires_grad = true }) end

describe("autograd", function()
  local before = support.alive()

  it("gathers gradients in leaves", function()
    local w, x = leaf { 1, 2 }, tensor { 3, 4 }
    local loss = (w * x):sum()
    assert.is_true(w.requires_grad)
    assert.is_true(w.is_leaf)
    assert.is_true(loss.requires_grad)
    assert.is_false(loss.is_leaf)
    assert.is_nil(w.grad)
    loss:backward()
    assert.same({ 3, 4 }, w.grad:totable())
    assert.is_nil(x.grad)
    ; (w * x):sum():backward()
    assert.same({ 6, 8 }, w.grad:totable())
    w:zero_grad()
    ; (w * x):sum():backward()
    assert.same({ 3, 4 }, w.grad:totable())
  end)

  it("takes the gradient of a result that is no single number", function()
    local w = leaf { 1, 2 }
    ; (w * 2):backward { grad = tensor { 1, 10 } }
    assert.same({ 2, 20 }, w.grad:totable())
    ; (w * 2):backward(tensor { 1, 10 })
    assert.same({ 4, 40 }, w.grad:totable())
    assert.matches("shape %[2%] is not a single number; reduce it", failure(function() (w * 2):backward() end))
    assert.matches("gradient given is f32 %[1%], but the value is f32 %[2%]", failure(function()
      (w * 2):backward { grad = tensor { 1 } }
    end))
    assert.matches("option 'grad' is 1; a tensor is expected", failure(function() (w * 2):backward { grad = 1 } end))
    assert.matches("unknown option 'retain' %(did you mean 'retain_graph'%?%)", failure(function()
      (w * 2):backward { retain = true }
    end))
  end)

  it("runs twice over one history only when it was kept", function()
    local w = leaf(3)
    local y = w * w
    y:backward { retain_graph = true }
    y:backward()
    assert.equal(12, w.grad:item())
    assert.matches("already used up by an earlier backward; pass retain_graph = true", failure(y.backward, y))
  end)

  it("gives gradients without touching grad, and of gradients", function()
    local x = leaf(2)
    local y = x * x * x
    local first = core.gradients(y, x, { create_graph = true })
    assert.equal(12, first:item())
    local second = core.gradients(first, x)
    assert.equal(12, second:item())
    assert.is_nil(x.grad)
    local other = leaf(1)
    local list = core.gradients(x * 2, { x, other })
    assert.equal(2, list[1]:item())
    assert.is_false(list[2])
    assert.is_nil(core.gradients(x * 2, other))
    assert.matches("entry 2 of the list is 1; a tensor is expected", failure(core.gradients, y, { x, 1 }))
    assert.matches("tensor 1 does not require a gradient", failure(core.gradients, x * 2, tensor(1)))
  end)

  it("notices a kept value that was changed in place", function()
    local w, x = leaf { 1, 2 }, tensor { 3, 4 }
    local loss = (w * x):sum()
    x:add_(1)
    assert.matches("backward: a value %[2%] that 'mul' kept for its gradient was changed in place afterwards", failure(loss.backward, loss))
  end)

  it("refuses to overwrite a leaf, except without gradients", function()
    local w = leaf { 1, 2 }
    assert.matches("in place on a tensor that requires a gradient", failure(w.add_, w, 1))
    core.no_grad(w.add_, w, 1)
    assert.same({ 2, 3 }, w:totable())
    core.no_grad(function() w[1] = 9 end)
    assert.same({ 9, 3 }, w:totable())
  end)

  it("can be told what takes part", function()
    local w = tensor { 1 }
    assert.equal(w, w:requires_grad_())
    assert.is_false((w:detach() * 2).requires_grad)
    w.requires_grad = false
    assert.is_false((w * 2).requires_grad)
    w:requires_grad_(true)
    local y = w * 2
    assert.matches("the result of an op has a history; detach%(%) it instead", failure(y.requires_grad_, y, false))
    local labels = tensor({ 1 }, { dtype = "i64" })
    assert.matches("requires_grad: a tensor of i64 has no gradient", failure(labels.requires_grad_, labels))
    assert.matches("requires_grad is set to 1; true or false", failure(function() w.requires_grad = 1 end))
    assert.matches("depends on nothing that requires a gradient", failure(function() tensor(1):backward() end))
  end)

  it("sets, shares and drops a gradient", function()
    local w, g = leaf { 1, 2 }, tensor { 5, 6 }
    w.grad = g
    assert.same({ 5, 6 }, w.grad:totable())
    assert.is_true(w.grad:shares_memory(g))
    w.grad = nil
    assert.is_nil(w.grad)
    assert.matches("grad: f32 %[1%] does not fit a tensor of f32 %[2%]", failure(function() w.grad = tensor { 1 } end))
    assert.matches("grad is set to 1; a tensor or nil", failure(function() w.grad = 1 end))
  end)

  it("keeps the gradient of a result that asked for it", function()
    local w = leaf { 1, 2 }
    local y = (w * 2):retain_grad()
    ; (y * y):sum():backward()
    assert.same({ 4, 8 }, y.grad:totable())
  end)

  it("does not note in no_grad, notes in enable_grad, also after an error", function()
    local w = leaf(2)
    assert.is_true(core.grad_enabled())
    local a, b = core.no_grad(function(...)
      assert.is_false(core.grad_enabled())
      local inner = core.enable_grad(function() return w * 2 end)
      return w * 2, inner, ...
    end, 1)
    assert.is_false(a.requires_grad)
    assert.is_true(b.requires_grad)
    assert.matches("oops", failure(core.no_grad, function() error "oops" end))
    assert.is_true(core.grad_enabled())
    assert.is_true(core.grad_enabled(false))
    assert.is_false(core.grad_enabled(true))
    assert.matches("no_grad: argument 1 is 1; a function is expected", failure(core.no_grad, 1))
    assert.matches("yield", failure(function()
      local co = coroutine.wrap(function() core.no_grad(coroutine.yield) end)
      co()
    end))
    assert.is_true(core.grad_enabled())
  end)

  it("has a training mode", function()
    assert.is_false(core.training())
    assert.is_false(core.training(true))
    assert.is_true(core.training(false))
    assert.matches("training: argument 1 is 1; true or false", failure(core.training, 1))
  end)

  it("puts parameters and their gradients into one block", function()
    local w, b = leaf { { 1, 2 }, { 3, 4 } }, leaf { 5 }
    ; (w:sum() * b):sum():backward()
    local block = core.flatten { w, b }
    assert.same({ { 1, 2 }, { 3, 4 } }, w:totable())
    assert.same({ { 5, 5 }, { 5, 5 } }, w.grad:totable())
    assert.same({ 10 }, b.grad:totable())
    assert.is_true(w:shares_memory(block.data))
    assert.is_true(b.grad:shares_memory(block.grad))
    assert.same({ 1, 17 }, block.offsets)
    assert.same({ 5 }, block.data[{ { 17, 17 } }]:totable())
    core.zero_grads { w, b }
    assert.equal(0, core.gather_grads({ w, b }, block.grad))
    assert.equal(0, block.grad:sum():item())
    core.no_grad(function() block.data:mul_(2) end)
    assert.same({ { 2, 4 }, { 6, 8 } }, w:totable())
    assert.matches("are the same tensor", failure(core.flatten, { w, w }))
    assert.matches("entry 2 of the list is 'x'", failure(core.flatten, { w, "x" }))
    assert.matches("flatten: argument 1 is 1; a list of tensors", failure(core.flatten, 1))
  end)

  it("lives through a long history", function()
    local x = leaf(1)
    local y = x
    for _ = 1, 20000 do y = y + 1 end
    y:backward()
    assert.equal(1, x.grad:item())
  end)

  it("leaves nothing behind", function() assert.equal(before, support.alive()) end)
end)
