# `make demo` and `make test` do all the set-up themselves, into .venv/. PYTHON=... names the interpreter to use.
.PHONY: help demo test check lint types unit crash bench lock clean
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
SOURCES = agent proxy certs

# The stamps make a second run quick: they change only when a lock or pyproject.toml does.
RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev

help:
	@echo "make demo   run one attested turn by WebSocket and one by POST on local stand-ins"
	@echo "make test   lint, types and every test"
	@echo "make check  lint and types only"
	@echo "make unit   the tests that need no third-party peer (quick)"
	@echo "make crash  kill the app-server at 200 moments of a turn, and resume"
	@echo "make bench  speed and memory beside the original app-server"
	@echo "make lock   resolve requirements/*.txt anew (needs uv)"
	@echo "make clean  remove .venv and caches"

demo: $(RUN_STAMP)
	@$(BIN)/countersign demo

test: check
	@chromium=$$(.ci/find-chromium) && CHROMIUM="$$chromium" $(BIN)/python -m pytest -n 2 --dist loadgroup

unit: $(DEV_STAMP)
	@chromium=$$(.ci/find-chromium) && CHROMIUM="$$chromium" $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not interop"

check: lint types

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV_STAMP)
	$(BIN)/mypy

crash: $(DEV_STAMP)
	KILLS=200 $(BIN)/python -m pytest tests/e2e/test_kill.py -o timeout=3600

bench: $(DEV_STAMP)
	@$(BIN)/python -m compileall -q $(SOURCES)
	$(BIN)/python -m tests.bench

# The locks pin versions and hashes; they name no address.
lock:
	uv pip compile -q pyproject.toml --extra checkout --universal --python-version 3.13 --generate-hashes --no-emit-index-url \
		--no-header -o requirements/run.txt
	uv pip compile -q pyproject.toml --extra checkout --extra dev --extra otel --universal --python-version 3.13 --generate-hashes \
		--no-emit-index-url --no-header -c requirements/run.txt -o requirements/dev.txt
	uv pip compile -q pyproject.toml --extra checkout --extra otel --universal --python-version 3.13 --generate-hashes \
		--no-emit-index-url --no-header -c requirements/dev.txt -o requirements/otel.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(SOURCES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@python=$$(.ci/find-python) && echo "creating $(VENV) with $$python" && "$$python" -m venv $(VENV)

$(RUN_STAMP): requirements/run.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements/run.txt
	@$(MAKE) -s link
	@touch $@

$(DEV_STAMP): requirements/dev.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	@$(MAKE) -s link
	@.ci/install-ts-sdk $(VENV)
	@touch $@ $(RUN_STAMP)

# Put the checkout itself on the path of .venv, with its command.
.PHONY: link
link:
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q $(SOURCES)
	@.ci/write-launcher $(VENV)
