# Two commands on a new machine with Python 3.11+ and a C compiler: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv/bin

.PHONY: demo test docs compare results web test-web test-package chromium lint lock clean

demo: .venv/installed
	$(VENV)/python -m apps.demo --out demo

test: .venv/installed lint
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest -n 2 --dist worksteal

# The wheel in environments of its own, and wheels for every supported Python; after `make demo`.
test-package: .venv/installed
	$(VENV)/python -m tests.check_package

# The documentation as a site in build/docs; a warning is an error.
docs: .venv/installed
	$(VENV)/python -m sphinx -W --keep-going -q -b html docs build/docs

# The table and the plots of docs/compare.md, from the result files that are committed.
compare: .venv/installed
	$(VENV)/python -m benchmarks.compare --force

# docs/RESULTS.md, from the result files that are committed and the published figures.
results: .venv/installed
	$(VENV)/python -m benchmarks.results_page --force

# The page that runs artifacts in a browser; needs Node.js 20.19 or newer.
ARTIFACTS ?= demo/artifacts
PORT ?= 8000
web: .venv/installed
	$(VENV)/python -m apps.web --artifacts $(ARTIFACTS) --port $(PORT)

# Lint, types and unit tests of the page; then the page in chromium, against what Python says: 5 minutes on 2 cores.
test-web: .venv/installed chromium
	npm --prefix apps/web ci --silent
	npm --prefix apps/web run --silent lint
	rm -rf build/web-line
	OMP_NUM_THREADS=1 $(VENV)/python -m tests.apps.web_line build/web-line
	WEB_TEST_LINE=$(CURDIR)/build/web-line PYTHON=$(CURDIR)/$(VENV)/python npm --prefix apps/web run --silent test

chromium:
	@command -v chromium > /dev/null || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq chromium \
		> /dev/null; } || { echo "chromium: not found; install it first (Debian: apt-get install chromium)" >&2; exit 1; }

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
	$(VENV)/uv pip compile --universal --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--python-version 3.11 --all-extras pyproject.toml -o constraints.txt

clean:
	rm -rf .venv demo
