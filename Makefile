# Needs make, git and Python 3.11 or later with its venv module; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
WORKERS ?= 2
VLLM ?= cpu

# pip arguments that name the torch to install, e.g. TORCH="torch==2.13.0 --index-url ADDRESS" with the CPU or CUDA index
# that PyTorch's site names. What was given is kept in the environment for later calls.
TORCH ?= $(shell cat $(VENV)/torch.txt 2>/dev/null)
export TORCH

SET_UP := PYTHON="$(PYTHON)" .ci/set-up $(VENV)

.PHONY: help demo up down test test-services lint bench acknowledge chaos parity vllm test-vllm vllm-extra clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## train small models on puzzles, then on relevance with labels and a student (variables PROFILE, STORE, PREFECT_PORT, MLFLOW_PORT, JSON)
	@$(SET_UP) pipeline,s3
	@$(VENV)/bin/agpo demo $(if $(PROFILE),--profile "$(PROFILE)") $(if $(STORE),--store "$(STORE)") $(if $(JSON),--json "$(JSON)") \
		$(if $(PREFECT_PORT),--prefect-port "$(PREFECT_PORT)") $(if $(MLFLOW_PORT),--mlflow-port "$(MLFLOW_PORT)")

up: ## start Prefect, MLflow and a worker, and deploy all flows (variables PREFECT_PORT, MLFLOW_PORT)
	@$(SET_UP) pipeline,s3
	@$(VENV)/bin/agpo up $(if $(PREFECT_PORT),--prefect-port "$(PREFECT_PORT)") \
		$(if $(MLFLOW_PORT),--mlflow-port "$(MLFLOW_PORT)")

down: ## end what `make up` has started
	@$(SET_UP) pipeline,s3
	@$(VENV)/bin/agpo down

test: ## run the tests (variables WORKERS, ARGS="-k journal")
	@$(SET_UP) pipeline,s3,dev
	@$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-services: vllm ## run flows through their deployments, on real servers, and the engine on vLLM itself
	@$(SET_UP) pipeline,s3,dev
	@$(VENV)/bin/python -m pytest -m "services or vllm" tests/services tests/services_vllm $(ARGS)

lint: ## check style, types and import contracts
	@$(SET_UP) pipeline,s3,dev
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

bench: ## measure the hot paths and print figures
	@$(SET_UP) pipeline,s3,dev
	@$(VENV)/bin/python -m pytest -m bench -s $(ARGS)

chaos: ## kill training runs at random points, many times
	@$(SET_UP) pipeline,s3,dev
	@$(VENV)/bin/python -m pytest -m chaos $(ARGS)

parity: $(VENV)-parity/installed ## compare advantages, losses and times with TRL and verl, in an environment of its own (2 GB)
	@$(VENV)-parity/bin/python -m pytest -m parity tests/parity $(ARGS)

$(VENV)-parity/installed: tests/parity/requirements.txt
	@echo "Creating $(VENV)-parity with TRL and verl (some minutes, 2 GB)"
	@$(PYTHON) -m venv $(VENV)-parity
	@$(VENV)-parity/bin/python -m pip install -qq $(or $(TORCH),torch)
	@$(VENV)-parity/bin/python -m pip install -qq -r tests/parity/requirements.txt
	@$(VENV)-parity/bin/python -m pip install -qq --no-deps verl==0.9.1
	@touch $@

vllm: ## make vLLM's environment (3.4 GB; variable VLLM=cpu or gpu)
	@PYTHON="$(PYTHON)" infra/vllm/set-up $(VENV)-vllm $(VLLM)

test-vllm: vllm ## run the tests that need vLLM itself
	@$(SET_UP) pipeline,s3,dev
	@$(VENV)/bin/python -m pytest -m vllm tests/services_vllm $(ARGS)

vllm-extra: ## show that pip finds versions for agpo[vllm] beside the pipeline, and for the service on a GPU
	@PYTHON="$(PYTHON)" infra/vllm/check-extra

acknowledge: ## record the stages' source: what changed makes the same as before, or its version was raised
	@$(SET_UP) pipeline,s3,dev
	@$(VENV)/bin/python -m tests.stage_sources

clean: ## remove the environment and caches; results in .agpo stay
	rm -rf $(VENV) $(VENV)-parity $(VENV)-vllm *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find agpo tasks flows tests -name __pycache__ -type d -prune -exec rm -rf {} +
