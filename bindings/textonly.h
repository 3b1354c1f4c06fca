/* textonly.h - reading source text and nothing else; where require looks for it. */
#ifndef BPLUA_TEXTONLY_H
#define BPLUA_TEXTONLY_H

#include <lua.h>

/* luaL_loadfilex, but a file refused for its mode is named in the message. name NULL: stdin. */
int bplua__load_file(lua_State *L, const char *name, const char *mode);

/* Takes the function on top of the stack into package.searchers, at a position (past the end: at the end). */
void bplua__insert_searcher(lua_State *L, lua_Integer position);

/* Makes require look for bp and bp.* below folder before it looks on package.path, which stays as it is. */
void bplua__search_folder(lua_State *L, const char *folder);

#endif
