--- The command line: what lua 5.4 does, and what is bplua's own.
local shell = require "support.shell"

local function out(...) return shell.lua({ ... }).out end

describe("bplua", function()
  local folder
  setup(function() folder = shell.folder() end)
  teardown(function() shell.remove(folder) end)

  local function file(name, text)
    local path = folder .. "/" .. name
    shell.write(path, text)
    return path
  end

  describe("options", function()
    it("-e runs code, in the order given, with and without a space", function()
      assert.equal("1\n2\n", out("-e", "print(1)", "-eprint(2)"))
    end)

    it("-l requires a module into a global", function()
      assert.equal("aa\n", out("-l", "s=string", "-e", "print(s.rep('a', 2))"))
      local path = file("mod.lua", "return { x = 7 }")
      local r = shell.run(("cd %s && %s -lmod -e 'print(mod.x)'"):format(folder, shell.run("realpath " .. shell.bplua).out:gsub("\n", "")))
      assert.equal("7\n", r.out, path .. r.err)
    end)

    it("-W turns warnings on; they are off before", function()
      assert.equal("", shell.lua({ "-e", "warn 'careful'" }).err)
      assert.equal("Lua warning: careful\n", shell.lua({ "-W", "-e", "warn 'careful'" }).err)
    end)

    it("-v states versions, kernels and threads", function()
      assert.match("^bplua %d+%.%d+%.%d+ %(Lua 5%.4%.%d+, kernels [%w_]+, %d+ threads%)\n$", out "-v")
    end)

    it("LUA_INIT runs first, LUA_INIT_5_4 before it, @file from a file; -E ignores both", function()
      local b, code = shell.bplua, " -e 'print(x)'"
      assert.equal("1\n", shell.run("LUA_INIT='x = 1' " .. b .. code).out)
      assert.equal("2\n", shell.run("LUA_INIT='x = 1' LUA_INIT_5_4='x = 2' " .. b .. code).out)
      assert.equal("3\n", shell.run(("LUA_INIT=@%s "):format(file("init.lua", "x = 3")) .. b .. code).out)
      assert.equal("nil\n", shell.run("LUA_INIT='x = 1' LUA_PATH=nowhere " .. b .. " -E" .. code).out)
      assert.equal(1, shell.run("LUA_INIT='error()' " .. b .. code).code)
    end)

    it("refuses what it does not know", function()
      for _, words in ipairs { { "-x" }, { "-ix" }, { "--nosuch" }, { "-e" }, { "-l" } } do
        local r = shell.lua(words)
        assert.equal(1, r.code)
        assert.match("usage: bplua", r.err)
        assert.equal("", r.out)
      end
    end)
  end)

  describe("scripts", function()
    it("get arguments and arg, with what came before at negative indices", function()
      local path = file("args.lua", "print(#arg, arg[0] == ..., select('#', ...)) print(arg[-1], arg[1], arg[2], arg[3])")
      local r = shell.lua { "-W", path, path, "-e", "x y" }
      assert.equal("3\ttrue\t3\n-W\t" .. path .. "\t-e\tx y\n", r.out)
    end)

    it("may begin with #!", function()
      assert.equal("ok\n", out(file("bang.lua", "#!/usr/bin/env bplua\nprint 'ok'\n")))
    end)

    it("come from standard input for '-' and when there is none", function()
      assert.equal("a\n", shell.lua({ "-", "a" }, "print(...)").out)
      assert.equal("piped\n", shell.lua({}, "print 'piped'").out)
    end)

    it("after '--' may have any name", function()
      assert.match("cannot open %-x", shell.lua({ "--", "-x" }).err)
      assert.match("cannot open help", shell.lua({ "--", "help" }).err)
    end)

    it("fail with a message and a traceback on stderr, and status 1", function()
      local r = shell.lua { file("fails.lua", "local function f()\n  error 'no luck'\nend\nf()\n") }
      assert.equal(1, r.code)
      assert.equal("", r.out)
      assert.match("bplua: .*fails%.lua:2: no luck\nstack traceback:\n.*fails%.lua:4: in main chunk", r.err)
    end)

    it("show error objects by their __tostring", function()
      local r = shell.lua { "-e", "error(setmetatable({}, { __tostring = function() return 'an object' end }))" }
      assert.match(": an object\n$", r.err)
      assert.match("%(error object is a table value%)", shell.lua({ "-e", "error {}" }).err)
      assert.match("%(error object is a nil value%)", shell.lua({ "-e", "error()" }).err)
    end)

    it("set the exit status", function()
      assert.equal(7, shell.lua({ "-e", "os.exit(7)" }).code)
      assert.equal(0, shell.lua({ "-e", "os.exit(true, true)" }).code)
      assert.equal(1, shell.lua({ folder .. "/missing.lua" }).code)
    end)

    it("are interrupted by SIGINT: an error in Lua, and status 130", function()
      local wait = "sleep 0.3; kill -INT $! ; wait $!"
      local r = shell.run(("set -m; %s -e 'while true do end' & %s"):format(shell.bplua, wait))
      assert.equal(130, r.code)
      assert.match("interrupted!\nstack traceback", r.err)
      r = shell.run(("set -m; %s -e 'print(pcall(function() while true do end end))' & %s"):format(shell.bplua, wait))
      assert.equal(0, r.code)
      assert.match("false\t.*interrupted!", r.out)
    end)
  end)

  describe("loads text only", function()
    local bytecode
    setup(function() bytecode = file("code.lua", string.dump(function() return 1 end)) end)

    it("as a script, from stdin, by dofile, loadfile, load and require", function()
      local refused = "attempt to load a binary chunk"
      local path = ("package.path = %q; "):format(folder .. "/?.lua")
      assert.match("code%.lua: " .. refused, shell.lua({ bytecode }).err)
      assert.match(refused, shell.lua({ "-" }, shell.read(bytecode)).err)
      assert.match("code%.lua: " .. refused, shell.lua({ "-e", ("dofile %q"):format(bytecode) }).err)
      assert.match("code%.lua: " .. refused, shell.lua({ "-e", path .. "require 'code'" }).err)
      assert.match("code%.lua: " .. refused, out("-e", ("print(loadfile(%q, 'bt'))"):format(bytecode)))
      for _, mode in ipairs { "nil", "'b'", "'bt'", "'t'" } do
        assert.match("nil\t.*" .. refused, out("-e", ("print(load(string.dump(print and function() end), 'x', %s))"):format(mode)))
        assert.match("nil\t.*" .. refused, out("-e", ([[
          local pieces, i = { string.dump(function() end) }, 0
          print(load(function() i = i + 1 return pieces[i] end, 'x', %s))]]):format(mode)))
      end
    end)

    it("and keeps the manners of Lua's own functions", function()
      local code = [[
        print(load("return a", "=name", "t", { a = 1 })())
        print(load("return ...", "=name")(2))
        print(load("return =", "=name"))
        local pieces, i = { "return ", "3", "" }, 0
        print(load(function() i = i + 1 return pieces[i] end)())
        print(pcall(load(function() error "from the reader" end) or error))
        print(select("#", load("x =")))
        print(pcall(load))
        print(pcall(load, {}))
        print(load(function() return {} end))
        print(load("return 1", "x", "b"))
        print(loadfile("/nonexistent"))
      ]]
      local ours, theirs = out("-e", code), shell.run("lua5.4 -e " .. shell.quote(code)).out
      -- lua5.4 says "mode is 'b'": the one difference.
      assert.equal(theirs:gsub("%(mode is 'b'%)", "(mode is '')"), ours)
      local path = file("value.lua", "return x, ...")
      assert.equal("5\tnil\n", out("-e", ("print(loadfile(%q, 't', { x = 5 })(nil))"):format(path)))
      assert.equal("6\n", out("-e", ("x = 6 print((dofile(%q)))"):format(path)))
    end)

    it("lets a file that dofile runs yield", function()
      local path = file("yields.lua", "return coroutine.yield(1) + 1")
      assert.equal("true\t1\ttrue\t3\n", out("-e", ([[
        local co = coroutine.create(function() return dofile(%q) end)
        local a, b = coroutine.resume(co)
        print(a, b, coroutine.resume(co, 2))]]):format(path)))
    end)
  end)

  describe("subcommands", function()
    it("help prints the usage", function()
      local r = shell.lua { "help" }
      assert.equal(0, r.code)
      assert.match("^usage: bplua", r.out)
      assert.equal(r.out, out "--help")
    end)

    it("give way to a file of that name, except behind --", function()
      shell.write(folder .. "/help", "print 'my own'")
      local b = shell.run("realpath " .. shell.bplua).out:gsub("\n", "")
      assert.equal("my own\n", shell.run(("cd %s && %s help"):format(folder, b)).out)
      assert.match("^usage", shell.run(("cd %s && %s --help"):format(folder, b)).out)
    end)

    it("help NAME tells what is known of layers, ops and functions, or the nearest name", function()
      assert.match("^dense: .-\noptions\n  units +%S.-\n +a whole number at least 1; required\n", out("help", "bp.nn.dense"))
      assert.match("^bp%.ops%.softmax%(x, {options}%): .-\n  axis +", out("help", "softmax"))
      assert.match("^bp%.seed%(seed%)\n%S", out("help", "bp.seed"))
      assert.match("^bp%.nn holds\n.*dense", out("help", "bp.nn"))
      local r = shell.lua { "help", "sofmax" }
      assert.equal(1, r.code)
      assert.match("no help for 'sofmax' %(did you mean 'softmax'%?%)", r.err)
    end)

    it("inspect shows tensors, metadata and the net of a file", function()
      local path = folder .. "/model.safetensors"
      local made = shell.lua { "-e", ([[
        local bp = require "bp"
        local net = bp.nn.sequential{ bp.nn.dense(4), bp.nn.dense(1) }
        net(bp.zeros(1, 3))
        assert(net:save(%q))]]):format(path) }
      assert.equal("", made.err)
      local r = shell.lua { "inspect", path }
      assert.equal("", r.err)
      assert.match("f32 +%[3%]%[4%]", r.out)
      assert.match("\n4 tensors, 21 numbers\nmetadata\n", r.out)
      assert.match("bplua%.model: {", r.out)
      assert.match("dense", r.out:match "metadata.*")
    end)

    it("inspect refuses what is not such a file in one line, with status 1", function()
      local r = shell.lua { "inspect", file("not.safetensors", "hello") }
      assert.equal(1, r.code)
      assert.match("^%S*bplua: .*not%.safetensors[^\n]*\n$", r.err)
      assert.match("inspect: expected a file", shell.lua({ "inspect" }).err)
    end)

    it("list ops names every op once", function()
      local seen, n = {}, 0
      for name in out("--list", "ops"):gmatch "[^\n]+" do
        assert.is_nil(seen[name])
        seen[name], n = true, n + 1
      end
      assert.is_true(seen.matmul and n > 30)
    end)
  end)
end)
