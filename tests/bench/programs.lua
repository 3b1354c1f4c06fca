--- The programs of a benchmark: processes that answer one line of JSON per command (peers/protocol.py), and which of them are there.
local bp = require "bp"

local Program = {}
Program.__index = Program

--- Starts a program; its answer to "list" is read by :about(), so that several can start at once.
---@param name string
---@param command string for the shell
---@param folder string where its pipe is made
---@param errors string|nil where its error output goes
function Program.open(name, command, folder, errors)
  local pipe = ("%s/%s.pipe"):format(folder, (name:gsub("%W", "_")))
  assert(os.execute(("mkfifo '%s'"):format(pipe)))
  local self = setmetatable({ name = name, command = command }, Program)
  -- PyTorch's compiler takes $CXX for the path of a program, which "ccache g++" is not.
  local environment = ("env -u CC -u CXX BP_BENCH_DATA='%s' OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1"):format(folder)
  self.answers = assert(io.popen(("%s %s < '%s' 2>>'%s'"):format(environment, command, pipe, errors or "/dev/null")))
  self.commands = assert(io.open(pipe, "w"))
  self.commands:setvbuf "no"
  os.remove(pipe)
  self.commands:write "list\n"
  return self
end

function Program:about()
  if not self.known then
    local line = self.answers:read "l"
    local known = line and bp.json.decode(line) or { error = "ended" }
    self.known = known.error and { workloads = {}, versions = {}, error = known.error } or known
    self.ended = line == nil
  end
  return self.known
end

---@return table answer, with error when it failed
function Program:ask(command, ...)
  self:about()
  if self.ended then return { error = "ended" } end
  self.commands:write(command:format(...), "\n")
  local line = self.answers:read "l"
  if not line then
    self.ended = true
    return { error = "ended at " .. command:format(...) }
  end
  local answer = bp.json.decode(line)
  if answer.error then answer.error = answer.error:match("[^\n]*"):sub(1, 160) end
  return answer
end

--- Says quit: the end of its input would not reach it while programs that were started later hold the same pipe.
function Program:close()
  if not self.ended then self.commands:write "quit\n" end
  self.commands:close()
  self.answers:close()
end

-- ---- which there are -----------------------------------------------------------------------------------------------------------------

local programs = { Program = Program, PEERS = { "torch", "keras", "jax", "onnxruntime", "kann" } }

local function exists(path)
  local f = io.open(path, "rb")
  if f then f:close() end
  return f ~= nil
end

--- Where make bench-peers put the peers.
function programs.environment()
  return os.getenv "BP_PEERS" or (os.getenv "XDG_CACHE_HOME" or (os.getenv "HOME" or "") .. "/.cache") .. "/bplua/peers"
end

--- Opens bplua and the peers that are wanted and there.
---@param o table { folder =, bplua =, scripts =, c_program = nil, peers = list, threads = list of the peers' }
---@return table list of programs, with framework = "torch" and threads =
---@return table missing name to reason
function programs.open_all(o)
  local list, missing = {}, {}
  local function add(framework, threads, command)
    local p = Program.open(("%s %d"):format(framework, threads), command, o.folder, o.folder .. "/errors")
    p.framework, p.threads = framework, threads
    list[#list + 1] = p
  end
  local all = bp.threads()
  local ours = ("'%s' '%s/peers/bplua_peer.lua' --threads %%d"):format(o.bplua, o.scripts)
  for _, threads in ipairs(all > 1 and { all, 1 } or { 1 }) do add("bplua", threads, ours:format(threads)) end
  add("bplua eager", all, ours:format(all) .. " --eager")
  if o.c_program then add("bplua C", all, ("'%s'"):format(o.c_program)) end
  local bin = programs.environment() .. "/bin"
  local script = { torch = "torch_peer.py", keras = "keras_peer.py", jax = "jax_peer.py", onnxruntime = "onnx_peer.py" }
  for _, peer in ipairs(o.peers) do
    local file = bin .. (script[peer] and "/python" or "/kann_peer")
    if not exists(file) then missing[peer] = file .. " is not there (make bench-peers)" else
      for _, threads in ipairs(o.threads) do
        add(peer, threads, (script[peer] and ("'%s' '%s/peers/%s' --threads %d"):format(file, o.scripts, script[peer], threads)
          or ("'%s' --threads %d"):format(file, threads)))
      end
    end
  end
  for i = #list, 1, -1 do
    local p = list[i]
    if p:about().error then
      missing[p.framework] = "it does not start: " .. p:about().error
      p:close()
      table.remove(list, i)
    end
  end
  return list, missing
end

return programs
