--- Single layers of many shapes, forward and every gradient, beside PyTorch: what is fast must be fast next door as well. make bench-sweep.
--- Shapes are not those of the workloads: odd widths and sizes, 5x5 and strided convolutions, batches of 1 and 17. Sizes stand as in
--- peers/workloads.py: dense,B,IN,OUT  conv2d,N,H,W,C,TAPS,FILTERS,STRIDE,PADDING  lstm,B,T,IN,UNITS.
local measure = require "measure"
local nets = require "nets"
local report = require "report"
local workloads = require "workloads"

local SHAPES = {
  "dense,1,512,512", "dense,17,512,512", "dense,32,100,100", "dense,61,127,93", "dense,128,300,300", "dense,128,512,33",
  "dense,256,1000,10", "dense,512,64,64", "dense,1000,8,8", "dense,64,2048,2048",
  "conv2d,1,56,56,24,3,24,1,same", "conv2d,1,14,14,256,3,256,1,same", "conv2d,17,13,13,5,5,7,2,same", "conv2d,17,27,27,3,3,20,1,valid",
  "conv2d,32,28,28,1,5,20,1,valid", "conv2d,32,12,12,20,5,50,1,valid", "conv2d,32,16,16,48,3,48,1,same", "conv2d,32,31,31,16,3,24,2,same",
  "conv2d,16,32,32,32,1,64,1,valid", "conv2d,16,14,14,128,1,128,1,valid", "conv2d,8,33,33,12,7,12,2,same", "conv2d,64,8,8,96,3,96,1,same",
  "conv2d,128,24,24,8,3,8,1,same", "conv2d,4,64,64,3,3,32,2,same", "conv2d,8,32,32,32,3,3,1,same", "conv2d,32,28,28,1,5,6,1,same",
  "conv2d,2,64,64,64,9,3,1,same",
  "depthwise,16,28,28,40,3,1,same", "depthwise,17,15,15,96,5,2,same",
  "lstm,1,50,32,64", "lstm,17,20,30,40", "lstm,32,40,100,100", "lstm,64,25,64,256", "gru,17,20,30,40", "gru,32,40,128,128",
  "batch_norm,17,15,15,24", "batch_norm,64,28,28,32", "max_pool2d,17,26,26,20,2", "max_pool2d,32,24,24,64,3",
  "softmax,17,1000", "softmax,512,33",
}
local NEEDS = { depthwise = "depthwise_conv2d" }
local TORCH = { images = { "eager last", "eager" }, other = { "eager" } }

-- Forward and both gradients, as workloads.lua counts; nil where products are not what a layer does.
local function operations(kind, n)
  local l
  if kind == "dense" then l = workloads.layer.dense(n[2], n[3])
  elseif kind == "conv2d" then l = workloads.layer.conv(n[2], n[4], n[6], n[5], { stride = n[7], same = n[8] == "same" })
  elseif kind == "depthwise" then
    l = workloads.layer.conv(n[2], n[4], n[4], n[5], { stride = n[6], same = n[7] == "same", depthwise = true })
  elseif kind == "lstm" or kind == "gru" then l = workloads.layer.recurrent(kind == "lstm" and 4 or 3, n[2], n[3], n[4])
  else return nil end
  return 6 * l[1] * n[1]
end

local function numbers_of(spec)
  local kind, list = spec:match "^[^,]+", {}
  for word in spec:gmatch ",([^,]+)" do list[#list + 1] = math.tointeger(tonumber(word)) or word end
  return kind, list
end

local sweep = {}

--- Measures every shape that bplua has a layer for; returns the table as markdown.
---@param all table list of programs
---@param o table { rounds =, seconds =, machine =, log = }
function sweep.run(all, o)
  local rows, ratios, skipped = {}, {}, {}
  for _, spec in ipairs(SHAPES) do
    local kind, numbers = numbers_of(spec)
    local name = "sweep:" .. spec
    if not nets.maker(name, { NEEDS[kind] or (kind == "lstm" or kind == "gru") and kind or nil }) then skipped[#skipped + 1] = spec else
      for _, p in ipairs(all) do
        local variants = p.framework == "torch" and (#numbers >= 4 and kind ~= "lstm" and kind ~= "gru" and TORCH.images or TORCH.other)
        p:about().workloads[name] = variants or p.framework == "bplua" and { "captured" } or nil
      end
      local workload = { name = name, batch = numbers[1], small = true, flops = operations(kind, numbers) or 0, moved = 0, held = 0 }
      local r = measure.workload(all, workload, { rounds = o.rounds, seconds = math.min(o.seconds, 0.1), machine = o.machine,
        log = function() end })
      local ours, peer = measure.ours(r, "captured"), measure.best_peer(r)
      local list = measure.ratios(r, ours, nil)
      local middle = measure.median(list)
      if middle then ratios[#ratios + 1] = middle end
      local speed, p = ours and measure.median(ours.speeds), {}
      for _, each in ipairs(r.rounds) do p[#p + 1] = each.p end
      if speed then
        rows[#rows + 1] = { (spec:gsub(",", " ")), ("%.4g us"):format(1e6 / speed),
          workload.flops > 0 and ("%.0f %%"):format(100 * workload.flops * speed / 1e9 / measure.median(p)) or "",
          peer and ("%.4g us, %s"):format(1e6 / measure.median(peer.speeds), (peer.label:gsub("^torch, ", ""))) or "not measured",
          report.ratio(list) .. (r.noisy and " noisy" or "") }
        o.log("%-34s %s", spec, rows[#rows][5])
      end
      measure.forget(r)
    end
  end
  local middle, least, most = measure.median(ratios)
  local text = report.table({ "layer, forward and gradients", "bplua", "of P", "PyTorch, best", "ratio, median (range)" }, rows)
  if middle then text = text .. ("\nMedian of the ratios %.2f, least %.2f, greatest %.2f.\n"):format(middle, least, most) end
  for _, spec in ipairs(skipped) do text = text .. ("- not measured: %s: bplua has no such layer\n"):format(spec) end
  return text
end

return sweep
