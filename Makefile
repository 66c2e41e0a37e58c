# isomoe - `make help` lists the targets.
# MODE=release|sanitize|debug picks the flags; BUILD is where objects go.

MODE  ?= release
BUILD ?= build/$(MODE)
CC    ?= gcc
CXX   ?= g++
AR    ?= ar
PKG    = pkg-config
JOBS  ?= $(shell nproc)
DATA  ?=
RUN   ?= runs/demo
ONLY  ?=

PACKAGES = hdf5-serial jansson yaml-0.1 zlib libzstd libxxhash sentencepiece sqlite3
FLAGS_release  = -O3 -g
FLAGS_debug    = -Og -g
FLAGS_sanitize = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all \
                 -fno-omit-frame-pointer
WARN = -Wall -Wextra -Werror -Wno-psabi
# No -ffast-math anywhere: NaN tests must hold. Contraction to FMA only inside device/cpu.
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE -I. -fopenmp -fno-math-errno -ffp-contract=off $(WARN) \
             -Wstrict-prototypes -Wmissing-prototypes $(FLAGS_$(MODE)) \
             $(shell $(PKG) --cflags $(PACKAGES) 2>/dev/null) $(CFLAGS)
ALL_CXXFLAGS = -std=c++17 -I. $(WARN) $(FLAGS_$(MODE)) \
               $(shell $(PKG) --cflags sentencepiece 2>/dev/null) $(CXXFLAGS)
CPU_FLAGS = -ffp-contract=fast -fno-trapping-math -fno-signed-zeros
LIBS = -fopenmp $(shell $(PKG) --libs $(PACKAGES) 2>/dev/null) -ldnnl -lstdc++ -lm -lpthread

# One object an instruction set for the files of device/cpu, but for cpu.c, which chooses.
ISA_sse4   = -march=x86-64-v2
ISA_avx2   = -march=x86-64-v3
ISA_avx512 = -march=x86-64-v4
ISAS       = sse4 avx2 avx512

CPU_SRC  = $(filter-out device/cpu/cpu.c,$(wildcard device/cpu/*.c))
LIB_SRC  = $(wildcard base/*.c device/*.c model/*.c optim/*.c data/*.c scaling/*.c comm/*.c) \
           device/cpu/cpu.c $(filter-out train/main.c,$(wildcard train/*.c))
CXX_SRC  = $(wildcard data/*.cc)
LIB_OBJ  = $(LIB_SRC:%.c=$(BUILD)/%.o) $(CXX_SRC:%.cc=$(BUILD)/%.o) \
           $(foreach isa,$(ISAS),$(CPU_SRC:device/cpu/%.c=$(BUILD)/device/cpu/$(isa)/%.o))
LIB      = $(BUILD)/libisomoe.a
TEST_SUP = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/ref/*.c))
TESTS    = $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
BENCHES  = $(patsubst bench/%.c,$(BUILD)/bench/%,$(wildcard bench/bench_*.c))
PROGRAM  = $(BUILD)/isomoe
COMMIT   = $(shell git describe --always --dirty 2>/dev/null || echo unknown)

.DEFAULT_GOAL = all
.DELETE_ON_ERROR:
.SECONDARY:

all: $(PROGRAM)

$(PROGRAM): $(BUILD)/train/main.o $(LIB)
	$(CC) $(FLAGS_$(MODE)) -o $@ $^ $(LIBS) $(LDFLAGS)

$(LIB): $(LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/tests/test_%: $(BUILD)/tests/test_%.o $(TEST_SUP) $(LIB)
	$(CC) $(FLAGS_$(MODE)) -o $@ $^ $(LIBS) -lcmocka $(LDFLAGS)

$(BUILD)/bench/bench_%: $(BUILD)/bench/bench_%.o $(LIB)
	$(CC) $(FLAGS_$(MODE)) -o $@ $^ $(LIBS) $(LDFLAGS)

define ISA_RULE
$(BUILD)/device/cpu/$(1)/%.o: device/cpu/%.c
	@mkdir -p $$(dir $$@)
	$(CC) $$(ALL_CFLAGS) $$(CPU_FLAGS) $(ISA_$(1)) -DCPU_ISA=$(1) -MMD -MP -c -o $$@ $$<
endef
$(foreach isa,$(ISAS),$(eval $(call ISA_RULE,$(isa))))

$(BUILD)/%.o: %.c
	@mkdir -p $(dir $@)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/%.o: %.cc
	@mkdir -p $(dir $@)
	$(CXX) $(ALL_CXXFLAGS) -MMD -MP -c -o $@ $<

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

tests-bin: $(TESTS)

clean:
	rm -rf build

.PHONY: all tests-bin clean
