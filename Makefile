# Thin on purpose: the work is in dev/ and in the crate.
.DEFAULT_GOAL := help
.PHONY: help demo up down test faults fuzz bench control-plane image fmt clean

PYTHON ?= python3

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Watch a pod get an Azure identity, on a real API server (without a webhook: MODE=policy)
	@MODE='$(MODE)' $(PYTHON) dev/demo.py

up: ## Start the demo's environment and leave it running (MODE=policy: without a webhook; COMPAT=1: with azure-workload-identity's pods)
	@MODE='$(MODE)' $(PYTHON) dev/up.py

down: ## Stop what `make up` started; always safe
	@$(PYTHON) dev/down.py

test: ## Run every test (one lane alone: make test LANE=NAME; one step: python3 dev/test.py --only STEP)
	@$(PYTHON) dev/test.py $(if $(LANE),--lane '$(LANE)')

faults: ## Crash and disturb the controller at every point (one plan alone: make faults PLAN=ID)
	@$(PYTHON) dev/faults.py $(if $(PLAN),--plan '$(PLAN)')

fuzz: ## Send the webhook a million mutated reviews (more: make fuzz RUNS=N)
	@$(PYTHON) dev/fuzz.py $(if $(RUNS),--runs '$(RUNS)')

bench: ## Measure the release build (one part alone: make bench PART=NAME; RUNS=N)
	@$(PYTHON) dev/bench.py $(if $(PART),--only $(PART)) $(if $(RUNS),--runs '$(RUNS)')

control-plane: ## Build the Kubernetes control plane of the tests, unless it is cached
	@$(PYTHON) dev/control_plane.py

image: ## Make the container image in target/image, without a container engine (make image ARCH=arm64)
	@$(PYTHON) dev/image.py $(if $(ARCH),--arch '$(ARCH)')

fmt: ## Format the sources
	@cargo fmt --all
	@cargo fmt --manifest-path fuzz/Cargo.toml
	@gofmt -w tests/control-plane

clean: down ## Remove what was built here; the cache outside the checkout stays
	@cargo clean
