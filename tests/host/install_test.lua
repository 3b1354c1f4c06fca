--- What `make install` leaves works by itself: the command, plain lua5.4, a host built with pkg-config. `make uninstall` leaves nothing.
package.path = "tests/?.lua;" .. package.path
local shell = require "support.shell"

local build = os.getenv "BUILD" or "build/release"
local root = shell.folder()
local passed, failed = 0, 0

local function check(what, ok, detail)
  if ok then
    passed = passed + 1
  else
    failed = failed + 1
    print(("FAILED %s: %s"):format(what, detail or ""))
  end
end

--- Runs a command in the folder `root` (so that nothing of the source tree is near) and compares what it prints.
local function expect(what, command, pattern)
  local r = shell.run(("cd %s && %s"):format(root, command))
  check(what, r.code == 0 and r.out:find(pattern), r.out .. r.err)
end

local prefix = root .. "/opt/nn"
local function make(words) return shell.run(("make --no-print-directory BUILD=%s %s"):format(build, words)) end

local installed = make(("install PREFIX=%s"):format(prefix))
check("make install", installed.code == 0, installed.err)
local staged = make(("install DESTDIR=%s/stage PREFIX=/usr"):format(root))
local tree = shell.run(("cd %s/stage && echo * usr/*"):format(root)).out
check("make install DESTDIR=", staged.code == 0 and tree == "usr usr/bin usr/include usr/lib usr/share\n", staged.err .. tree)

local code = shell.quote "local bp = require 'bp' print(bp.version, bp.tensor{1, 2}:sum():item())"
local source = shell.quote "print(debug.getinfo(require 'bp'.tensor or require 'bp'.seed, 'S').source, package.searchers[2]('bp'))"
local right = "^%d+%.%d+%.%d+\t3"

expect("the command", prefix .. "/bin/bplua -e " .. code, right)
expect("its files are the installed ones", prefix .. "/bin/bplua -e " .. source, "/share/lua/5%.4/bp/init%.lua")
expect("through a link", ("ln -s %s/bin/bplua link && ./link -e %s"):format(prefix, code), right)

-- The sanitizers' run-time must be loaded before anything else, which a plain lua5.4 does not do.
if shell.run(("grep -qaE '__(asan|ubsan)_' %s/lib/lua/5.4/bp/core.so"):format(prefix)).code == 0 then
  print "skipped: require from lua5.4 (the module was built with a sanitizer)"
else
  local paths = "LUA_PATH='P/share/lua/5.4/?.lua;P/share/lua/5.4/?/init.lua' LUA_CPATH='P/lib/lua/5.4/?.so' "
  expect("plain lua5.4", paths:gsub("P/", prefix .. "/") .. "lua5.4 -e " .. code, right)
  expect("the module exports its opener and nothing else",
    ("nm -D --defined-only %s/lib/lua/5.4/bp/core.so | awk '{ printf \"%%s \", $3 }'"):format(prefix), "^luaopen_bp_core $")
  shell.write(root .. "/host.c", [[
    #include <bplua.h>
    #include <lualib.h>
    #include <stdio.h>
    int main(void)
    {
        lua_State *L = luaL_newstate();
        luaL_openlibs(L);
        if (bplua_open(L, NULL) != LUA_OK || luaL_dostring(L, "print(require 'bp'.tensor{1, 2}:sum():item())"))
            fprintf(stderr, "%s\n", lua_tostring(L, -1));
        lua_close(L);
        return 0;
    }]])
  expect("a host, by pkg-config",
    ("export PKG_CONFIG_PATH=%s/lib/pkgconfig && cc host.c -o host $(pkg-config --cflags --libs bplua) && ./host"):format(prefix), "^3")
end

shell.remove(prefix .. "/share")
expect("the command without its files", prefix .. "/bin/bplua -e " .. code, right)

local removed = make(("uninstall PREFIX=%s"):format(prefix))
check("make uninstall", removed.code == 0, removed.err)
check("nothing is left", shell.run(("find %s -type f"):format(prefix)).out == "", shell.run(("find %s -type f"):format(prefix)).out)

shell.remove(root)
print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0)
