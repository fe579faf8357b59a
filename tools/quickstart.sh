#!/bin/sh
# From a fresh checkout to a server that serves packages: sh tools/quickstart.sh [ROOT] [FLAGS]
. "$(dirname "$0")/environment.sh"

make_environment
install_once server "pyproject.toml" --editable .
exec .venv/bin/private_pypi quickstart "$@"
