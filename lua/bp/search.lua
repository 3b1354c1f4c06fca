--- bp.search: tries settings of a training, at random or all of a grid, and keeps a table of what came out.
---
---     local search = bp.search
---     local study = search.study{ direction = "maximize", sampler = search.random{ seed = 7 } }
---     study:optimize{ trials = 20,
---       space = { lr = search.float{ 1e-4, 1e-1, log = true }, units = search.int{ 16, 128, step = 16 },
---                 act = search.choice{ "relu", "tanh" } },
---       objective = function(params, trial) ... return accuracy end }
---     print(study.best.value, study.best.params.lr); print(study); study:csv "trials.csv"
---
--- Trial n draws from (seed, n) alone, and bp.seed is set from both before it runs: a trial can be repeated without those before it.
local check_self = require "bp.methods"
local core = require "bp.core"
local logs = require "bp.logs"
local options = require "bp.options"
local warning = require "bp.warning"

local search = {}

-- ---- dimensions ----------------------------------------------------------------------------------------------------------------------
-- A dimension gives a value for u in [0, 1) and, for a grid, the list of its values.

local Dimension = { __name = "search dimension" }
Dimension.__index = Dimension

local function dimension(kind, o, at, values)
  return setmetatable({ kind = kind, options = o, at = at, values = values }, Dimension)
end

local function check_order(spec, o)
  if o.low > o.high then spec:fail("low is %s, above high %s", o.low, o.high) end
  if o.log and o.low <= 0 then spec:fail("low is %s; with log = true expected a number above 0", o.low) end
end

local float_spec = options.define("search.float", "A number between two.", {
  { "low", "number", required = true, help = "smallest value" },
  { "high", "number", required = true, help = "largest value" },
  { "log", "boolean", default = false, named = true, help = "evenly in the logarithm" },
  { "points", "int", min = 1, named = true, help = "how many values a grid takes" },
})

--- A number between two.
---@param given table { low, high, log = false, points = }
---@return table dimension
function search.float(given, ...)
  local o = float_spec:read(given, ...)
  check_order(float_spec, o)
  local function at(share)
    if o.log then return math.exp(math.log(o.low) + share * (math.log(o.high) - math.log(o.low))) end
    return o.low + share * (o.high - o.low)
  end
  return dimension("float", o, function(u) return math.max(o.low, math.min(o.high, at(u))) end, function()
    if not o.points then float_spec:fail("a grid needs the number of values: search.float{ %s, %s, points = 5 }", o.low, o.high) end
    local list = {}
    for i = 1, o.points do list[i] = o.points == 1 and at(0.5) or at((i - 1) / (o.points - 1)) end
    return list
  end)
end

local int_spec = options.define("search.int", "A whole number between two, both included.", {
  { "low", "int", required = true, help = "smallest value" },
  { "high", "int", required = true, help = "largest value" },
  { "step", "int", min = 1, default = 1, named = true, help = "distance between values" },
  { "log", "boolean", default = false, named = true, help = "evenly in the logarithm; the step is then 1" },
})

--- A whole number between two, both included.
---@param given table { low, high, step = 1, log = false }
---@return table dimension
function search.int(given, ...)
  local o = int_spec:read(given, ...)
  check_order(int_spec, o)
  if o.log and o.step ~= 1 then int_spec:fail("step %d with log = true; expected one or the other", o.step) end
  local count = (o.high - o.low) // o.step + 1
  return dimension("int", o, function(u)
    if o.log then
      -- Each whole number k gets the share of k - 1/2 .. k + 1/2.
      local low, high = math.log(o.low - 0.5), math.log(o.high + 0.5)
      return math.max(o.low, math.min(o.high, math.floor(math.exp(low + u * (high - low)) + 0.5)))
    end
    return o.low + o.step * math.min(count - 1, math.floor(u * count))
  end, function()
    local list = {}
    for i = 1, count do list[i] = o.low + (i - 1) * o.step end
    return list
  end)
end

