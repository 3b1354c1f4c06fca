--- Runs programs for tests and gathers what they print.
local shell = {}

--- The command under test.
shell.bplua = (os.getenv "BUILD" or "build/release") .. "/bplua"

--- A word as the shell reads it.
function shell.quote(word) return "'" .. word:gsub("'", "'\\''") .. "'" end

function shell.read(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end

function shell.write(path, text)
  local f <close> = assert(io.open(path, "wb"))
  assert(f:write(text))
end

--- A new empty folder; the caller removes it with shell.remove.
function shell.folder()
  local p <close> = io.popen "mktemp -d"
  return p:read "l"
end

function shell.remove(path) os.execute("rm -rf " .. shell.quote(path)) end

--- Runs a command line.
-- @param command string
-- @param input string|nil for its standard input
-- @return a table {out, err, code}: code is the exit status, or 128 + the signal
function shell.run(command, input)
  local folder = shell.folder()
  shell.write(folder .. "/in", input or "")
  local _, how, code = os.execute(("{ %s\n} < %s/in > %s/out 2> %s/err"):format(command, folder, folder, folder))
  local result = {
    out = shell.read(folder .. "/out"),
    err = shell.read(folder .. "/err"),
    code = how == "signal" and 128 + code or code,
  }
  shell.remove(folder)
  return result
end

--- Runs bplua with the given words.
function shell.lua(words, input)
  local line = { shell.quote(shell.bplua) }
  for i, word in ipairs(words) do line[i + 1] = shell.quote(word) end
  return shell.run(table.concat(line, " "), input)
end

return shell
