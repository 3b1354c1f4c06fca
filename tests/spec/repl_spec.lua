--- The prompt: piped, where it is silent, and at a terminal, which `script` (bsdutils) makes.
local shell = require "support.shell"
local complete = require "bp.cli.complete"

local function piped(...) return shell.lua({ "-i" }, table.concat({ ... }, "\n") .. "\n") end

describe("the piped prompt", function()
  it("prints values without being asked, and nothing else", function()
    assert.equal("2\na\tnil\n", piped("1 + 1", "'a', nil", "x = 3", "print").out:gsub("function: .*\n", ""))
  end)

  it("is muted by a trailing semicolon, but keeps the value in _", function()
    assert.equal("6\n", piped("5; ", "_ + 1").out)
  end)

  it("keeps _ where there is no value", function() assert.equal("5\n5\n", piped("5", "y = 1", "_").out) end)

  it("goes on in the next line with what is unfinished", function()
    assert.equal("5\n1\n2\nab\n", piped("2 +", "3", "for i = 1, 2 do", "print(i)", "end", "('a' ..", "'b')").out)
  end)

  it("reports an error and goes on", function()
    local r = piped("error 'one'", "local = 1", "7")
    assert.equal("7\n", r.out)
    assert.match("^stdin:1: one\nstack traceback:\n.-\nstdin:1: <name> expected near '='\n$", r.err)
    assert.equal(0, r.code)
  end)

  it("says what is missing at the end of input", function()
    assert.match("stdin:1: 'end' expected near <eof>", piped("do").err)
  end)

  it("has bp as a global; a script has not", function()
    assert.equal("table\n", piped("type(bp)").out)
    assert.equal("nil\n", shell.lua({ "-e", "print(bp)" }).out)
  end)

  it("shows help for ?, and says when there is none", function()
    assert.match("TAB completes", piped("?").out)
    assert.match("%S", piped("?bp.no_such_name").out)
  end)

  it("comes after a script with -i, and sees its globals", function()
    local path = os.tmpname()
    shell.write(path, "answer = 42")
    assert.equal("42\n", shell.lua({ "-i", path }, "answer\n").out)
    os.remove(path)
  end)
end)

describe("the prompt at a terminal", function()
  local state
  setup(function() state = shell.folder() end)
  teardown(function() shell.remove(state) end)

  --- Types pieces, a moment between them, and returns the screen without control sequences.
  local function type_in(...)
    local line = {}
    for i, piece in ipairs { ... } do line[i] = ("sleep 0.3; printf %s"):format(shell.quote(piece)) end
    local command = ("{ sleep 0.3; %s; sleep 0.3; } | XDG_STATE_HOME=%s TERM=xterm script -qec %s /dev/null"):format(
      table.concat(line, "; "), state, shell.quote(shell.bplua))
    return (shell.run(command).out:gsub("\27%[[%d;?]*%a", ""):gsub("\r", ""))
  end

  -- A container may have no pseudo-terminals; what these tests type then reaches nobody.
  local no_terminal = shell.run("script -qec true /dev/null").code ~= 0 and "skipped: no pseudo-terminal can be opened here" or nil
  local function at_terminal(name, test)
    it(name, function()
      if no_terminal then pending(no_terminal) end
      test()
    end)
  end

  at_terminal("greets, saying that bp is there", function()
    local screen = type_in "\\004"
    assert.match("bplua %d.-\nThe global bp is loaded.-\n> ", screen)
  end)

  at_terminal("gives a line up at Ctrl-C, and stops what runs", function()
    local screen = type_in("xyz", "\\003", "2+2\\n", "while true do end\\n", "\\003", "3+3\\n", "\\004")
    assert.match("\n4\n", screen)
    assert.match("interrupted!", screen)
    assert.match("\n6\n", screen)
    assert.not_match("xyz2", screen)
  end)

  -- What only libedit brings: `make` says whether it was found.
  local editing = shell.run("ldd " .. shell.bplua .. " | grep -c libedit").code == 0
  local edited = editing and at_terminal or pending

  edited("completes names with TAB", function()
    assert.match("\nbbb\n", type_in("strin\\t", ".rep(\"b\", 3)\\n", "\\004"))
  end)

  edited("remembers lines from session to session, in a file only its owner reads", function()
    type_in("'first' .. 'line'\\n", "\\004")
    assert.match("'first' %.%. 'line'\n", shell.read(state .. "/bplua/history"))
    assert.match("^%-rw%-%-%-%-%-%-%-", shell.run("ls -l " .. state .. "/bplua/history").out)
    assert.match("\nfirstline\n", type_in("\\033[A\\n", "\\004"))
  end)
end)

describe("completion", function()
  local env = {
    alpha = { beta = { gamma = 1, gnu = function() end }, _hidden = 1, ["no name"] = 1 },
    object = setmetatable({ own = 1 }, {
      __index = setmetatable({ method = function() end }, { __index = { inherited = function() end } }),
    }),
    loop = {},
    text = "s",
  }
  setmetatable(env.loop, { __index = env.loop })
  local folders = { ["."] = { "data/", "notes.txt", ".hidden" }, ["data/"] = { "iris.csv" } }

  --- Completes the end of a line as if its last word began at `start`.
  local function at(line, start)
    return complete(line, start or #line + 1, env, function(path) return folders[path] end)
  end
  local function words(line)
    local start = line:find "[%w_.:]*$"
    return table.concat(at(line, start), " ")
  end

  it("knows globals and keywords", function()
    assert.equal("alpha and", words "x = a")
    assert.equal("end", words "en")
  end)

  it("walks nested tables", function()
    assert.equal("alpha.beta", words "alpha.")
    assert.equal("alpha.beta.gamma alpha.beta.gnu", words "print(alpha.beta.g")
    assert.equal("alpha._hidden", words "alpha._")
    assert.equal("", words "alpha.nothing.x")
  end)

  it("follows __index, and offers functions alone after a colon", function()
    assert.equal("object.inherited object.method object.own", words "object.")
    assert.equal("object:inherited object:method", words "object:")
    assert.equal("text:rep text:reverse", words "text:re")
    assert.equal("", words "loop.x")
  end)

  it("sees what __pairs shows, and what __methods names where __index is a function", function()
    env.lazy = setmetatable({}, { __pairs = function() return next, { part = { inner = 1 } }, nil end })
    env.opaque = setmetatable({}, { __index = function() error "not to be called" end, __methods = { known = 1 } })
    assert.equal("lazy.part lazy.part.inner", words "lazy." .. " " .. words "lazy.part.")
    assert.equal("opaque.known", words "opaque.")
  end)

  it("offers files inside a string, wherever the editor thinks the word begins", function()
    assert.equal("data/ notes.txt", table.concat(at('open("', 7), " "))
    assert.equal("data/iris.csv", table.concat(at('open("data/i', 7), " "))
    assert.equal("iris.csv", table.concat(at('open("data/i', 12), " "))
    assert.equal(".hidden", table.concat(at("open('.", 7), " "))
    assert.equal("", table.concat(at('open("nowhere/', 7), " "))
  end)

  it("fills up to where the editor begins", function()
    assert.equal("1..alpha", table.concat(at("1..al", 1), ""))
  end)

  it("offers nothing in a comment", function() assert.equal("", words "x = 1 -- al") end)
end)
