--- Trainings killed at 200 random instants each, by SIGKILL, and started again: they end with the bits of a training left alone (weights,
-- optimizer, random streams, history, log). Then the same with SIGINT and SIGTERM, 50 instants each. Some ten minutes.
-- RESUME_KILLS sets the number of kills.
package.path = "tests/?.lua;" .. package.path
local kills = require "support.kills"

local passed, failed = 0, 0
local count = tonumber(os.getenv "RESUME_KILLS") or 200
math.randomseed(tonumber(os.getenv "RESUME_SEED") or os.time())

local nets = { "mlp", "cnn" }
if require("bp").nn.lstm then nets[3] = "lstm" end
for _, net in ipairs(nets) do
  local program = ("tests/support/resume/%s.lua"):format(net)
  local expected = kills.undisturbed(program)
  for _, case in ipairs{ { "KILL", count }, { "INT", count // 4 }, { "TERM", count // 4 } } do
    local hits, rounds, failures, codes = kills.run(program, case[2], 0.5, case[1], expected)
    local seen = {}
    for code, n in pairs(codes) do seen[#seen + 1] = ("%d times status %d"):format(n, code) end
    print(("%s: SIG%s at %d instants (%s), in %d trainings: %d differ or fail"):format(net, case[1], hits, table.concat(seen, ", "), rounds,
      #failures))
    for _, text in ipairs(failures) do print(text) end
    passed, failed = passed + rounds - #failures, failed + #failures
  end
end
print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0)
