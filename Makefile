# make demo   set up, train a small PixelRNN on real digits, sample from it: runs/demo/index.html
# make test   set up, then everything that checks the project
# make quick  what a change most likely breaks, in a minute
# make test-torch VERSION=2.14.1   the tests on another PyTorch
# make aarch64   the C++ core on another architecture, under an emulator: the same bits

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
# While C++ is written: ISA=native compiles for this machine alone. WERROR=ON makes warnings of the compiler errors.
ISA ?=
WERROR ?= OFF
DEFINES := GENFAST_ISA=$(ISA);GENFAST_WERROR=$(WERROR)
SOURCES := pyproject.toml CMakeLists.txt constraints.txt README.md LICENSE \
	$(shell find genfast kernels benchmarks csrc -type f -not -path "benchmarks/results/*" -not -name '*.pyc' 2>/dev/null)
PIP := $(BIN)/pip --disable-pip-version-check
CONSTRAINTS ?= constraints.txt

.PHONY: demo test test-torch quick lint docs sanitize bench fuzz kills aarch64 stubs clean

demo: $(VENV)/installed
	$(BIN)/genfast demo --out runs/demo --overwrite $(DEMO_ARGS)

# The tests import the installed package, and fail, not skip, where a native backend is missing. Without a GPU
# Triton cannot serve this process: tests/triton/test_triton.py then interprets and compiles its kernels in others.
REQUIRE = $(shell $(BIN)/python -c 'import torch; print("cpp,triton" if torch.cuda.is_available() else "cpp")')
test: $(VENV)/installed lint
	GENFAST_REQUIRE=$(REQUIRE) OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL) $(PYTEST_ARGS)

# A process of tests for each core, of one thread each: tests of several threads ask for them.
PARALLEL = -n $(JOBS) --dist worksteal

# The same tests on another PyTorch, in an environment of its own; their counts are written into a file of results.
TORCH_VENV = .venv-torch-$(VERSION)
TORCH_BUILD = build/torch-$(VERSION)
test-torch:
	@test -n "$(VERSION)" || { echo "test-torch: VERSION must be that of a PyTorch, as in VERSION=2.14.1"; exit 1; }
	@mkdir -p build
	{ grep -v -E '^(setuptools|torch|triton)==' constraints.txt; echo torch==$(VERSION); } >$(TORCH_BUILD).txt
	$(MAKE) VENV=$(TORCH_VENV) CONSTRAINTS=$(TORCH_BUILD).txt $(TORCH_VENV)/installed
	@rm -f $(TORCH_BUILD).xml
	GENFAST_REQUIRE=cpp OMP_NUM_THREADS=1 $(TORCH_VENV)/bin/pytest $(PARALLEL) --junitxml=$(TORCH_BUILD).xml; \
		status=$$?; $(TORCH_VENV)/bin/python tests/support/torch_versions.py $(TORCH_BUILD).xml && exit $$status

