--- A list of findings, each with a kind, a text and perhaps an advice, that print shows line by line.
---@internal
local report = {}

local Report = { __name = "report" }
Report.__index = Report

--- An empty list.
---@param title string what stands before the findings
---@param none string what is said when there is none
---@return table report
function report.new(title, none) return setmetatable({ title = title, none = none }, Report) end

--- Adds a finding.
---@param kind string one word for programs
---@param text string
---@param advice string|nil
function Report:add(kind, text, advice) self[#self + 1] = { kind = kind, text = text, advice = advice } end

--- Whether there is a finding of that kind.
---@param kind string
---@return table|nil finding
function Report:has(kind)
  for _, finding in ipairs(self) do
    if finding.kind == kind then return finding end
  end
end

function Report:__tostring()
  if #self == 0 then return self.title .. ": " .. self.none end
  local lines = { self.title .. ":" }
  for _, finding in ipairs(self) do
    lines[#lines + 1] = ("  %s: %s%s"):format(finding.kind, finding.text, finding.advice and "; " .. finding.advice or "")
  end
  return table.concat(lines, "\n")
end

return report
