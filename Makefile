# bplua: a neural network runtime in C, scripted in Lua 5.4.
#
#   make demo     install what is missing, build, train on Fashion-MNIST
#   make test     install what is missing, build, run every test
#   make          build;  make help  lists everything
#
# Variables for the command line: CC CXX CFLAGS LDFLAGS PREFIX DESTDIR BUILD LUA EDIT.
# Only make and a shell are needed to read this file: pkg-config is asked when a recipe first needs an answer, never before.

BUILD  ?= build/release
PREFIX ?= /usr/local
CFLAGS ?= -O2 -g
LUA    ?= lua5.4
ARCH   ?= $(shell uname -m)
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
VERSION = $(shell sed -n 's/^.define BP_VERSION "\(.*\)"/\1/p' core/bp.h)

# ---- outside libraries ----------------------------------------------------------------------------------------------

# $(call once,NAME,command): NAME becomes the command's output when first used.
once = $(eval $(1) := $$(shell $(2)))$($(1))

LUA_PC      = $(call once,LUA_PC,for p in lua5.4 lua-5.4 lua54 lua; do pkg-config --exists "$$$$p >= 5.4" 2>/dev/null && echo $$$$p && break; done)
LUA_CFLAGS  = $(call once,LUA_CFLAGS,pkg-config --cflags $(LUA_PC))
LUA_LIBS    = $(call once,LUA_LIBS,pkg-config --libs $(LUA_PC))
LIB_CFLAGS  = $(call once,LIB_CFLAGS,pkg-config --cflags jansson zlib)
LIBS        = $(call once,LIB_LIBS,pkg-config --libs jansson zlib) -lm -pthread
# EDIT=yes or no: line editing in the prompt. Found by itself.
EDIT        = $(call once,EDIT,pkg-config --exists libedit 2>/dev/null && echo yes || echo no)
EDIT_CFLAGS = $(if $(filter yes,$(EDIT)),-DBPLUA_EDIT $(call once,EDIT_CF,pkg-config --cflags libedit))
EDIT_LIBS   = $(if $(filter yes,$(EDIT)),$(call once,EDIT_L,pkg-config --libs libedit))

# ---- sources --------------------------------------------------------------------------------------------------------

