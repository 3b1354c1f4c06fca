std = "lua54"
max_line_length = 140
exclude_files = { "build" }
files["tests/spec"] = { std = "+busted" }
files["**/*_spec.lua"] = { std = "+busted" }
