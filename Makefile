# make demo   trains both mask heads on generated photographs, evaluates, prints a table, draws demo_output/
# make test   checks the style and runs the tests
# Both build .venv first, once; another interpreter: make demo PYTHON=/path/to/python3

PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.ready
# imaug without its dependencies: see requirements.txt.
IMAUG := imaug>=0.4.3,<0.5

# TensorFlow tells at length how it was compiled and what it cannot estimate; errors remain.
export TF_CPP_MIN_LOG_LEVEL ?= 2
# Two processes can share a GPU only if none takes all of its memory.
export TF_FORCE_GPU_ALLOW_GROWTH ?= true
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test venv clean

demo: venv
	@$(VENV)/bin/python samples/demo.py

test: venv
	@echo "== style: ruff check"
	@$(VENV)/bin/ruff check .
	@echo "== tests: pytest, two processes"
	@$(VENV)/bin/python -m pytest -n 2 --dist loadfile
	@if $(VENV)/bin/python -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('jax') is None)"; then \
		echo "== tests of the JAX backend: pytest"; \
		KERAS_BACKEND=jax $(VENV)/bin/python -m pytest tests/test_on_jax.py; \
	else echo "== jax is not installed in $(VENV), so the tests of the JAX backend are left out"; fi

venv: $(READY)

$(READY): requirements.txt
	@command -v $(PYTHON) >/dev/null || \
		{ echo "$(PYTHON) was not found: install Python 3.11, or name another: make PYTHON=python3.12"; exit 1; }
	@echo "== building $(VENV) with $$($(PYTHON) --version); TensorFlow is large, so this takes some minutes, once"
	@$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -r requirements.txt
	$(VENV)/bin/python -m pip install --no-deps "$(IMAUG)"
	@$(VENV)/bin/python -c "import cv2, imgaug" || { echo "== cv2 or imgaug does not import in $(VENV)"; exit 1; }
	@touch $@
	@echo "== $(VENV) is ready"

clean:
	rm -rf $(VENV) demo_output .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
