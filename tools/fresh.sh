#!/bin/bash
# Tries what the README promises on a bare machine, before each release: sh tools/fresh.sh [--quick]
#
# Makes a Debian or Ubuntu of the same release as this machine, with nothing but the packages that
# each installation has, and runs what is committed (HEAD) there: the quick start with an upload and
# an installation, and the test command, both as root and as an ordinary user who may not install
# anything. Nothing may be left when they have ended: no process, no mount, no file outside the
# checkout. With --quick only the quick tests are run.
#
# Needs root and some GB in TMPDIR. The bare system is made anew each time, in a folder that is
# removed at the end, and has its own mounts and processes; only the network is that of this machine.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail

# -- on this machine -------------------------------------------------------------------------------

make_system() { # FOLDER
    local release mirror
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # The first address where this machine gets its own packages.
    # shellcheck disable=SC2016 # for apt-get
    mirror=$(apt-get indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' 'Component: main' "Codename: $release" | head -1)
    [ -n "$mirror" ] || {
        echo "error: apt-get of this machine knows no packages of $release: run apt-get update" >&2
        return 1
    }
    echo "making a bare $release" >&2
    debootstrap --variant=minbase --include=ca-certificates "$release" "$1" "$mirror" >/dev/null
    # How this machine reaches the archives of packages.
    local path
    for path in /etc/apt/apt.conf.d /etc/apt/auth.conf.d /etc/ssl/certs /etc/resolv.conf \
        /etc/pip.conf /usr/local/share/ca-certificates; do
        [ -e "$path" ] || continue
        rm -rf "${1:?}$path"
        mkdir -p "$(dirname "$1$path")"
        cp -aL "$path" "$1$path"
    done
}

# Run this script again as the first process of the system in FOLDER, for USER.
enter() { # FOLDER USER [--quick]
    # unshare itself takes no notice of a signal. When it is killed, everything inside is as well.
    trap 'kill -KILL $!; exit 130' INT TERM
    # shellcheck disable=SC2016 # for that shell
    unshare --mount --pid --fork --kill-child bash -euo pipefail -c '
        mount --bind "$1" "$1"
        cd "$1"
        mount -t proc proc proc
        mount --rbind /sys sys
        mount --rbind /dev dev
        for folder in dev/shm run tmp; do mount -t tmpfs tmpfs "$folder"; done
        chmod 1777 dev/shm tmp
        mkdir .before
        pivot_root . .before
        cd /
        umount --lazy /.before
        rmdir /.before
        shift
        exec /bin/bash /fresh.sh inside "$@"
    ' enter "$@" &
    wait $!
}

check() { # USER [--quick]
    local folder
    folder=$(mktemp -d)
    # shellcheck disable=SC2064 # now
    trap "rm -rf --one-file-system '$folder'" EXIT
    chmod 755 "$folder"
    make_system "$folder"
    cp tools/fresh.sh "$folder/"
    git archive --prefix=checkout/ HEAD | tar -C "$folder" -x
    enter "$folder" "$@"
}

# -- inside of the bare system ---------------------------------------------------------------------

say() { echo "== $(date +%T) $user: $*" >&2; }

fail() {
    say "error: $*"
    exit 1
}

as() { # USER COMMAND: with the home folder of that user, and how this machine reaches archives
    local name variables=()
    for name in PIP_CERT PIP_INDEX_URL SSL_CERT_FILE REQUESTS_CA_BUNDLE NODE_EXTRA_CA_CERTS \
        npm_config_registry \
        http_proxy https_proxy no_proxy; do
        [ -z "${!name:-}" ] || variables+=("$name=${!name}")
    done
    env -i "${variables[@]}" HOME="$(getent passwd "$1" | cut -d: -f6)" USER="$1" LANG=C.UTF-8 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        setpriv --reuid="$1" --regid="$1" --init-groups sh -euc "cd ~/checkout && $2"
}

# Whether all that was there before is all that is there now.
nothing_is_left() {
    local left process
    left=$(cut -d' ' -f2 /proc/mounts)
    [ "$left" = "$mounts" ] || fail "mounts are left: $(diff <(echo "$mounts") <(echo "$left"))"
    for process in /proc/[0-9]*; do
        # We are the first process here, and what has ended has no program any more.
        [ "${process#/proc/}" = $$ ] || [ ! -e "$process/exe" ] ||
            fail "a process is left: $(tr '\0' ' ' <"$process/cmdline")"
    done
    left=$(find /tmp /var/tmp /dev/shm -mindepth 1 ! -name "libpod_lock*")
    [ -z "$left" ] || fail "files are left: $left"
    left=$(find "$home" /run -maxdepth 1 \( -name "*private_pypi*" -o -name "*private-pypi*" \))
    [ -z "$left" ] || fail "files are left: $left"
}

quick_start() {
    say "the quick start"
    as "$user" 'echo $$ >~/server && exec sh tools/quickstart.sh ~/root --with_public' >/quickstart.log 2>&1 &
    local started=$! waited=0
    until grep -q "in a browser" /quickstart.log; do
        kill -0 "$started" 2>/dev/null || fail "it ended: $(cat /quickstart.log)"
        [ $((waited += 1)) -lt 600 ] || fail "it does not serve: $(cat /quickstart.log)"
        sleep 1
    done
    local upload install
    upload=$(sed -n 's/^ *\(twine upload .*\)/\1/p' /quickstart.log)
    install=$(sed -n 's/^ *\(pip install .*\) PACKAGE$/\1/p' /quickstart.log)
    [ -n "$upload" ] && [ -n "$install" ] || fail "it prints no commands: $(cat /quickstart.log)"
    cat >/wheel.py <<'PYTHON'
from pathlib import Path

from private_pypi.testing.distributions import make_wheel

filename, content = make_wheel("demo", "1.0")
Path("dist").mkdir()
Path("dist", filename).write_bytes(content)
PYTHON
    as "$user" "mkdir ~/project && cd ~/project && ~/checkout/.venv/bin/python /wheel.py
        python3 -m venv ~/tools && ~/tools/bin/pip install --quiet twine
        PATH=~/tools/bin:\$PATH && $upload && $install demo && pip show demo" >/commands.log 2>&1 ||
        fail "the printed commands: $(cat /commands.log)"
    grep -q "^Version: 1.0" /commands.log || fail "nothing is installed: $(cat /commands.log)"
    kill "$(cat "$home/server")"
    wait "$started" || true
    as "$user" 'rm -rf ~/root ~/project ~/tools ~/server'
    nothing_is_left
}

used() { du -smx / | cut -f1; } # MB of this system

tests() { # [--quick]
    say "sh tools/test.sh $*"
    local from=$SECONDS before
    before=$(used)
    as "$user" "sh tools/test.sh $*"
    say "it took $(((SECONDS - from + 59) / 60)) minutes, and what it has put here has" \
        "$(($(used) - before)) MB"
    nothing_is_left
}

# Who may not install packages is told all that are missing, at once and before anything is done.
refusal() { # COMMAND
    local said install
    if said=$(as "$user" "$1" 2>&1); then fail "$1 went well without packages"; fi
    install=$(sed -n 's/^error: this needs root once: //p' <<<"$said")
    [ "$said" = "error: this needs root once: $install" ] || fail "$1 says: $said"
    say "root runs: $install"
    DEBIAN_FRONTEND=noninteractive sh -euc "$install" >/dev/null 2>&1
}

inside() { # USER [--quick]
    user=$1
    shift
    [ "$user" = root ] || useradd --create-home "$user"
    home=$(getent passwd "$user" | cut -d: -f6)
    mv /checkout "$home/checkout"
    chown -R "$user:" "$home/checkout"
    mounts=$(cut -d' ' -f2 /proc/mounts)
    [ "$user" = root ] || refusal "sh tools/quickstart.sh ~/root"
    quick_start
    [ "$user" = root ] || tests --quick
    if [ "${1:-}" != --quick ]; then
        [ "$user" = root ] || refusal "sh tools/test.sh"
        tests
    elif [ "$user" = root ]; then
        tests --quick
    fi
    as "$user" 'cd && rm -rf ~/checkout'
    [ ! -e "$home/checkout" ] || fail "the checkout cannot be removed"
    say "all is well"
}

case "${1:-}" in
inside)
    shift
    inside "$@"
    ;;
"" | --quick)
    cd "$(dirname "$0")/.."
    [ "$(id -u)" -eq 0 ] || {
        echo "error: a bare system is made by root only" >&2
        exit 1
    }
    command -v debootstrap >/dev/null || apt-get install -y -qq --no-install-recommends debootstrap
    for user in root somebody; do (check "$user" "$@"); done
    ;;
*)
    echo "usage: sh tools/fresh.sh [--quick]" >&2
    exit 2
    ;;
esac
