# make lab: open the course.  make test: check everything.  make offline: a folder for a class
# without a network.  All set up .venv first.
# On Windows, the README gives the same steps as plain python and pip lines.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: lab test offline setup clean

lab: setup
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

test: setup
	$(BIN)/python -m pytest --nbval -n $(WORKERS) --dist loadscope --no-loadscope-reorder

offline: setup
	$(BIN)/python -m course offline offline

setup: $(VENV)/.installed

# the stamp is newer than the lock file once everything in it is installed
$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11, 5) or sys.exit("Python 3.11.5 or newer is needed; try: make PYTHON=python3.12 lab")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python course/network.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf $(VENV)
