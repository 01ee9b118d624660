# The commands of README.md. Everything is set up in .venv at the first call; later ones need no network.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# XLA's optimiser would take most of the time of the JAX tests, which check values and not speed.
JAX_TESTS := KERAS_BACKEND=jax XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# Two processes, a file of tests each at a time: most tests keep one core busy. Files come in the order
# of the command line; long ones first, or one process waits for the other at the end.
PYTEST := $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
ON_EVERY_BACKEND := -m "not slow and not one_backend" tests/models tests/backbones tests/layers tests/recipe/metrics_test.py

.PHONY: demo test test-slow lint clean

demo: $(VENV)/core
	$(RUN) -m kseg.demo --output_dir=runs/demo

test: $(VENV)/test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(PYTEST) -m "not slow" tests/train tests
	$(JAX_TESTS) $(PYTEST) $(ON_EVERY_BACKEND)

test-slow: $(VENV)/slow
	$(PYTEST) -m slow tests/programs_test.py tests
	KERAS_BACKEND=torch $(PYTEST) $(ON_EVERY_BACKEND)

lint: $(VENV)/test
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) kseg.egg-info build dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Each stamp is one set of packages; a change of setup.py installs again.
$(VENV)/core: setup.py | $(VENV)/bin/python
	$(RUN) -m pip install --quiet -e .
	touch $@

$(VENV)/test: setup.py | $(VENV)/core
	$(RUN) -m pip install --quiet -e ".[test,jax,tfds]"
	touch $@

$(VENV)/slow: setup.py | $(VENV)/test
	$(RUN) -m pip install --quiet -e ".[test,jax,tfds,torch,serving,edge,onnx,openvino]"
	touch $@
