#!/bin/sh
# From a fresh checkout to a tested one: sh tools/test.sh [--quick] [PYTEST ARGUMENTS]
#
# --quick leaves out the tests that need more than Python and the environment: a browser, containers,
# other servers, clients. Without it, the Debian packages for those tests are installed first.
# shellcheck source=tools/environment.sh
. "$(dirname "$0")/environment.sh"

# The Debian packages that are missing for a whole run; see requirements/debian.list.
packages_for_tests() {
    while read -r package program who; do
        case $package in "#"*) continue ;; esac
        [ "$who" = root ] && [ "$(id -u)" -ne 0 ] && continue
        if [ "$program" = - ]; then
            state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
            [ "$state" = installed ] || echo "$package"
        else
            # Programs of root are not on everybody's PATH.
            (PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" && command -v "$program" >/dev/null) ||
                echo "$package"
        fi
    done <requirements/debian.list
}

# shellcheck disable=SC2046 # a list of packages
case " $* " in
*" --quick "*) make_environment ;;
*) make_environment $(packages_for_tests) ;;
esac
install_once dev "requirements/dev.txt pyproject.toml" --require-hashes --requirement requirements/dev.txt
install_once editable "pyproject.toml" --no-deps --no-build-isolation --editable .

.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
.venv/bin/mypy
# Each process runs whole modules, in the order of tests/machine.py: fixtures of a module are made once.
exec .venv/bin/python tools/tidily.py .venv/bin/python -m pytest --numprocesses auto --dist loadfile \
    --no-loadscope-reorder "$@"
