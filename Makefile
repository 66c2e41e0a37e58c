# isomoe - `make help` lists the targets.
# MODE=release|sanitize|debug picks the flags; BUILD is where objects go.

MODE  ?= release
BUILD ?= build/$(MODE)
CC    ?= gcc
CXX   ?= g++
AR    ?= ar
PKG    = pkg-config
DATA  ?=
RUN   ?= runs/demo
ONLY  ?=
ifeq ($(origin CC),default)
CC = gcc
endif

PACKAGES = hdf5-serial jansson yaml-0.1 zlib libzstd libxxhash sentencepiece sqlite3 gsl
FLAGS_release  = -O3 -g
FLAGS_debug    = -Og -g
FLAGS_sanitize = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all \
                 -fno-omit-frame-pointer
WARN = -Wall -Wextra -Werror -Wno-psabi
VERSION := $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
# No -ffast-math anywhere: NaN tests must hold. Contraction to FMA only inside device/cpu.
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE -I. -fopenmp -fno-math-errno -ffp-contract=off $(WARN) \
             -Wstrict-prototypes -Wmissing-prototypes $(FLAGS_$(MODE)) \
             $(shell $(PKG) --cflags $(PACKAGES) 2>/dev/null) $(CFLAGS)
ALL_CXXFLAGS = -std=c++17 -I. $(WARN) $(FLAGS_$(MODE)) \
               $(shell $(PKG) --cflags sentencepiece 2>/dev/null) $(CXXFLAGS)
CPU_FLAGS = -ffp-contract=fast -fno-trapping-math -fno-signed-zeros
CMOCKA = -lcmocka
LIBS = -fopenmp $(shell $(PKG) --libs $(PACKAGES) 2>/dev/null) -ldnnl -lstdc++ -lm -lpthread

