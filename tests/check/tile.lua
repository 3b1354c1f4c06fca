--- Checks the machine code of the micro-kernel: lua5.4 tests/check/tile.lua BUILD_FOLDER
-- The innermost loop of every tile_<rows>x<vectors> and strip_<rows>x<vectors> must do rows * vectors multiply-adds and keep its
-- accumulators in registers: no vector goes to or comes from the stack. A compiler that breaks this makes products several times slower and
-- nothing else shows it.

local build = arg[1] or "build/release"
local variants = { f64 = "mulpd", f32_baseline = "mulps", f32_avx2 = "vfmadd", f32_avx512 = "vfmadd" }

--- The instructions of each tile function: name -> list of {address, text}.
local function tiles(path)
  local found, now = {}, nil
  local pipe <close> = assert(io.popen(("objdump -d --no-show-raw-insn '%s'"):format(path)))
  for line in pipe:lines() do
    local name = line:match "^%x+ <([%w_]+)>:"
    if name then
      now = (name:match "^tile_%dx%d$" or name:match "^strip_%dx%d$") and {} or nil
      if now then found[name] = now end
    elseif now then
      local address, text = line:match "^%s*(%x+):%s+(.*)"
      if address then now[#now + 1] = { tonumber(address, 16), text } end
    end
  end
  return found
end

--- The shortest backward loop with a multiplication in it.
local function inner_loop(code, multiply)
  local best
  for last, instruction in ipairs(code) do
    local target = tonumber(instruction[2]:match "^j%a+%s+(%x+)" or "", 16)
    if target and target < instruction[1] then
      local loop, count = {}, 0
      for i = 1, last do
        if code[i][1] >= target then
          loop[#loop + 1] = code[i][2]
          if code[i][2]:find(multiply, 1, true) then count = count + 1 end
        end
      end
      if count > 0 and (not best or #loop < #best.loop) then best = { loop = loop, count = count } end
    end
  end
  return best
end

local bad, count = 0, 0
for variant, multiply in pairs(variants) do
  local path = ("%s/core/kernels/tile.%s.o"):format(build, variant)
  local file = io.open(path)
  if file then
    file:close()
    for name, code in pairs(tiles(path)) do
      local rows, vectors = name:match "_(%d)x(%d)"
      local found, stack = inner_loop(code, multiply), 0
      for _, text in ipairs(found and found.loop or {}) do
        if text:find "[xyz]mm" and (text:find "%(%%rsp" or text:find "%-0x%x+%(%%rbp") then stack = stack + 1 end
      end
      count = count + 1
      if not found or found.count ~= rows * vectors or stack > 0 then
        bad = bad + 1
        io.stderr:write(("tile: %s of %s: %d multiply-adds in its loop, %d vectors on the stack; expected %d and 0\n"):format(
          name, variant, found and found.count or 0, stack, rows * vectors))
      end
    end
  end
end
if count == 0 then
  io.stderr:write(("tile: no tile.*.o in %s/core/kernels; build first\n"):format(build))
  os.exit(1)
end
if bad > 0 then os.exit(1) end
print(("tile: %d inner loops"):format(count))
