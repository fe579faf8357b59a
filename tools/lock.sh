#!/bin/sh
# Pin what development and the tests install, with hashes and without addresses: sh tools/lock.sh
# shellcheck source=tools/environment.sh
. "$(dirname "$0")/environment.sh"

# shellcheck disable=SC2119 # our arguments are for others
make_environment
command -v .venv/bin/uv >/dev/null || .venv/bin/python -m pip install --quiet uv

compile() {
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-annotate --upgrade \
        --custom-compile-command "sh tools/lock.sh" --no-config "$@"
}

compile pyproject.toml --extra granian --extra object_storage --extra otlp --group dev --output-file requirements/dev.txt
# What the container image has: the versions with which the tests run, and what builds the wheel.
compile pyproject.toml --extra granian --extra object_storage --extra otlp --constraint requirements/dev.txt --output-file requirements/runtime.txt
compile requirements/build.in --constraint requirements/dev.txt --output-file requirements/build.txt
for each in requirements/clients/*.in requirements/azurite/node.in; do
    compile "$each" --output-file "${each%.in}.txt"
done
rm -f requirements/azurite/package-lock.json
npm_in requirements/azurite install --package-lock-only --save-exact --omit-lockfile-registry-resolved azurite@latest
