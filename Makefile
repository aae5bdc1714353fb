# Every target works from a fresh clone: what is lacking is installed first.
PYTHON := .venv/bin/python
TESTS := $(PYTHON) -m pytest
LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-annotate --custom-compile-command 'make lock' --upgrade pyproject.toml

.PHONY: help demo demo-stop setup check test test-all faults soak elasticity benchmark generate format reference man lock \
	clean install uninstall docs site pictures

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo:  ## Scale real guests out and in on real load (KEEP=1 leaves it running)
	deploy/demo/bootstrap demo
	$(PYTHON) deploy/demo/run.py

demo-stop:  ## Stop a demo that was left running
	$(PYTHON) deploy/demo/run.py --stop

check: setup  ## Format, lint, types, walls, unit and property tests; under a minute
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/codespell
	$(TESTS) tests/unit -n 2 -m "not slow"

test: check  ## check, and the main cases on real guests
	$(TESTS) tests/real -n 2 -m "real and not serial and not slow"
	$(TESTS) tests/real -m "serial and not slow"

test-all: check  ## Every proof there is
	$(TESTS) tests/unit -m slow
	$(TESTS) tests/real tests/systemd -n 2 -m "real and not serial"
	$(TESTS) tests/real tests/systemd -m serial

faults: setup  ## Kill a real daemon at every step of every action, before and after the call; and every other fault
	$(TESTS) tests/unit/test_registry.py tests/unit/test_crash_matrix.py -n 2
	$(TESTS) tests/real/test_kill_matrix.py tests/real/test_faults.py -n 2

MINUTES := 5
soak: setup  ## Random load and random faults on real guests (MINUTES=5, SEED=n)
	$(PYTHON) -m tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

elasticity: setup  ## Judge target tracking and published algorithms on recorded loads (TRACES=/path), into docs/
	@test -d "$(TRACES)" || { echo "usage: make elasticity TRACES=/path/to/folder/of/csv" >&2; exit 2; }
	$(PYTHON) benchmarks/elasticity.py $(TRACES) docs

benchmark: setup  ## Tell what decisions, rehearsals, scrapes and clones cost (as root: clones), into docs/
	$(PYTHON) benchmarks/decide.py
	$(PYTHON) benchmarks/simulate.py
	$(PYTHON) benchmarks/scrape.py
	$(PYTHON) -m benchmarks.clone --into docs/benchmarks.md

generate: reference  ## Write what is made from code: docs/commands.md, docs/metrics.md and the dashboards
	$(PYTHON) -m deploy.prometheus.page
	$(PYTHON) -m deploy.grafana.dashboards

SITE := .cache/site
docs: setup site  ## Make the documentation a site, in .cache/site; every warning is an error
	@echo "the site: file://$(CURDIR)/$(SITE)/index.html"

site:
	.venv/bin/sphinx-build --quiet --fail-on-warning --keep-going -d $(SITE).doctrees docs $(SITE)

pictures: setup  ## Draw the pictures of README and documentation anew (RECORD=1: of another run of the demo)
	$(PYTHON) -m tests.pictures $(if $(RECORD),--record)

format: setup  ## Format the code
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

setup:  ## Install what checks and tests need
	deploy/demo/bootstrap dev

reference: setup  ## Write docs/commands.md from the commands
	$(PYTHON) deploy/reference/commands.py markdown > docs/commands.md

man: setup  ## Write the man pages of all commands, into .cache/man
	$(PYTHON) deploy/reference/commands.py man .cache/man

lock: setup  ## Renew the locked requirements from pyproject.toml
	$(LOCK) --output-file requirements.lock
	$(LOCK) --group dev --output-file requirements-dev.lock

clean:  ## Remove what was built
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The service on a hypervisor host: docs/install.md. DESTDIR stages it for a package.
PREFIX := /opt/autoscaler
INSTALLER = /usr/bin/python3 deploy/install/install.py

install:  ## Install or upgrade the service, as root (PREFIX=/opt/autoscaler)
	$(INSTALLER) install --prefix $(PREFIX) $(if $(DESTDIR),--destdir $(DESTDIR))

uninstall:  ## Remove the service; state, guests and edited files stay
	$(INSTALLER) uninstall --prefix $(PREFIX) $(if $(DESTDIR),--destdir $(DESTDIR))
