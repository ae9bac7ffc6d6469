# make demo       trains both mask heads on generated shapes, evaluates, prints a table, draws demo_output/
# make test       checks style and types, and runs all tests
# make test-fast  runs the tests that need no training, in under 90 seconds
# make docs       builds the documentation into docs/_build/html
# Each builds .venv first, once. To use another interpreter: make demo PYTHON=/path/to/python3

PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.ready
# imaug is installed without its dependencies: see requirements.txt.
IMAUG := imaug>=0.4.3,<0.5

# Two processes can share a GPU only if neither takes all of its memory.
export TF_FORCE_GPU_ALLOW_GROWTH ?= true
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-fast test-oldest docs venv clean

demo: venv
	@$(VENV)/bin/python samples/demo.py

test: venv
	@echo "== style: ruff"
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@echo "== types: mypy"
	@$(VENV)/bin/mypy
	@echo "== tests: pytest, two processes"
	@$(VENV)/bin/python -m pytest -n 2 --dist loadfile
	@echo "== tests of the JAX backend: pytest"
	@KERAS_BACKEND=jax $(VENV)/bin/python -m pytest tests/test_on_jax.py

test-fast: venv
	@$(VENV)/bin/python -m pytest -n 2 --dist loadfile -m "not slow" -q

docs: venv $(VENV)/.docs
	@$(VENV)/bin/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "== docs/_build/html/index.html"

venv: $(READY)

$(READY): requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || \
		{ echo "$(PYTHON) was not found: install Python 3.11, or name another: make PYTHON=python3.12"; exit 1; }
	@echo "== building $(VENV) with $$($(PYTHON) --version); TensorFlow is large, so this takes some minutes, once"
	@$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -r requirements.txt
	$(VENV)/bin/python -m pip install --no-deps "$(IMAUG)"
	@$(VENV)/bin/python -c "import cv2, imgaug" || { echo "== cv2 or imgaug does not import in $(VENV)"; exit 1; }
	@touch $@
	@echo "== $(VENV) is ready"

$(VENV)/.docs: pyproject.toml | $(READY)
	$(VENV)/bin/python -m pip install -e ".[docs]"
	@touch $@

clean:
	rm -rf $(VENV) demo_output docs/_build .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist *.egg-info

# The oldest Keras that pyproject.toml allows, with the oldest TensorFlow, in an environment of its own.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install -q "keras==3.7.*" "tensorflow==2.18.*" pytest hypothesis
	PYTHONPATH=. .venv-oldest/bin/python -m pytest -q tests/ops/test_keras_internals.py tests/network/test_frozen_batch_norm.py
