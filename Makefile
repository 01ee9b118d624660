# The commands of README.md. The first call sets up .venv; later calls need no network.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Without these flags XLA's optimiser takes most of the time of the JAX tests, which check values only.
JAX_TESTS := KERAS_BACKEND=jax XLA_FLAGS="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# Two processes, since most tests keep one core busy. Each runs one file of tests at a time, in the order
# of `tests/conftest.py`.
PYTEST := $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
ON_EVERY_BACKEND := -m "not slow and not one_backend"

.PHONY: demo test test-slow chaos lint clean

demo: $(VENV)/core
	$(RUN) -m kseg.demo --output_dir=runs/demo

test: $(VENV)/test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(PYTEST) -m "not slow" tests
	$(JAX_TESTS) $(PYTEST) $(ON_EVERY_BACKEND) tests/models tests/layers tests/recipe

test-slow: $(VENV)/slow
	$(PYTEST) -m slow tests
	$(JAX_TESTS) $(PYTEST) $(ON_EVERY_BACKEND) tests/backbones
	KERAS_BACKEND=torch $(PYTEST) $(ON_EVERY_BACKEND) tests/models tests/backbones tests/layers tests/recipe

# Ten minutes of kills, pauses and damage; prints what was done and the seed.
chaos: $(VENV)/test
	KSEG_CHAOS_SECONDS=600 $(RUN) -m pytest -s -m slow tests/train/chaos_test.py

lint: $(VENV)/test
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) kseg.egg-info build dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Each stamp stands for one set of packages; they are installed again when setup.py changes.
$(VENV)/core: setup.py | $(VENV)/bin/python
	$(RUN) -m pip install --quiet -e .
	touch $@

$(VENV)/test: setup.py | $(VENV)/core
	$(RUN) -m pip install --quiet -e ".[test,jax,tfds]"
	touch $@

$(VENV)/slow: setup.py | $(VENV)/test
	$(RUN) -m pip install --quiet -e ".[test,jax,tfds,torch,serving,edge,onnx,openvino]"
	touch $@
