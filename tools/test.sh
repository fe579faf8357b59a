#!/bin/sh
# From a fresh checkout to a tested one: sh tools/test.sh [--quick] [PYTEST ARGUMENTS]
#
# --quick leaves out the tests that need more than Python and the environment: a browser, containers,
# other servers, clients. Without it, the Debian packages for those tests are installed first, and
# Azurite into the environment.
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

# Azurite, which stands in for Azure Blob Storage. It comes from npm, with a Node of its own, since
# that of Debian is too old for it.
install_azurite() {
    mkdir -p .venv/azurite
    cp requirements/azurite/package.json requirements/azurite/package-lock.json .venv/azurite/
    npm_in .venv/azurite ci
    cat >.venv/bin/azurite <<SCRIPT
#!/bin/sh
exec '$node/bin/node' '$PWD/.venv/azurite/node_modules/azurite/dist/src/blob/main.js' "\$@"
SCRIPT
    chmod +x .venv/bin/azurite
}

case " $* " in
*" --quick "*) is_quick=true ;;
*) is_quick=false ;;
esac
# shellcheck disable=SC2046 # a list of packages
make_environment $("$is_quick" || packages_for_tests)
install_once dev "requirements/dev.txt pyproject.toml" --require-hashes --requirement requirements/dev.txt
install_once editable "pyproject.toml" --no-deps --no-build-isolation --editable .
"$is_quick" || once azurite "requirements/azurite/node.txt requirements/azurite/package-lock.json" install_azurite

.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
.venv/bin/mypy
# Each process runs whole modules, in the order of tests/machine.py: fixtures of a module are made once.
# At most two failed tests of a run are tried again, and their tracebacks are shown at its end.
exec .venv/bin/python tools/tidily.py .venv/bin/python -m pytest --numprocesses auto --dist loadfile \
    --no-loadscope-reorder --reruns 1 --max-suite-reruns 2 --rerun-show-tracebacks "$@"
