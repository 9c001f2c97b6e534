# Functions and variables that the scripts share. It is sourced, not run.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The cache: built code, test data and benchmark databases. It can be deleted; filling it again takes long.
CACHE=${LIFEBOAT_CACHE:-$HOME/.cache/lifeboat}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
case $CARGO_TARGET_DIR in /*) ;; *) CARGO_TARGET_DIR=$ROOT/$CARGO_TARGET_DIR ;; esac
[ -d "$HOME/.cargo/bin" ] && PATH=$PATH:$HOME/.cargo/bin

say() { printf '%s\n' "$*" >&2; }
step() { printf '\n== %s\n' "$*" >&2; }
fail() { say "${0##*/}: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Fails if the program cannot be built.
need_compiler() {
    have cargo || fail "cargo is missing; install Rust from https://rustup.rs"
    have cc || have gcc || have clang || fail "a C compiler is missing (Debian, Ubuntu: apt-get install build-essential)"
}

# Runs a command as root; fails if that is not possible.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif [ "${CI:-}" = true ] && have sudo; then sudo -n "$@"
    else return 1
    fi
}

# Installs Debian packages and prints their names; fails if it cannot.
install_packages() {
    [ $# -gt 0 ] || return 0
    if ! have apt-get; then
        say "cannot install $*: apt-get is missing"
        return 1
    fi
    if ! as_root true 2>/dev/null; then
        say "cannot install $*: this needs root; run 'apt-get install $*' as root"
        return 1
    fi
    say "installing with apt-get: $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 && return 0
    say "trying again with updated package lists"
    as_root apt-get update -qq >/dev/null || say "the package lists could not be updated"
    # Installed one by one, so that a missing package does not prevent the others.
    local package failed=0
    for package in "$@"; do
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
            { say "could not install $package"; failed=1; }
    done
    return "$failed"
}

# Makes 'cargo nextest' available: an installed one, or one that is built into the cache once.
need_nextest() {
    local version=0.9.143
    PATH=$CACHE/tools/bin:$PATH
    ! cargo nextest --version >/dev/null 2>&1 || return 0
    say "installing cargo-nextest $version into $CACHE/tools (once; takes some minutes)"
    CARGO_TARGET_DIR=$CACHE/tools-target cargo install cargo-nextest --locked --version "$version" --root "$CACHE/tools"
    rm -rf "$CACHE/tools-target"
}