KERNEL_SRC := $(filter-out core/kernels/select.c,$(wildcard core/kernels/*.c))
CORE_SRC   := $(filter-out $(KERNEL_SRC),$(wildcard core/*.c core/*/*.c))
CLI_SRC    := $(addprefix bindings/,bplua.c run.c repl.c edit.c)
HOST_SRC   := $(addprefix bindings/,embedded.c textonly.c)
BIND_SRC   := $(filter-out $(CLI_SRC) $(HOST_SRC),$(wildcard bindings/*.c))
LUA_SRC    := $(sort $(shell find lua -name '*.lua'))
TEST_C     := $(wildcard tests/c/test_*.c)
TEST_C_LIB := $(filter-out $(TEST_C),$(wildcard tests/c/*.c))
TEST_HOST  := $(wildcard tests/host/test_*.c)

# Each kernel source is built once for f64 and once per instruction set for f32.
ifneq ($(filter x86_64 amd64,$(ARCH)),)
VARIANTS := f64 f32_baseline f32_avx2 f32_avx512
K_f64          := -DKREAL=double -DKLANES=2 -march=x86-64
K_f32_baseline := -DKREAL=float -DKLANES=4 -march=x86-64
K_f32_avx2     := -DKREAL=float -DKLANES=8 -march=x86-64-v3 -mfma
K_f32_avx512   := -DKREAL=float -DKLANES=16 -march=x86-64-v4 -mprefer-vector-width=512
else
VARIANTS := f64 f32_baseline
K_f64          := -DKREAL=double -DKLANES=2
K_f32_baseline := -DKREAL=float -DKLANES=4
endif
# Fused multiply-add is wanted; nothing else that changes results is. errno and floating-point traps are never looked at.
# The loop of the micro-kernel is a few cache lines of code: where it begins decides how fast it is fetched.
KERNEL_CC     ?= $(CC)
KERNEL_BASE   ?= $(CFLAGS)
KERNEL_CFLAGS := -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math -falign-loops=64

CORE_OBJ   := $(CORE_SRC:%.c=$(BUILD)/%.o) $(foreach v,$(VARIANTS),$(KERNEL_SRC:%.c=$(BUILD)/%.$(v).o))
BIND_OBJ   := $(BIND_SRC:%.c=$(BUILD)/%.o)
HOST_OBJ   := $(HOST_SRC:%.c=$(BUILD)/%.o) $(BUILD)/modules.o
CLI_OBJ    := $(CLI_SRC:%.c=$(BUILD)/%.o)
TEST_BIN   := $(TEST_C:%.c=$(BUILD)/%)
HOST_BIN   := $(TEST_HOST:%.c=$(BUILD)/%) $(TEST_HOST:%.c=$(BUILD)/%_cxx)

WARNINGS   := -Wall -Wextra -Wshadow -Wdouble-promotion -Wundef -Wpointer-arith -Wvla -Wwrite-strings
WARNINGS_C := $(WARNINGS) -Wmissing-prototypes -Wstrict-prototypes
BASE_FLAGS  = -std=gnu11 -fPIC -fvisibility=hidden -pthread -MMD -MP -Icore
COMPILE     = $(CC) $(BASE_FLAGS) $(WARNINGS_C) -Wc++-compat $(CFLAGS)
COMPILE_TEST = $(CC) $(BASE_FLAGS) $(WARNINGS_C) $(CFLAGS)

# make V=1 shows whole commands.
Q    := $(if $(V),,@)
show  = @$(if $(V),true,printf '  %-5s %s\n' $(1) $@)

# ---- products -------------------------------------------------------------------------------------------------------

PRODUCTS := $(BUILD)/libbp.a $(BUILD)/libbplua.a $(BUILD)/bplua $(BUILD)/bp/core.so

.PHONY: all build
all: build	## build the library, the module and ./bplua (the default)
	@printf 'built %s\n' "$(PRODUCTS)"
	@printf '  %-10s %-10s %s\n' 'optional' 'found' 'without it' 'libedit' '$(EDIT)' 'no history and no completion at the prompt'
	@echo 'next: ./bplua scripts/train_fashion.lua, or make test; make help lists the rest'

build: $(PRODUCTS) $(if $(filter build/release,$(BUILD)),bplua)

# So that ./bplua works in the tree, whatever variants there are.
bplua: build/release/bplua
	@ln -sf $< $@

$(BUILD)/libbp.a: $(CORE_OBJ)
$(BUILD)/libbplua.a: $(CORE_OBJ) $(BIND_OBJ) $(HOST_OBJ)
%.a:
	@mkdir -p $(@D)
	@rm -f $@
	$(call show,AR)
	$(Q)$(AR) qcs $@ $^

$(BUILD)/bplua: $(CLI_OBJ) $(BUILD)/libbplua.a
	$(call show,LINK)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LUA_LIBS) $(EDIT_LIBS) $(LIBS)

# For a plain lua5.4: has no Lua inside, takes it from the program that loads it.
$(BUILD)/bp/core.so: $(BIND_OBJ) $(BUILD)/libbp.a
	@mkdir -p $(@D)
	$(call show,LINK)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -shared -o $@ $^ $(LIBS)

$(BUILD)/core/%.o: core/%.c
	@mkdir -p $(@D)
	$(call show,CC)
	$(Q)$(COMPILE) $(LIB_CFLAGS) -c -o $@ $<

$(BUILD)/bindings/%.o: bindings/%.c
	@mkdir -p $(@D)
	$(call show,CC)
	$(Q)$(COMPILE) $(LUA_CFLAGS) $(if $(filter %/edit.c,$<),$(EDIT_CFLAGS)) -c -o $@ $<

define kernel_rule
$$(BUILD)/core/kernels/%.$(1).o: core/kernels/%.c
	@mkdir -p $$(@D)
	$$(call show,CC)
	$$(Q)$$(KERNEL_CC) $$(BASE_FLAGS) $$(WARNINGS_C) $$(KERNEL_BASE) $$(KERNEL_CFLAGS) $$(K_$(1)) -DKBUILD=$(1) -c -o $$@ $$<
endef
$(foreach v,$(VARIANTS),$(eval $(call kernel_rule,$(v))))

# The Lua part as a C table. The list of files is a prerequisite too, so that a removed file leaves the table.
$(BUILD)/modules.list: FORCE
	@mkdir -p $(@D)
	@echo '$(LUA_SRC)' | cmp -s - $@ || echo '$(LUA_SRC)' > $@
$(BUILD)/modules.c: bindings/embed.lua $(BUILD)/modules.list $(LUA_SRC)
	$(call show,EMBED)
	$(Q)$(LUA) bindings/embed.lua $@ $(LUA_SRC)
$(BUILD)/modules.o: $(BUILD)/modules.c
	$(call show,CC)
	$(Q)$(COMPILE) $(LUA_CFLAGS) -Ibindings -c -o $@ $<

.PHONY: FORCE
FORCE:

# Objects that only a pattern rule asked for are kept.
.SECONDARY:

# ---- tests ----------------------------------------------------------------------------------------------------------

# A C test is one file, linked with libbp.a (and the helpers beside it); it may look behind bp.h.
$(BUILD)/tests/c/%: tests/c/%.c $(TEST_C_LIB:%.c=$(BUILD)/%.o) $(BUILD)/libbp.a
	@mkdir -p $(@D)
	$(call show,CC)
	$(Q)$(COMPILE_TEST) $(LDFLAGS) -o $@ $(filter %.c %.o %.a,$^) $(LIBS)
$(BUILD)/tests/c/%.o: tests/c/%.c
	@mkdir -p $(@D)
	$(call show,CC)
	$(Q)$(COMPILE_TEST) -c -o $@ $<

# A host program is compiled as C and again as C++, and sees nothing but what is installed.
$(BUILD)/tests/host/%: tests/host/%.c $(BUILD)/libbplua.a
	@mkdir -p $(@D)
	$(call show,CC)
	$(Q)$(COMPILE) -Ibindings $(LUA_CFLAGS) $(LDFLAGS) -o $@ $< $(BUILD)/libbplua.a $(LUA_LIBS) $(LIBS)
$(BUILD)/tests/host/%_cxx: tests/host/%.c $(BUILD)/libbplua.a
	@mkdir -p $(@D)
	$(call show,CXX)
	$(Q)$(CXX) -std=c++11 -x c++ $(WARNINGS) -pthread -MMD -MP -Icore -Ibindings $(LUA_CFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< -x none $(BUILD)/libbplua.a $(LUA_LIBS) $(LIBS)

RUN_TESTS = BUILD=$(BUILD) $(LUA) tests/run.lua

.PHONY: test test-c test-lua test-scripts test-embed test-long
test:	## install what is missing, build, run every test; ends with one line: N passed, N failed
	@.ci/install-packages build test
	@$(MAKE) -j$(JOBS) --no-print-directory build test-programs
	@$(RUN_TESTS) c lua scripts embed

.PHONY: test-programs bench-programs
test-programs: $(TEST_BIN) $(HOST_BIN)

test-c: $(TEST_BIN)	## the tests written in C
	@$(RUN_TESTS) c
test-lua: build	## the busted specs, run by bplua itself
	@$(RUN_TESTS) lua
test-scripts: build	## what is in scripts/, and the code in the documentation
	@$(RUN_TESTS) scripts
test-embed: build $(HOST_BIN)	## host programs in C and C++, installing, require from a plain lua5.4
	@$(RUN_TESTS) embed
test-long: build test-programs	## the tests that take minutes
	@$(RUN_TESTS) long

# The whole suite once more under each of these. The leak checker is on.
.PHONY: asan ubsan valgrind gcstress
asan:	## the suite under the address and leak sanitizers
	@$(MAKE) -j$(JOBS) --no-print-directory BUILD=build/asan CFLAGS='-O1 -g -fsanitize=address -fno-omit-frame-pointer' build test-programs
	@ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:allocator_may_return_null=1 BUILD=build/asan $(LUA) tests/run.lua c lua scripts embed
ubsan:	## the suite under the undefined-behaviour sanitizer
	@$(MAKE) -j$(JOBS) --no-print-directory BUILD=build/ubsan CFLAGS='-O1 -g -fsanitize=undefined -fno-sanitize-recover=all' build test-programs
	@UBSAN_OPTIONS=print_stacktrace=1 BUILD=build/ubsan $(LUA) tests/run.lua c lua scripts embed
valgrind: build test-programs	## the C tests, specs and hosts under valgrind
	@WRAP='valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite,possible' BP_ISA=avx2 $(RUN_TESTS) c lua embed

# Every reader of files under libFuzzer and the address sanitizer (the kernels, which are gcc's, without); inputs that were found are kept in build/fuzz/corpus.
FUZZ_CC      ?= $(shell command -v clang || command -v clang-14)
FUZZ_TIME    ?= 60
FUZZ_FORMATS ?= safetensors idx csv gzip json png jpeg bmp
FUZZ_FLAGS   := -O1 -g -fno-omit-frame-pointer
.PHONY: fuzz
fuzz: build	## mutated files against every reader, FUZZ_TIME=60 seconds a format (FUZZ_FORMATS=...); needs clang
	@test -n "$(FUZZ_CC)" || { echo 'fuzz: NOT RUN: it needs clang with libFuzzer and the address sanitizer: apt-get install clang'; exit 1; }
	@$(MAKE) -j$(JOBS) --no-print-directory BUILD=build/fuzz CC='$(FUZZ_CC)' KERNEL_CC='$(CC)' KERNEL_BASE='$(CFLAGS)' WARNINGS=-w WARNINGS_C=-w \
	  CFLAGS='$(FUZZ_FLAGS) -fsanitize=address,fuzzer-no-link' build/fuzz/libbp.a
	@$(FUZZ_CC) -std=gnu11 $(FUZZ_FLAGS) -fsanitize=address,fuzzer -Icore -o build/fuzz/fuzz tests/fuzz/fuzz.c build/fuzz/libbp.a $(LIBS)
	@build/release/bplua tests/fuzz/seeds.lua build/fuzz/seeds
	@for f in $(FUZZ_FORMATS); do \
	  mkdir -p build/fuzz/corpus/$$f; echo "fuzz: $$f"; \
	  BP_FUZZ=$$f build/fuzz/fuzz -max_total_time=$(FUZZ_TIME) -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
	    -artifact_prefix=build/fuzz/$$f- build/fuzz/corpus/$$f build/fuzz/seeds/$$f 2>&1 | grep -E 'stat::(number_of_executed|peak_rss)|ERROR|SUMMARY|fuzz:|artifact|^ *#[0-9]' ; \
	  test -z "$$(ls build/fuzz/$$f-* 2>/dev/null)" || { echo "fuzz: $$f: FAILED; the inputs are build/fuzz/$$f-*"; exit 1; }; \
	done; echo 'fuzz: nothing found'

gcstress: build	## the specs with a collector that never rests
	@LUA_INIT='collectgarbage("setpause", 0) collectgarbage("setstepmul", 400)' $(RUN_TESTS) lua

# ---- checks ---------------------------------------------------------------------------------------------------------

C_FILES = $(sort $(wildcard core/*.[ch] core/*/*.[ch] bindings/*.[ch] tests/c/*.[ch] tests/host/*.[ch] tests/fuzz/*.[ch]))

.PHONY: check check-docs format
check:	## warnings as errors, luacheck, format, who includes whom, sizes, documentation
	@.ci/install-packages build check
	@$(MAKE) -j$(JOBS) --no-print-directory BUILD=build/werror CFLAGS='-O2 -g -Werror' build test-programs bench-programs
	luacheck -q .
	$(LUA) tests/check/format.lua $(C_FILES)
	$(LUA) tests/check/includes.lua
	$(LUA) tests/check/sizes.lua
	$(LUA) tests/check/tile.lua build/werror
	@$(MAKE) --no-print-directory build check-docs

format:	## lay out the C sources as .clang-format says
	$(LUA) tests/check/format.lua --fix $(C_FILES)

# ---- documentation and measurements ---------------------------------------------------------------------------------

.PHONY: docs bench bench-sweep bench-kernels bench-quick bench-peers
docs: build	## write docs/reference from the comments, the option tables and the op table
	$(BUILD)/bplua docs/generate.lua
check-docs: build
	$(BUILD)/bplua docs/generate.lua --check

BENCH_BIN := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/bench/*.c))
$(BUILD)/tests/bench/%: tests/bench/%.c $(BUILD)/libbp.a
	@mkdir -p $(@D)
	$(call show,CC)
	$(Q)$(COMPILE_TEST) $(LDFLAGS) -o $@ $< $(BUILD)/libbp.a $(LIBS) -ldl

bench-programs: $(BENCH_BIN)
bench: build bench-programs	## speed beside the peers that make bench-peers has installed; BENCH_FLAGS="--rounds 3 cnn_mnist", --list
	@$(BUILD)/bplua tests/bench/run.lua $(BENCH_FLAGS)
bench-sweep: build bench-programs	## single layers of many shapes beside PyTorch
	@$(BUILD)/bplua tests/bench/run.lua --sweep --peers torch $(BENCH_FLAGS)
bench-kernels: build bench-programs	## products and convolutions against the peak of one core, and OpenBLAS
	@$(BUILD)/tests/bench/kernels
bench-quick: build	## instructions per step against tests/bench/baseline.lua: fails where they grew by more than a quarter
	@$(BUILD)/bplua tests/bench/quick.lua
bench-peers:	## install PyTorch, TensorFlow, JAX, onnxruntime and KANN in $$BP_PEERS (3 GB, outside the tree)
	@tests/bench/peers.sh

.PHONY: demo
demo:	## install what is missing, build, train the convolutional net on Fashion-MNIST
	@.ci/install-packages build demo
	@$(MAKE) -j$(JOBS) --no-print-directory build
	./bplua scripts/train_fashion.lua

# ---- installing -----------------------------------------------------------------------------------------------------

BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCDIR ?= $(PREFIX)/include
LMOD   ?= $(PREFIX)/share/lua/5.4
CMOD   ?= $(PREFIX)/lib/lua/5.4

.PHONY: install uninstall clean help
install: build	## copy to DESTDIR and PREFIX (/usr/local)
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCDIR) $(DESTDIR)$(CMOD)/bp
	install -m 755 $(BUILD)/bplua $(DESTDIR)$(BINDIR)/bplua
	install -m 755 $(BUILD)/bp/core.so $(DESTDIR)$(CMOD)/bp/core.so
	install -m 644 $(BUILD)/libbp.a $(BUILD)/libbplua.a $(DESTDIR)$(LIBDIR)
	install -m 644 core/bp*.h bindings/bplua.h $(DESTDIR)$(INCDIR)
	@for f in $(LUA_SRC:lua/%=%); do install -D -m 644 lua/$$f $(DESTDIR)$(LMOD)/$$f || exit 1; done
	@printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$(INCDIR)' '' 'Name: bplua' \
	  'Description: neural networks in C, scripted in Lua' 'Version: $(VERSION)' 'Requires: $(LUA_PC)' 'Requires.private: jansson zlib' \
	  'Cflags: -I$${includedir}' 'Libs: -L$${libdir} -lbplua $(LIBS)' > $(DESTDIR)$(LIBDIR)/pkgconfig/bplua.pc
	@echo 'installed in $(DESTDIR)$(PREFIX)'

uninstall:	## remove what install copied
	rm -f $(DESTDIR)$(BINDIR)/bplua $(DESTDIR)$(LIBDIR)/libbp.a $(DESTDIR)$(LIBDIR)/libbplua.a
	rm -f $(patsubst core/%,$(DESTDIR)$(INCDIR)/%,$(wildcard core/bp*.h)) $(DESTDIR)$(INCDIR)/bplua.h $(DESTDIR)$(LIBDIR)/pkgconfig/bplua.pc
	rm -rf $(DESTDIR)$(LMOD)/bp $(DESTDIR)$(CMOD)/bp

clean:	## remove everything that was built
	rm -rf build bplua

help:	## list these targets
	@sed -n 's/^\([a-z-]*\):[^\t]*\t## \(.*\)/\1\t\2/p' Makefile | awk -F '\t' '{ printf "  make %-14s %s\n", $$1, $$2 }'

-include $(CORE_OBJ:.o=.d) $(BIND_OBJ:.o=.d) $(HOST_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(TEST_BIN:=.d) $(HOST_BIN:=.d) $(TEST_C_LIB:%.c=$(BUILD)/%.d) $(BENCH_BIN:=.d)
