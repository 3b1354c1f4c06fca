--- The stored vectors of PyTorch and Keras (tests/vectors/*.safetensors; tests/vectors/make_vectors.py made them).
--
-- A spec names a test for each op of a family; vectors.compare makes a busted test of every stored case. Nothing is passed over in
-- silence: a case without a test, a reason for a case that is not there, and a tensor of a case that its test never looked at all fail.
local core = require "bp.core"
local assert, it = require "luassert", require("busted").it

local vectors = {}

local Case = {}

--- case.x is the stored tensor x; reading marks it as used.
function Case:__index(key)
  if Case[key] then return Case[key] end
  local tensor = rawget(self, "tensors")[key]
  if tensor then rawget(self, "used")[key] = true end
  return tensor
end

--- Says why this test does not look at a tensor of the case.
function Case:leave(name, reason)
  assert(self.tensors[name], "there is no such tensor")
  assert(#reason > 10, "a reason is needed")
  self.used[name] = true
end

local function read(family)
  local path = ("tests/vectors/%s.safetensors"):format(family)
  local tensors, metadata = core.safetensors_load(path)
  assert(tensors, metadata)
  local cases, list = {}, {}
  for i, name in ipairs(core.json_decode(metadata.cases)) do
    local about = core.json_decode(metadata["case." .. name])
    local case = setmetatable({ name = name, op = about.op, source = about.source, about = about, options = about.options or {},
      tensors = {}, used = {} }, Case)
    cases[name], list[i] = case, case
  end
  for name, tensor in pairs(tensors) do
    local longest -- names of cases hold no '/', names of tensors may
    for case in pairs(cases) do
      if name:sub(1, #case + 1) == case .. "/" then longest = case end
    end
    cases[assert(longest, name)].tensors[name:sub(#longest + 2)] = tensor
  end
  return cases, list
end

local function check_used(case)
  local unused = {}
  for name in pairs(case.tensors) do
    if not case.used[name] then unused[#unused + 1] = name end
  end
  table.sort(unused)
  assert(#unused == 0, ("the test never looked at %s of case %s"):format(table.concat(unused, ", "), case.name))
end

--- Makes a test of every case of a family.
-- @param family string name of the file
-- @param tests table by op: function(case, cases)
-- @param not_ours table by case: why it says something else than we do
-- @param shared table|nil names of cases that hold data for the others
function vectors.compare(family, tests, not_ours, shared)
  local cases, list = read(family)
  local left = {}
  for name, reason in pairs(not_ours) do left[name] = reason end
  for _, name in ipairs(shared or {}) do left[name] = "data of other cases" end
  for _, case in ipairs(list) do
    local reason, test = left[case.name], tests[case.op]
    left[case.name] = nil
    if not reason then
      it(("%s (%s)"):format(case.name, case.source), function()
        assert(test, ("nothing tests op %s, and no reason is given why not"):format(case.op))
        test(case, cases)
        check_used(case)
      end)
    end
  end
  it("gives reasons only for cases that there are", function()
    assert.is_nil((next(left)))
    assert.is_true(#list > 0)
  end)
end

-- ---- comparing -----------------------------------------------------------------------------------------------------------------------

local function flat(value)
  if not core.is_tensor(value) then return value, { #value } end
  return value:reshape(-1):totable(), value:shape()
end

--- Fails unless two tensors (or lists of numbers) have the same shape and nearly the same values: each differs by at most rtol of
--- its own size plus rtol of `least` (default: a thousandth of the largest), so that what cancelled to nothing need not agree.
-- @param expected tensor
-- @param actual tensor
-- @param what string for the message
-- @param rtol number|nil default 1e-9
-- @param least number|nil
function vectors.near(expected, actual, what, rtol, least)
  rtol = rtol or 1e-9
  assert(actual, what .. ": there is none")
  local e, shape = flat(expected)
  local a, found = flat(actual)
  if #shape > 0 or #found > 0 then assert.same(shape, found, what) end
  local largest = 0
  for _, v in ipairs(e) do largest = math.max(largest, math.abs(v)) end
  least = least or 1e-3 * largest
  for i, v in ipairs(e) do
    local allowed = rtol * (math.abs(v) + least)
    if math.abs(a[i] - v) > allowed or a[i] ~= a[i] then
      error(("%s: element %d is %.17g; stored is %.17g, and %.3g may lie between"):format(what, i, a[i], v, allowed), 2)
    end
  end
end

--- A leaf with the values of a stored tensor.
function vectors.leaf(tensor, dtype)
  return tensor:clone():to(dtype or tensor.dtype):detach():requires_grad_(true)
end

--- A list of JSON as plain sizes.
function vectors.list(values)
  return table.move(values, 1, #values, 1, {})
end

return vectors
