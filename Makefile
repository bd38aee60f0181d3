# make demo   environment, install, main job, result shown
# make test   lint, and the tests of everyday
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Other versions format differently.
CLANG_FORMAT := $(shell command -v clang-format-16 2>/dev/null)
NATIVE := $(wildcard CMakeLists.txt plugins/CMakeLists.txt plugins/*.cmake plugins/windowed_affinity/cpu/* \
  plugins/windowed_affinity/cuda/* \
  plugins/windowed_affinity/onnxruntime/* plugins/windowed_affinity/tensorrt/*)

# Kernels for GPUs take minutes to compile, and the tests compile those that they need. CUDA=ON builds them into the
# installed libraries.
CUDA ?= OFF
BUILD := --no-build-isolation --config-settings=cmake.define.MASKRING_CUDA=$(CUDA)

.PHONY: install demo test test-all test-deep test-lowest test-newest lint typecheck docs bench lock sbom graphs fuzz clean
.DELETE_ON_ERROR:

install: $(STAMP)

# Object files stay in build/, so that the next install compiles what has changed alone.
KEPT := --config-settings=build-dir=build/{wheel_tag}

# LOCKED=1: nothing but the files whose hashes stand in constraints.hashes.txt (Linux, Python 3.11 to 3.13).
ifdef LOCKED
$(STAMP): pyproject.toml constraints.hashes.txt $(NATIVE)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: -r constraints.hashes.txt
	$(BIN)/python -m pip install --quiet $(BUILD) $(KEPT) --no-deps -e .
	@touch $@
else
$(STAMP): pyproject.toml constraints.txt $(NATIVE)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install --quiet -c constraints.txt scikit-build-core nanobind cmake ninja
	$(BIN)/python -m pip install --quiet $(BUILD) $(KEPT) -c constraints.txt -e '.[test]'
	@touch $@
endif

demo: $(STAMP)
	$(BIN)/maskring demo --out demo

# Processes that share the tests, and what else pytest is to be told: make test ARGS='-k drawing'.
WORKERS ?= 2
PYTEST  := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test: lint
	$(PYTEST) $(ARGS)

test-all: lint
	$(PYTEST) -m 'slow or not slow' $(ARGS)

# What `make test` leaves out (docs/testing.md).
test-deep: $(STAMP)
	$(PYTEST) -m slow $(ARGS)

# The base install at the lowest and at the newest versions that pyproject.toml allows.
test-lowest test-newest:
	.ci/versions $(@:test-%=%)

# mypy reads product and benchmarks at once: with settings of their own, either would throw away what it keeps of the other.
BENCHMARKS := $(wildcard bench/*.py)

lint: $(STAMP) typecheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@MYPYPATH=build/typecheck:bench:tests/tools $(BIN)/mypy --package maskring $(BENCHMARKS:bench/%.py=--module %)
ifdef CLANG_FORMAT
	find plugins tests bench -regex '.*\.\(cpp\|hpp\|h\|inl\|cu\|cuh\)' | xargs $(CLANG_FORMAT) --dry-run -Werror
else
	@echo "clang-format-16 is not installed: the style of C++ and CUDA files was not checked"
endif

docs: $(STAMP) typecheck
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Tools that resolve imports by path are shown the package as users import it.
typecheck:
	@rm -rf build/typecheck && mkdir -p build/typecheck/maskring
	@ln -sfn $(CURDIR)/src/maskring/* $(addprefix $(CURDIR)/,common plugins runtime training export) build/typecheck/maskring/

bench: $(STAMP)
	$(BIN)/python bench/affinity.py
	$(BIN)/python bench/step.py
	$(BIN)/python bench/overhead.py

lock: $(STAMP)
	$(BIN)/python .ci/lock.py

sbom: $(STAMP)
	$(BIN)/python .ci/sbom.py

# After a change of the exporter or of a shipped checkpoint: training/weights/*.graph.
graphs: $(STAMP)
	$(BIN)/python -m maskring.export.shipped_graph

# Seconds for each format; what was learnt, and inputs that broke something, stay in build/fuzz.
FUZZ_SECONDS ?= 60
fuzz: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt atheris
	cd tests/tools && ../../$(BIN)/python -m trust.fuzz --seconds $(FUZZ_SECONDS) --corpus ../../build/fuzz

clean:
	rm -rf build demo .pytest_cache .mypy_cache .ruff_cache