# The CUDA device: built where nvcc is found (make NVCC= goes without), for CUDA_ARCHS, whose last
# one is kept as PTX too: later GPUs compile that when they first load it.
# cuBLASLt and cuDNN are opened at run time: the program starts where they are not.
CUDA_HOME  ?= /usr/local/cuda
NVCC       ?= $(firstword $(shell command -v nvcc) $(wildcard $(CUDA_HOME)/bin/nvcc))
CUDA_ARCHS ?= 80 90 100
CUDA_SRC    = $(wildcard device/cuda/*.cu)
NVCCFLAGS   = -std=c++20 -O3 -lineinfo -I. -Werror all-warnings -Xcompiler -Wall,-Wextra,-Werror \
              $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) \
              $(foreach a,$(lastword $(CUDA_ARCHS)),-gencode arch=compute_$(a),code=compute_$(a))
CUDA_PART   = $(BUILD)/device/no_cuda.o
ifeq ($(MODE),release)
ifneq ($(NVCC),)
CUDA_PART   = $(CUDA_SRC:%.cu=$(BUILD)/%.o)
LIBS_CUDA   = -L$(dir $(NVCC))../lib64 -lcudart_static -ldl -lrt
endif
endif

# The same .cu files under the emulator of tests/simt, in three ways: SIMT_KINDS. Only they are
# instrumented; the rest of the library is that of this build. (Without -fno-tree-sra an access of
# 16 bytes is seen as four.)
SIMT_KINDS  = plain asan check
SIMT_plain  = -O2
SIMT_asan   = -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
SIMT_check  = -O1 -fsanitize=thread -fno-tree-sra
SIMT_CXXFLAGS = -std=c++20 -g -Itests/simt -I. $(WARN) -Wno-unknown-pragmas -ffp-contract=off \
                -fno-omit-frame-pointer -fstack-clash-protection
# cuDNN's interface is left out: tests/simt/sim_sdpa.cc stands in for sdpa.h.
SIMT_CUDA   = $(filter-out device/cuda/sdpa%.cu,$(CUDA_SRC))
SIMT_SRC    = $(wildcard tests/simt/sim_*.cc)
# Programs that run on the emulated device: contract tests, whole steps, the emulator's own.
SIMT_NOT    = test_ops_checks test_ops_table test_cuda_program
SIMT_OPS    = $(filter-out $(SIMT_NOT),$(patsubst tests/%.c,%,\
              $(wildcard tests/test_ops_*.c tests/test_cuda_*.c)))
SIMT_TESTS  = $(SIMT_OPS) $(patsubst tests/simt/%.cu,%,$(wildcard tests/simt/test_*.cu))

# One object an instruction set for the files of device/cpu, but for cpu.c, which chooses.
ISA_sse4   = -march=x86-64-v2
ISA_avx2   = -march=x86-64-v3
ISA_avx512 = -march=x86-64-v4
ISAS       = sse4 avx2 avx512

CPU_SRC  = $(filter-out device/cpu/cpu.c,$(wildcard device/cpu/*.c))
LIB_SRC  = $(wildcard base/*.c model/*.c optim/*.c data/*.c scaling/*.c comm/*.c) \
           $(filter-out device/no_cuda.c,$(wildcard device/*.c)) \
           device/cpu/cpu.c $(filter-out train/main.c,$(wildcard train/*.c))
CXX_SRC  = $(wildcard data/*.cc)
LIB_OBJ  = $(LIB_SRC:%.c=$(BUILD)/%.o) $(CXX_SRC:%.cc=$(BUILD)/%.o) \
           $(foreach isa,$(ISAS),$(CPU_SRC:device/cpu/%.c=$(BUILD)/device/cpu/$(isa)/%.o))
LIB      = $(BUILD)/libisomoe.a
TEST_SUP = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/ref/*.c))
TESTS    = $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c)) \
           $(BUILD)/tests/test_cudnn_graphs
PROGRAM  = $(BUILD)/isomoe

.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.PRECIOUS: $(BUILD)/%.o
.PHONY: help all run setup test test-sanitize test-long tests-bin simt-bin mutate simt-mutate \
        bench style info golden cuda-table gpu-check clean

help: ## this list
	@echo "isomoe: Mixture-of-Experts pretraining and scaling-law experiments."
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | \
	  awk -F'|' '{ printf "%-22s %s\n", $$1, $$2 }'

all: $(PROGRAM) ## build the program (build/release/isomoe)

run: ## install what is missing, build, prepare a corpus, train, evaluate, sample, report
	@tools/install.sh run
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@PROGRAM=$(PROGRAM) RUN=$(RUN) DATA="$(DATA)" tools/demo.sh

setup: ## install what the tests need
	@tools/install.sh test

test: setup ## build and run the tests (ONLY=name runs one program)
	@$(MAKE) --no-print-directory -j$$(nproc) SIMT_KINDS=plain all tests-bin simt-bin
	@BUILD=$(BUILD) ONLY="$(ONLY)" SIMT_KINDS=plain tools/run_tests.sh

test-sanitize: setup ## the tests under sanitizers; the GPU's kernels under the race checker too
	@$(MAKE) --no-print-directory -j$$(nproc) MODE=sanitize all tests-bin
	@BUILD=build/sanitize ONLY="$(ONLY)" ISOMOE_FAST=1 \
	  ASAN_OPTIONS=allocator_may_return_null=1:$$ASAN_OPTIONS SIMT_KINDS= tools/run_tests.sh
	@$(MAKE) --no-print-directory -j$$(nproc) SIMT_KINDS="asan check" simt-bin
	@BUILD=$(BUILD) ONLY="$(ONLY)" SIMT_KINDS="asan check" SIMT_ONLY=1 tools/run_tests.sh

test-long: setup ## every count that an issue names, real launchers and browser, and the mutants
	@tools/install.sh long || echo "test-long goes on: what needs them is skipped"
	@$(MAKE) --no-print-directory -j$$(nproc) all tests-bin simt-bin
	@BUILD=$(BUILD) ONLY="$(ONLY)" ISOMOE_LONG=1 tools/run_tests.sh
	@python3 tools/check_export.py $(BUILD)
	@BUILD=$(BUILD) tests/launchers/mpi.sh
	@BUILD=$(BUILD) tests/launchers/slurm.sh
	@tools/mutate.sh
	@SIMT_OPS="$(SIMT_OPS)" tools/simt_mutate.sh
	@tests/gpu/prove.sh

simt-mutate: setup ## remove each barrier of the GPU kernels: the race checker must report it
	@SIMT_OPS="$(SIMT_OPS)" tools/simt_mutate.sh $(ONLY)

mutate: setup ## break the code as tests/mutants says: the named test must go red
	@tools/mutate.sh $(ONLY)

bench: ## operations and whole steps beside the machine's ceilings, as text and JSON
	@tools/install.sh run
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/bench/bench_device
	@$(BUILD)/bench/bench_device $(BENCH)

style: ## sizes, include arrows, banned words and calls
	@python3 tools/style.py --selftest
	@python3 tools/style.py

info: $(PROGRAM) ## what this build and machine have, and what is off and why
	@echo "compiler   $$($(CC) --version | head -n 1)"
	@echo "flags      $(FLAGS_$(MODE))"
	@$(PROGRAM) info

golden: ## make tests/golden anew (needs python with tools/golden-requirements.txt)
	python3 tools/make_golden.py --out tests/golden

cuda-table: $(CUDA_PART) ## write docs/GPU_KERNELS.md anew: registers and memory of CUDA kernels
	@python3 tools/cuda_table.py --write $(BUILD)

gpu-check: ## on a GPU: tests, sanitizers, training, benchmark; STAGE=ops|sanitize|train|bench
	@tools/gpu_check.sh $(STAGE)

clean: ## remove build/
	rm -rf build

tests-bin: $(TESTS)

$(PROGRAM): $(BUILD)/train/main.o $(CUDA_PART) $(LIB)
	$(CC) $(FLAGS_$(MODE)) -o $@ $^ $(LIBS) $(LIBS_CUDA) $(LDFLAGS)

$(LIB): $(LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/tests/test_%: $(BUILD)/tests/test_%.o $(TEST_SUP) $(CUDA_PART) $(LIB)
	$(CC) $(FLAGS_$(MODE)) -o $@ $^ $(LIBS) $(LIBS_CUDA) $(CMOCKA) $(LDFLAGS)

# The real cuDNN without a GPU: skips itself where there is none. It loads its driver stand-in from
# a folder of its own.
$(BUILD)/tests/cudnn/%.o: ALL_CFLAGS += -isystem $(CUDA_HOME)/include
$(BUILD)/tests/test_cudnn_graphs: $(BUILD)/tests/cudnn/test_cudnn_graphs.o \
                                  $(BUILD)/tests/cudnn/graph_eval.o $(TEST_SUP) \
                                  $(CUDA_PART) $(LIB) \
                                  | $(BUILD)/tests/fake_cuda/libcuda.so.1
	$(CC) $(FLAGS_$(MODE)) -o $@ $^ $(LIBS) $(LIBS_CUDA) $(CMOCKA) $(LDFLAGS)
$(BUILD)/tests/fake_cuda/libcuda.so.1: tests/cudnn/fake_cuda.c
	@mkdir -p $(dir $@)
	$(CC) -std=gnu11 -O1 $(WARN) -shared -fPIC -Wl,-soname,libcuda.so.1 -o $@ $<

# kind: objects of the CUDA device and of the emulator, programs $(BUILD)/simt/KIND/test_X.
define SIMT_RULE
SIMT_OBJ_$(1) = $$(SIMT_CUDA:%.cu=$$(BUILD)/simt/$(1)/%.o) \
                $$(SIMT_SRC:%.cc=$$(BUILD)/simt/$(1)/%.o)
.PRECIOUS: $(BUILD)/simt/$(1)/%.o $(BUILD)/simt/$(1)/tests/simt/sim_%.o
$(BUILD)/simt/$(1)/%.o: %.cu
	@mkdir -p $$(dir $$@)
	$(CXX) -x c++ $$(SIMT_CXXFLAGS) $$(SIMT_$(1)) -DSIMT_KIND_$(1) -MMD -MP -c -o $$@ $$<
$(BUILD)/simt/$(1)/tests/simt/sim_%.o: tests/simt/sim_%.cc
	@mkdir -p $$(dir $$@)
	$(CXX) $$(SIMT_CXXFLAGS) -O2 -DSIMT_KIND_$(1) -MMD -MP -c -o $$@ $$<
$(BUILD)/simt/$(1)/test_%: $(BUILD)/simt/$(1)/tests/simt/test_%.o $$(SIMT_OBJ_$(1)) $(LIB)
	$(CXX) $$(SIMT_link_$(1)) -o $$@ $$^ $$(LIBS) $(CMOCKA) $$(LDFLAGS)
$(BUILD)/simt/$(1)/test_%: $(BUILD)/tests/test_%.o $$(TEST_SUP) $$(SIMT_OBJ_$(1)) $(LIB)
	$(CXX) $$(SIMT_link_$(1)) -o $$@ $$^ $$(LIBS) $(CMOCKA) $$(LDFLAGS)
$(BUILD)/simt/$(1)/isomoe: $(BUILD)/train/main.o $$(SIMT_OBJ_$(1)) $(LIB)
	$(CXX) $$(SIMT_link_$(1)) -o $$@ $$^ $$(LIBS) $$(LDFLAGS)
endef
SIMT_link_asan = -fsanitize=address,undefined
$(foreach kind,$(SIMT_KINDS),$(eval $(call SIMT_RULE,$(kind))))
simt-bin: $(foreach kind,$(SIMT_KINDS),$(SIMT_TESTS:%=$(BUILD)/simt/$(kind)/%)) \
          $(if $(filter plain,$(SIMT_KINDS)),$(BUILD)/simt/plain/isomoe \
          $(BUILD)/tests/test_cuda_program)

BENCH_OBJ = $(patsubst %.c,$(BUILD)/%.o,$(filter-out bench/bench_gpu.c,$(wildcard bench/*.c)))
$(BUILD)/bench/bench_device: $(BENCH_OBJ) $(CUDA_PART) $(LIB)
	$(CC) $(FLAGS_$(MODE)) -o $@ $^ $(LIBS) $(LIBS_CUDA) $(LDFLAGS)

define ISA_RULE
$(BUILD)/device/cpu/$(1)/%.o: device/cpu/%.c
	@mkdir -p $$(dir $$@)
	$(CC) $$(ALL_CFLAGS) $$(CPU_FLAGS) $(ISA_$(1)) -DCPU_ISA=$(1) -MMD -MP -c -o $$@ $$<
endef
$(foreach isa,$(ISAS),$(eval $(call ISA_RULE,$(isa))))

# The version lives in one object; it is made anew when the commit changes.
$(BUILD)/train/version.o: ALL_CFLAGS += -DISOMOE_VERSION='"$(VERSION)"'
$(BUILD)/train/version.o: $(BUILD)/version.$(VERSION)
$(BUILD)/version.$(VERSION):
	@mkdir -p $(BUILD) && rm -f $(BUILD)/version.* && touch $@

$(BUILD)/%.o: %.c
	@mkdir -p $(dir $@)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# What ptxas says of registers and memory stays beside the object: tools/cuda_table.py reads it.
$(BUILD)/%.o: %.cu
	@mkdir -p $(dir $@)
	$(NVCC) $(NVCCFLAGS) -Xptxas -v -MMD -MP -c -o $@ $< >$(@:.o=.ptxas) 2>&1 || \
	  { cat $(@:.o=.ptxas) >&2; exit 1; }

$(BUILD)/%.o: %.cc
	@mkdir -p $(dir $@)
	$(CXX) $(ALL_CXXFLAGS) -MMD -MP -c -o $@ $<

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
