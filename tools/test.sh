#!/bin/sh
# From a fresh checkout to a tested one: sh tools/test.sh [PYTEST ARGUMENTS]
. "$(dirname "$0")/environment.sh"

make_environment
install_once dev "requirements/dev.txt pyproject.toml" --require-hashes --requirement requirements/dev.txt
install_once editable "pyproject.toml" --no-deps --no-build-isolation --editable .

.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
.venv/bin/mypy
exec .venv/bin/python -m pytest --numprocesses auto "$@"
