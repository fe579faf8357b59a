#!/bin/sh
# From a fresh checkout to a server that serves packages: sh tools/quickstart.sh [ROOT] [FLAGS]
# shellcheck source=tools/environment.sh
. "$(dirname "$0")/environment.sh"

# shellcheck disable=SC2119 # our arguments are for others
make_environment
install_once server "pyproject.toml" --editable .
exec .venv/bin/private_pypi quickstart "$@"
