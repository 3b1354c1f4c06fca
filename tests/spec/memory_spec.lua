local core = require "bp.core"
local support = require "support.core"

local ops = core.ops

--- A field of /proc/self/status in megabytes.
local function process_mb(field)
  local f <close> = assert(io.open("/proc/self/status"))
  return tonumber(f:read("a"):match(field .. ":%s*(%d+) kB")) / 1024
end

describe("memory", function()
  local before = support.alive()

  -- A million turns of this take minutes; what is made in the first thousands would stand out already.
  it("of dropped tensors is taken back without a collection by hand", function()
    local x = ops.full({ 512, 512 }, 1)
    local start, most = process_mb "VmRSS", 0
    for i = 1, 4000 do
      local y = x + i -- luacheck: ignore 211
      if i % 100 == 0 then most = math.max(most, process_mb "VmRSS") end
    end
    assert.is_true(most - start < 56, ("grew from %.0f to %.0f MB"):format(start, most))
  end)

  it("of dropped histories as well", function()
    local w = core.tensor({ 1 }, { requires_grad = true })
    local x = ops.full({ 512, 512 }, 1)
    local start, most = process_mb "VmRSS", 0
    for i = 1, 500 do
      local loss = ((x * w):exp() * x):sum()
      if i % 2 == 0 then loss:backward() end
      if i % 20 == 0 then most = math.max(most, process_mb "VmRSS") end
    end
    assert.is_true(most - start < 64, ("grew from %.0f to %.0f MB"):format(start, most))
  end)

  it("of cycles of tables and tensors too", function()
    local start, most = process_mb "VmRSS", 0
    for i = 1, 500 do
      local node = setmetatable({ tensor = ops.full({ 512, 512 }, i) }, {})
      getmetatable(node).__index = node
      if i % 20 == 0 then most = math.max(most, process_mb "VmRSS") end
    end
    assert.is_true(most - start < 56, ("grew from %.0f to %.0f MB"):format(start, most))
  end)

  it("of boxes does not grow with how many came and went", function()
    local x = ops.full({ 1 }, 1)
    local function heap_after(n)
      local most = 0
      for i = 1, n do
        local y = x + i
        y:free()
        if i % 10000 == 0 then most = math.max(most, collectgarbage "count" / 1024) end
      end
      return most
    end
    collectgarbage()
    local start = collectgarbage "count" / 1024
    local most = heap_after(1000000)
    assert.is_true(most < 3 * start + 16, ("%.0f MB of Lua's heap; %.0f at first"):format(most, start))
  end)

  it("of boxes is collected after a finalizer made many", function()
    setmetatable({}, { __gc = function() for i = 1, 200000 do ops.full({ 1 }, i):free() end end })
    collectgarbage() -- no collection can run within
    local x = ops.full({ 1 }, 1)
    for i = 1, 1000000 do (x + i):free() end
    local heap = collectgarbage "count" / 1024
    collectgarbage()
    local rest = collectgarbage "count" / 1024
    assert.is_true(heap < 3 * rest + 16, ("%.0f MB of Lua's heap; %.0f of it in use"):format(heap, rest))
  end)

  it("is not collected more often than it grows", function()
    local cycles = 0
    local function watch() setmetatable({}, { __gc = function() cycles = cycles + 1 watch() end }) end
    watch()
    local alive = ops.full({ 64 << 18 }, 1) -- 64 MB
    collectgarbage()
    cycles = 0
    local x = ops.full({ 1 << 18 }, 1)
    for _ = 1, 256 do local y = x + 1 end -- luacheck: ignore 211
    assert.is_true(cycles <= 6, cycles .. " collections for 256 MB beside 64 MB alive")
    alive:free()
  end)

  it("is counted", function()
    local m = core.memory()
    local t = ops.full({ 1000, 1000 }, 1)
    local n = core.memory()
    assert.equal(m.tensors + 1, n.tensors)
    assert.is_true(n.used - n.cached >= m.used - m.cached + 4000000)
    assert.is_true(n.peak >= n.used)
    t:free()
    assert.equal(m.tensors, core.memory().tensors)
    core.reset_peak()
    assert.equal(core.memory().used, core.memory().peak)
  end)

  it("that is too much to ask for is an error, and all goes on", function()
    assert.matches("more elements than can be addressed", support.failure(ops.full, { 1 << 40, 1 << 40 }, 0))
    assert.matches("out of memory", support.failure(ops.full, { 1 << 46 }, 0))
    assert.equal(2, (core.tensor(1) + 1):item())
  end)

  it("can be freed by finalizers, and by hand twice", function()
    local log = {}
    for i = 1, 10 do
      local t = core.tensor { i }
      setmetatable({}, { __gc = function()
        log[#log + 1] = (t + 1):item()
        t:free()
        t:free()
      end })
    end
    collectgarbage()
    collectgarbage()
    table.sort(log)
    assert.same({ 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 }, log)
  end)

  it("that was freed stays so when other tensors are made in its place", function()
    local freed, made, n = {}, {}, core.memory().tensors
    for i = 1, 300 do
      freed[i] = core.tensor { i }
      freed[i]:free()
      made[i] = core.tensor { -i }
      freed[i]:free()
      do local again <close> = freed[i] end -- luacheck: ignore 211
    end
    assert.equal(n + 300, core.memory().tensors)
    collectgarbage()
    collectgarbage()
    for i = 1, 300 do
      assert.is_true(freed[i]:is_freed())
      assert.is_true(core.is_tensor(freed[i]))
      assert.equal(-i, made[i]:item())
      assert.is_false(freed[i] == freed[i % 300 + 1])
      assert.is_true(freed[i] == freed[i] and made[i] == made[i])
      assert.matches("this tensor was freed", support.failure(function() return freed[i] + 1 end))
    end
    assert.matches("freed", tostring(freed[1]))
    for name, value in pairs(getmetatable(made[1])) do
      assert.equal(name ~= "__gc" and value or nil, getmetatable(freed[1])[name], name)
    end
    for i = 1, 300 do made[i]:free() end
    assert.equal(n, core.memory().tensors)
  end)

  it("leaves nothing behind", function() assert.equal(before, support.alive()) end)
end)