--- One of several values.
---@param choices table list of strings, numbers or booleans
---@return table dimension
function search.choice(choices, ...)
  if select("#", ...) > 0 then core.error("search.choice: called with several values; expected one list: search.choice{ a, b }") end
  if not options.is_plain(choices) or #choices == 0 then
    core.error("search.choice: the choices are " .. options.describe(choices) .. "; expected a list with at least one value")
  end
  local list = table.move(choices, 1, #choices, 1, {})
  return dimension("choice", { choices = list }, function(u) return list[math.min(#list, math.floor(u * #list) + 1)] end,
    function() return list end)
end

-- ---- samplers ------------------------------------------------------------------------------------------------------------------------
-- A sampler has params(names, space, number) -> table, and count(names, space) -> how many trials there are at most.

local random_spec = options.define("search.random", "Draws every trial anew.", {
  { "seed", "int", min = 0, default = 0, help = "the same seed gives the same trials" },
})

--- Draws every trial anew.
---@param given table|integer|nil { seed = 0 }
---@return table sampler
function search.random(given)
  local o = random_spec:read(given)
  local sampler = { name = "random", seed = o.seed }
  function sampler.params(names, space, number)
    local state = core.tensor({ o.seed, number }, { dtype = "i64" })
    local draws = core.ops.random_uniform(state, { shape = { #names }, dtype = "f64" }):totable()
    local params = {}
    for i, name in ipairs(names) do params[name] = space[name].at(draws[i]) end
    return params
  end
  function sampler.count() return math.maxinteger end
  return sampler
end

--- Tries every combination, the last name (alphabetically) changing fastest.
---@return table sampler
function search.grid()
  local sampler = { name = "grid", seed = 0 }
  function sampler.params(names, space, number)
    local params, rest = {}, number - 1
    for i = #names, 1, -1 do
      local values = space[names[i]].values()
      params[names[i]] = values[rest % #values + 1]
      rest = rest // #values
    end
    return params
  end
  function sampler.count(names, space)
    local count = 1
    for _, name in ipairs(names) do count = count * #space[name].values() end
    return count
  end
  return sampler
end

-- ---- study ---------------------------------------------------------------------------------------------------------------------------

local Study = { __name = "study" }
Study.__index = Study

local study_spec = options.define("search.study", "A search: its trials and the best of them.", {
  { "name", "string", default = "study", help = "shown in messages" },
  { "direction", "choice", choices = { "minimize", "maximize" }, default = "minimize", named = true, help = "which values are better" },
  { "sampler", "table", named = true, help = "search.random{ seed = 0 } or search.grid(); default random" },
  { "metric", "string", default = "value", named = true, help = "name of the value in what the objective returns, when that is a table" },
  { "verbose", "boolean", default = true, named = true, help = "print a line per trial" },
})

--- A search.
---@param given table|string|nil { name = "study", direction = "minimize", sampler = search.random{}, metric = "value", verbose = true }
---@return table study with study.trials and study.best: { number, params, value, state = "complete" or "failed", message, seconds, results
--- }
function search.study(given)
  local o = study_spec:read(given)
  return setmetatable({ name = o.name, options = o, sampler = o.sampler or search.random(), trials = {} }, Study)
end

local optimize_spec = options.define("study:optimize", "Runs trials.", {
  { "space", "table", required = true, named = true, help = "a dimension for each name" },
  { "objective", "function", required = true, named = true, help = "function (params, trial) -> number, or a table of numbers" },
  { "trials", "int", min = 1, named = true, help = "how many trials; default all of a grid, 20 at random" },
  { "timeout", "number", above = 0, named = true, help = "start no trial after so many seconds" },
})

local function names_of(space)
  local names = {}
  for name, dim in pairs(space) do
    if type(name) ~= "string" or getmetatable(dim) ~= Dimension then
      optimize_spec:fail("space: '%s' is %s; expected search.float, search.int or search.choice", tostring(name), options.describe(dim))
    end
    names[#names + 1] = name
  end
  if #names == 0 then optimize_spec:fail("the space is empty; expected a dimension for each name") end
  table.sort(names)
  return names
end

local function is_better(self, value, than)
  if value ~= value then return false end
  if than == nil then return true end
  if self.options.direction == "maximize" then return value > than end
  return value < than
end

-- Takes what the objective returned.
local function settle(self, trial, result)
  local value = result
  if type(result) == "table" then
    trial.results, value = result, result[self.options.metric]
    if type(value) ~= "number" then
      local known = {}
      for key, item in pairs(result) do
        if type(key) == "string" and type(item) == "number" then known[#known + 1] = key end
      end
      table.sort(known)
      error(("the objective's table has no number '%s'%s"):format(self.options.metric, options.hint(self.options.metric, known)), 0)
    end
  elseif type(value) ~= "number" then
    error(("the objective returned %s; expected a number, or a table of numbers"):format(options.describe(result)), 0)
  end
  trial.value, trial.state = value, "complete"
  if is_better(self, value, self.best and self.best.value) then self.best = trial end
end

local function params_text(params, names)
  local parts = {}
  for i, name in ipairs(names) do
    local value = params[name]
    parts[i] = ("%s=%s"):format(name, math.type(value) == "float" and ("%.4g"):format(value) or tostring(value))
  end
  return table.concat(parts, " ")
end

local function report(self, trial)
  if not self.options.verbose then return end
  print(("trial %d: %s  %s%s"):format(trial.number, trial.state == "complete" and logs.format(trial.value) or "failed: " .. trial.message,
    params_text(trial.params, self.names), trial == self.best and "  *" or ""))
end

local LARGE = 16 << 20 -- bytes of tensors

-- Runs one trial. An error costs that trial; its message is kept.
local function run(self, o, number)
  local before = core.used()
  local trial = { number = number, params = self.sampler.params(self.names, o.space, number), state = "failed" }
  core.seed((self.sampler.seed * 1000003 + number) & math.maxinteger)
  local start = core.clock()
  local ok, message = xpcall(function()
    local given = {}
    for key, value in pairs(trial.params) do given[key] = value end
    settle(self, trial, o.objective(given, trial))
  end, function(err) return tostring(err) end)
  trial.seconds = core.clock() - start
  if not ok then trial.message = message end
  self.trials[#self.trials + 1] = trial
  report(self, trial)
  -- what a trial leaves goes before the next begins, or, as long as it is little, at the collector's own pace
  if core.used() - before > LARGE then collectgarbage() end
end

--- Runs trials; called again it goes on after those already run.
---@param given table { space =, objective =, trials =, timeout = }
---@return table self
function Study:optimize(given)
  local o = optimize_spec:read(given)
  self.names = names_of(o.space)
  local first, available = #self.trials, self.sampler.count(self.names, o.space)
  local wanted = o.trials or (self.sampler.name == "grid" and available or 20)
  local start = core.clock()
  for number = first + 1, math.min(first + wanted, available) do
    if o.timeout and core.clock() - start >= o.timeout then break end
    run(self, o, number)
  end
  if self.best == nil and self.trials[first + 1] then
    local trial = self.trials[first + 1]
    core.error(("%s: none of %d trials gave a value; the first: %s"):format(self.name, #self.trials, trial.message or "nan"))
  end
  local failed = 0
  for i = first + 1, #self.trials do failed = failed + (self.trials[i].state == "failed" and 1 or 0) end
  if failed > 0 then
    warning.give("%s: %d of %d trials failed; study.trials has their messages", self.name, failed, #self.trials - first)
  end
  return self
end

-- ---- tables --------------------------------------------------------------------------------------------------------------------------

local function field(value)
  if value == nil then return "" end
  local text = math.type(value) == "float" and ("%.17g"):format(value) or tostring(value)
  return text:find('[",\r\n]') and '"' .. text:gsub('"', '""') .. '"' or text
end

--- The trials as CSV text, in the order in which they ran.
---@return string text
function Study:to_csv()
  local head = { "number", "state", "value" }
  for _, name in ipairs(self.names or {}) do head[#head + 1] = field(name) end
  head[#head + 1], head[#head + 2] = "seconds", "message"
  local lines = { table.concat(head, ",") }
  for _, trial in ipairs(self.trials) do
    local row = { trial.number, trial.state, field(trial.value) }
    for _, name in ipairs(self.names) do row[#row + 1] = field(trial.params[name]) end
    row[#row + 1], row[#row + 2] = ("%.3f"):format(trial.seconds), field(trial.message)
    lines[#lines + 1] = table.concat(row, ",")
  end
  return table.concat(lines, "\n") .. "\n"
end

--- Writes the trials as CSV.
---@param path string
---@return boolean|nil ok
---@return string|nil message
---@return string|nil code
function Study:csv(path)
  return core.write_file(path, self:to_csv())
end

--- The trials from best to worst, as text; print(study) shows it.
---@param count integer|nil how many (default 10)
---@return string text
function Study:table(count)
  local sorted = table.move(self.trials, 1, #self.trials, 1, {})
  table.sort(sorted, function(a, b)
    local x, y = a.value, b.value
    if x ~= x then x = nil end
    if y ~= y then y = nil end
    if x == nil or y == nil or x == y then
      if (x == nil) ~= (y == nil) then return y == nil end
      return a.number < b.number
    end
    return is_better(self, x, y)
  end)
  local lines = { ("%s: %d trials, %s %s"):format(self.name, #self.trials, self.options.direction, self.options.metric) }
  for i = 1, math.min(count or 10, #sorted) do
    local trial = sorted[i]
    lines[#lines + 1] = ("%5d  %-12s %s")
      :format(trial.number, trial.value and logs.format(trial.value) or "failed", params_text(trial.params, self.names))
  end
  return table.concat(lines, "\n")
end

function Study:__tostring() return self:table() end
check_self(Study, "study", function(value) return getmetatable(value) == Study end)

return search
