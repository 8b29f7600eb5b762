# The one thing to know: `make help`. Everything runs in .venv, which is made when it is missing or setup.cfg changed.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check docs format clean

help:
	@echo "make demo     a controller, four latent workers, two dozen builds: watch them (under 3 minutes)"
	@echo "make test     all tests; ARGS='tests/core -k search' for some. As root on Debian it installs what they need"
	@echo "make check    formatting, lint, types, the arrows between the rooms, drift of what is generated"
	@echo "make docs     write anew what is generated: the state diagram, the wire code"
	@echo "make format   format the source"
	@echo "make clean    remove .venv and all caches"
	@echo
	@echo "PYTHON=python3.12 chooses the interpreter of a new .venv (default: python3)"

.venv/installed: setup.cfg pyproject.toml scripts/make_environment.sh
	@PYTHON="$(PYTHON)" bash scripts/make_environment.sh

demo: .venv/installed
	@$(BIN)/python examples/demo/demo.py

test: .venv/installed
	@bash scripts/install_real_parts.sh
	@$(BIN)/python -m pytest -v --color=auto -rfEs $(ARGS)

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/generated.py --check
	$(BIN)/towncrier build --draft --version next --date 2000-01-01 >/dev/null
	$(BIN)/python -m pytest tests/house/test_imports.py tests/house/test_repo.py

docs: .venv/installed
	$(BIN)/python scripts/generated.py

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis var build dist *.egg-info
