# Everything by one word each, over CMake's presets (CMakePresets.json). Each target installs the Debian
# packages that it needs and are missing (scripts/packages.txt).
.PHONY: help build demo test test-quick bench clean
.DEFAULT_GOAL := help

help: ## what the targets do
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the release executable: build/release/exeunt
	@echo "make build: the release executable, build/release/exeunt"
	@scripts/packages build
	@cmake --preset release >/dev/null
	@cmake --build --preset release --target exeunt

demo: ## run the bundled hypervisor, show its VM exits, replay them
	@echo "make demo: the bundled hypervisors on exeunt, their VM exits as a table, and the proof by replay"
	@scripts/packages build
	@cmake --preset fast >/dev/null
	@cmake --build --preset fast --target exeunt guests
	@scripts/demo

test: ## all tests: at most 30 minutes on two cores
	@echo "make test: unit, guest, lint, differential, replay, boot, fuzz and aarch64 tests; at most 30 minutes on two cores"
	@scripts/packages build test cross
	@scripts/test.py

test-quick: ## the two-minute subset of the tests
	@echo "make test-quick: unit, guest and lint tests with sanitizers"
	@scripts/packages build
	@scripts/test.py --quick

bench: ## micro guests on exeunt, QEMU TCG and Bochs, side by side
	@echo "make bench: micro guests on exeunt, QEMU TCG and Bochs side by side; some fifteen minutes"
	@scripts/packages build bench
	@cmake --preset release >/dev/null
	@cmake --build --preset release --target exeunt guests micro_benchmarks
	@build/release/tests/micro_benchmarks
	@scripts/bench.py

clean: ## remove build/
	rm -rf build