# The package as links to the checkout, with the C++ core for this machine alone: `make quick BASE=HEAD` tests what has
# changed since a commit, which is the one at which the branch left main if none is given.
INPLACE := build/inplace/genfast
QUICK := build/quick
quick:
	@test -x $(BIN)/pytest || $(MAKE) $(VENV)/installed
	@rm -rf $(INPLACE)
	@mkdir -p $(INPLACE) $(QUICK)
	@for entry in genfast/* kernels benchmarks; do ln -sfn $(CURDIR)/$$entry $(INPLACE)/; done
	@test -e $(QUICK)/build.ninja || PATH=$(abspath $(BIN)):$$PATH cmake -S . -B $(QUICK) -G Ninja \
		-DCMAKE_BUILD_TYPE=Release -DGENFAST_ISA=native -DPython_EXECUTABLE=$(abspath $(BIN))/python \
		-Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir) >$(QUICK)/configure.log || \
		{ cat $(QUICK)/configure.log; exit 1; }
	@$(BIN)/ninja -C $(QUICK) --quiet
	@ln -sfn $(CURDIR)/$(QUICK)/_C.*.so $(INPLACE)/
	PYTHONPATH=$(CURDIR)/build/inplace GENFAST_REQUIRE=cpp OMP_NUM_THREADS=1 $(BIN)/python tests/support/quick.py $(BASE)

lint: $(VENV)/installed
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/clang-format --dry-run --Werror $(CPP)
	$(BIN)/mypy --no-error-summary
CPP = $(shell find csrc tests -name '*.h' -o -name '*.cpp')

# The parts of README.md and docs/ that are made of the code and of measured results; then the site, build/site.
docs: $(VENV)/docs
	$(BIN)/python docs/generate.py
	$(BIN)/sphinx-build -q -W --keep-going -b html -d build/doctrees docs build/site
	@echo "build/site/index.html"

$(VENV)/docs: $(VENV)/installed
	$(PIP) install --quiet -c $(CONSTRAINTS) furo myst-parser sphinx
	@touch $@

# What type checkers read of the ops, which the package finds when it is imported.
stubs: $(VENV)/installed
	$(BIN)/python tests/support/stubs.py

bench: $(VENV)/installed
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/sampling.py

# Damaged files through every reader: FUZZ_ARGS="--files 3000 --first 50000" for others, "--only npz --seed 7" for one.
fuzz: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/support/fuzz_files.py --out benchmarks/results/fuzz_files.json $(FUZZ_ARGS)

# Kills commands at every touch of the disk, runs them again, and compares what they leave: 15 minutes on two cores.
kills: $(VENV)/installed
	$(BIN)/python tests/support/kills.py --out benchmarks/results/kills.json $(KILLS_ARGS)

# Calls of every kernel, recorded here, once more on aarch64: needs g++-aarch64-linux-gnu and qemu-user-static.
aarch64: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/support/aarch64.py --out benchmarks/results/aarch64.json

# pip hides the compiler's messages and falls back to pure PyTorch, so the log is kept and the modules asked for. What
# is fetched and compiled shows on the way.
PROGRESS := grep --line-buffered -o -e '\[[0-9]*/[0-9]*\] .*' -e '^ *Collecting [^ ]*' -e '^ *Installing [a-z]*'
$(VENV)/installed: $(VENV)/tools $(SOURCES)
	@mkdir -p build
	@rm -f build/install.failed
	@echo "Installing into $(VENV); the log is build/install.log"
	@{ SKBUILD_BUILD_DIR=build/cmake SKBUILD_CMAKE_DEFINE="$(DEFINES)" $(PIP) install -v --no-build-isolation \
		-c $(CONSTRAINTS) '.[all,test]' 2>&1 || touch build/install.failed; } | tee build/install.log | $(PROGRESS) || true
	@test ! -e build/install.failed || { tail -n 100 build/install.log; exit 1; }
	@cd build && ../$(BIN)/python -c 'import genfast._C, triton' || \
		{ grep -n -A 20 -e 'error' -e 'FAILED' install.log | head -n 100; exit 1; }
	@touch $@

$(VENV)/tools: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c $(CONSTRAINTS) scikit-build-core pybind11 cmake ninja
	@touch $@

# The C++ core once more with AddressSanitizer and UndefinedBehaviorSanitizer, under the tests of the ops.
SANITIZED := build/sanitized
UNDER_SANITIZERS = PYTHONPATH=$(CURDIR)/$(SANITIZED) GENFAST_REQUIRE=cpp OMP_NUM_THREADS=1 \
	LD_PRELOAD="$(shell $(CXX) -print-file-name=libasan.so) $(shell $(CXX) -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0:detect_odr_violation=0 UBSAN_OPTIONS=print_stacktrace=1
sanitize: $(VENV)/installed
	rm -rf $(SANITIZED)
	CXX=$(CXX) SKBUILD_BUILD_DIR=build/cmake-sanitized SKBUILD_CMAKE_DEFINE="GENFAST_SANITIZE=ON;$(DEFINES)" \
		SKBUILD_INSTALL_STRIP=false $(PIP) install --quiet --no-deps --no-build-isolation --target $(SANITIZED) .
	nm -D $(SANITIZED)/genfast/_C*.so | grep -q __ubsan_handle_
	$(UNDER_SANITIZERS) $(BIN)/python tests/support/overflow.py 2>&1 | grep heap-buffer-overflow
	$(UNDER_SANITIZERS) $(BIN)/pytest $(PARALLEL) -p no:cacheprovider -k "cpp and not ($(UNSANITIZED))" $(SANITIZE_TESTS)
	$(UNDER_SANITIZERS) $(BIN)/pytest -p no:cacheprovider -k "plain_torch or known or evidence" tests/engine/test_pixel_program.py
# What looks at a registration, and what runs the same kernels on the same shapes again and again.
UNSANITIZED := compile or graph or opcheck or gradcheck or forward_mode or functional or bad_ or docstring
SANITIZE_TESTS ?= $(wildcard tests/ops/test_every_*.py)

clean:
	rm -rf build $(VENV) runs
