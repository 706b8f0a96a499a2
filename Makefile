# Deliberately thin: the logic is in dev/.
.DEFAULT_GOAL := help
.PHONY: help demo up down test faults fuzz bench control-plane image fmt clean

PYTHON ?= python3

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Watch a pod get an Azure identity, on a real API server (MODE=policy: without a webhook)
	@MODE='$(MODE)' $(PYTHON) dev/demo.py

up: ## Start the demo's environment and leave it running (MODE=policy: without a webhook; COMPAT=1: compatibility mode)
	@MODE='$(MODE)' $(PYTHON) dev/up.py

down: ## Stop the environment that `make up` started; safe to run at any time
	@$(PYTHON) dev/down.py

test: ## Run all tests (one lane: make test LANE=NAME; one step: python3 dev/test.py --only STEP)
	@$(PYTHON) dev/test.py $(if $(LANE),--lane '$(LANE)')

faults: ## Run the fault injection tests and the mutants (one plan: make faults PLAN=ID)
	@$(PYTHON) dev/faults.py $(if $(PLAN),--plan '$(PLAN)')

fuzz: ## Fuzz the webhook with a million mutated admission reviews (more: make fuzz RUNS=N)
	@$(PYTHON) dev/fuzz.py $(if $(RUNS),--runs '$(RUNS)')

bench: ## Benchmark the release build (one part: make bench PART=NAME; RUNS=N)
	@$(PYTHON) dev/bench.py $(if $(PART),--only $(PART)) $(if $(RUNS),--runs '$(RUNS)')

control-plane: ## Build the tests' Kubernetes control plane, unless it is cached
	@$(PYTHON) dev/control_plane.py

image: ## Build the container image in target/image, without a container engine (ARCH=amd64 or arm64)
	@$(PYTHON) dev/image.py $(if $(ARCH),--arch '$(ARCH)')

fmt: ## Format the sources
	@cargo fmt --all
	@cargo fmt --manifest-path fuzz/Cargo.toml
	@gofmt -w tests/control-plane

clean: down ## Remove build output; the cache outside the checkout is kept
	@cargo clean
