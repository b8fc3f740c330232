# Two commands on a new machine with Python 3.11+ and a C compiler: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv/bin

.PHONY: demo test lint lock clean

demo: .venv/installed
	$(VENV)/python -m apps.demo --out demo

test: .venv/installed lint
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest -n 2 --dist worksteal

lint: .venv/installed
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy

# The constraints pin every package, so that two installs a year apart agree.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# Resolves the newest versions that pyproject.toml allows, for every supported Python and platform.
lock: .venv/installed
	$(VENV)/python -m pip install --quiet uv
	$(VENV)/uv pip compile --universal --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--python-version 3.11 --all-extras pyproject.toml -o constraints.txt

clean:
	rm -rf .venv demo
