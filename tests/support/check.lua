--- Comparing tensors, and catching errors, prints and warnings in specs.
local bp = require "bp"

local check = {}

--- Largest |a - b| over max(1, largest |b|).
function check.difference(a, b)
  assert(table.concat(a:shape(), "x") == table.concat(b:shape(), "x"),
    ("shapes %s and %s"):format(table.concat(a:shape(), "x"), table.concat(b:shape(), "x")))
  if a:numel() == 0 then return 0 end
  local x, y = a:detach():to "f64", b:detach():to "f64"
  return (x - y):abs():max():item() / math.max(1, y:abs():max():item())
end

--- Fails unless both tensors agree.
function check.near(a, b, tolerance, what)
  local difference = check.difference(a, b)
  if difference ~= difference or difference > (tolerance or 1e-6) then
    error(("%s: the tensors differ by %.3g, more than %.3g\n%s\n%s"):format(what or "", difference, tolerance or 1e-6, tostring(a),
      tostring(b)), 2)
  end
end

--- Whether all elements are the same bits.
function check.equal(a, b)
  return table.concat(a:shape(), "x") == table.concat(b:shape(), "x") and (a:numel() == 0 or a:eq(b):all():item())
end

--- Runs fn and returns the message of its error, without the position.
function check.message(fn, ...)
  local ok, err = pcall(fn, ...)
  assert(not ok, "expected an error")
  return (tostring(err):gsub("^[^\n]-:%d+: ", ""))
end

--- Fails unless fn raises a message that contains text.
function check.fails(text, fn, ...)
  local found = check.message(fn, ...)
  if not found:find(text, 1, true) then error(("the error is %q; expected it to contain %q"):format(found, text), 2) end
end

--- Runs body with everything printed caught, and the warnings given.
function check.quietly(body)
  local lines, warnings = {}, {}
  local old_print, old_handler = print, bp.warning.handler
  _G.print = function(...) -- luacheck: ignore 122
    local parts = table.pack(...)
    for i = 1, parts.n do parts[i] = tostring(parts[i]) end
    lines[#lines + 1] = table.concat(parts, "\t")
  end
  bp.warning.handler = function(message) warnings[#warnings + 1] = message end
  local ok, err = pcall(body)
  _G.print, bp.warning.handler = old_print, old_handler -- luacheck: ignore 122
  if not ok then error(err, 0) end
  return lines, warnings
end

return check
