--- `bplua help`, `bplua help NAME`.

local usage = [==[
usage: bplua [options] [script [arguments]]
       bplua help [NAME]       this page, or what the manual says of a name: bplua help bp.nn.dense
       bplua inspect FILE      what a saved model or any .safetensors file holds
       bplua list ops          the names of all operations

Options, as in lua 5.4:
  -e code     run the code
  -l module   require the module into a global of its name; -l g=module into the global g
  -i          go on at the prompt after the script
  -v          say the version
  -W          show warnings
  -E          ignore the environment (LUA_INIT, LUA_PATH, ...)
  --resume    every model:fit with callbacks.checkpoint goes on from its newest sound checkpoint, if there is one
  --          the options end here, and the next word is a script
  -           the script comes from standard input
With neither script nor -e nor -v: the prompt, or at the end of a pipe the script that comes through it.
A first word without dot or slash is a subcommand, unless a file is called so; `bplua --inspect FILE` is always the subcommand.

Environment:
  LUA_INIT_5_4, LUA_INIT   code (or @file) to run first
  XDG_STATE_HOME           bplua/history in this folder keeps what was typed at the prompt (~/.local/state)
  BP_ISA                   instruction set of the kernels: baseline, avx2 or avx512

Programs are loaded as source text only, never as bytecode. Status: 0 done, 1 failed, 130 interrupted
(143 by SIGTERM): a training finishes its batch and saves its checkpoint before; a second Ctrl-C ends it at once.
]==]

--- Prints the usage, or the help of one name.
-- @param name string|nil
-- @return nil, message for a name without help
return function(name)
  if not name then
    io.write(usage)
    return 0
  end
  local text, message = require "bp".help(name)
  if not text then return nil, message or ("no help for '%s'"):format(name) end
  io.write(text, "\n")
  return 0
end
