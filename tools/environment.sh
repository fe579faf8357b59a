# Makes the virtual environment .venv of this checkout; sourced by the other scripts, not run.
#
# Needs nothing but a Debian or Ubuntu machine: what is missing is installed with apt-get when this
# runs as root or sudo needs no password, and named otherwise.

set -eu
cd "$(dirname "$0")/.."

may_be_root() {
    [ "$(id -u)" -eq 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

debian_packages() {
    command -v apt-get >/dev/null || {
        echo "error: install these by hand (there is no apt-get): $*" >&2
        return 1
    }
    may_be_root || {
        echo "error: this needs root once: apt-get install $*" >&2
        return 1
    }
    echo "installing Debian packages: $*" >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
        >/dev/null 2>&1 && return
    as_root apt-get update -qq >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
        >/dev/null
}

is_usable() {
    command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))'
}

find_python() {
    for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        if is_usable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

make_environment() {
    [ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1 && return
    python=$(find_python) || {
        debian_packages python3 python3-venv
        python=$(find_python) || debian_packages python3.11 python3.11-venv
        python=$(find_python) || {
            echo "error: Python 3.11 or newer is needed; set PYTHON to one" >&2
            return 1
        }
    }
    # Debian splits ensurepip off: without it an environment has no pip.
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        debian_packages "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    rm -rf .venv
    "$python" -m venv .venv
}

# Install into .venv unless the given files are as they were when it was done last.
install_once() {
    name=$1
    files=$2
    shift 2
    stamp=.venv/.installed-$name
    # shellcheck disable=SC2086 # a list of files
    now=$(cat $files | sha256sum)
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$now" ] && return
    echo "installing into .venv, which takes a minute" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"
    echo "$now" >"$stamp"
}
