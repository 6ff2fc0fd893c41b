# SPDX-License-Identifier: Apache-2.0
# demo, search, test, check, bench, gen; each makes the clone ready first (bootstrap).
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTHON := .venv/bin/python
C_FILES = $(shell git ls-files 'device/*.[ch]' 'tests/*.[ch]' 'bench/*.[ch]' ':!device/binding/card_cdef.h')
CMAKE_TESTS = cmake -S device -G Ninja -DCMAKE_BUILD_TYPE=Debug -DTEPI_TESTS=ON

.DEFAULT_GOAL := help
.PHONY: help bootstrap demo search test check bench gen format conformance ctest soak destroy
.PHONY: lint types arrows layout tidy drift sanitize

help:
	@echo "make demo    serve real digits on the card, take it away, bring it back"
	@echo "make search  semantic search with MiniLM, quantized here and served by tepi"
	@echo "make test    C tests and Python tests; ISA=avx2: the card held to an instruction set"
	@echo "make check   formatting, types, arrows between rooms, sanitizers, generated files"
	@echo "make bench   measure kernels, driver, serving and models here; writes docs/performance"
	@echo "make soak    ten minutes of load while the card fails in every way"
	@echo "make destroy interrupt a node's sync 210 times by kill -9 and power cuts"
	@echo "make conformance  count where ONNX's own tests run, into docs/conformance.md"
	@echo "make gen     write the generated files anew (wire/, parts of docs/)"
	@echo "make format  format Python and C"

bootstrap:
	@./bootstrap

demo: bootstrap
	@$(PYTHON) -m examples.digits.demo

search: bootstrap
	@$(PYTHON) -m examples.search.demo

test: bootstrap ctest
	$(PYTHON) -m pytest $(if $(ISA),--isa $(ISA))

ctest: bootstrap
	@$(CMAKE_TESTS) -B build/ctest >build/ctest.log || { cat build/ctest.log; exit 1; }
	cmake --build build/ctest
	ctest --test-dir build/ctest --output-on-failure --no-tests=error

sanitize: bootstrap
	@$(CMAKE_TESTS) -B build/sanitize -DTEPI_SANITIZE=address,undefined >build/sanitize.log || \
		{ cat build/sanitize.log; exit 1; }
	cmake --build build/sanitize
	ctest --test-dir build/sanitize --output-on-failure --no-tests=error

bench: bootstrap
	@cmake -S device -G Ninja -DCMAKE_BUILD_TYPE=Release -DTEPI_BENCH=ON -B build/bench \
		>build/bench.log || { cat build/bench.log; exit 1; }
	@cmake --build build/bench
	@rm -rf build/bench/logs && mkdir -p build/bench/logs
	@for bench in build/bench/bench_*; do [ ! -x "$$bench" ] || \
		{ log=build/bench/logs/$${bench#*bench_}.txt; \
		"$$bench" >"$$log" && cat "$$log"; } || exit 1; done
	@$(PYTHON) -m bench.serving >build/bench/logs/serving.txt && cat build/bench/logs/serving.txt
	@$(PYTHON) -m bench.loading >build/bench/logs/loading.txt && cat build/bench/logs/loading.txt
	@$(PYTHON) -m bench.link >build/bench/logs/link.txt && cat build/bench/logs/link.txt
	@for bench in store delta fill fill_server smp; do $(PYTHON) -m bench.$$bench \
		>build/bench/logs/$$bench.txt && cat build/bench/logs/$$bench.txt || exit 1; done
	@$(PYTHON) -m bench.models --logs build/bench/logs

soak: bootstrap
	$(PYTHON) -m tests.e2e.soak

destroy: bootstrap
	$(PYTHON) -m tests.e2e.destructive

check: lint types arrows layout tidy drift sanitize

lint: bootstrap
	ruff check .
	ruff format --check .

types: bootstrap
	mypy

arrows: bootstrap
	lint-imports

layout: bootstrap
	@echo clang-format
	@clang-format --dry-run -Werror $(C_FILES)

tidy: bootstrap
	$(PYTHON) -m pytest -q tests/test_tidy.py

format: bootstrap
	ruff check --fix .
	ruff format .
	@clang-format -i $(C_FILES)

gen: bootstrap
	$(PYTHON) -m grpc_tools.protoc -Iproto --python_out=. --mypy_out=. \
		$$(cd proto && ls wire/*.proto)
	$(PYTHON) device/abi/datasheet.py
	$(PYTHON) -m edge_server.card.states docs/card-states.md
	$(PYTHON) -m edge_server.sync.states docs/sync-states.md
	$(PYTHON) -m firmware_bridge.update.steps docs/flash-states.md

conformance: bootstrap
	$(PYTHON) -m tests.device.conformance.table

drift: gen
	git diff --exit-code -- wire docs
