#!/usr/bin/env bash
# Makes .venv with latent (editable) and all that developing it needs. Does nothing when it is there and up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
VENV=.venv

fail() {
    printf 'latent: %s\n' "$@" >&2
    exit 1
}

command -v "$PYTHON" >/dev/null || fail "$PYTHON is missing." \
    "On Debian: apt-get install python3 python3-venv. Another interpreter: make PYTHON=/path/to/python3"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail \
    "Python 3.11 or newer is needed; $PYTHON is $("$PYTHON" -V 2>&1)." \
    "Install a newer one (Debian 12 and later have it) and say make PYTHON=python3.12, or wherever it is."
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || fail \
    "$PYTHON can make no virtual environment: its module venv or ensurepip is missing." \
    "On Debian: apt-get install python3-venv"

# What the environment was made from. A changed date alone (a new checkout) is no reason to make it anew.
wanted=$("$PYTHON" -V; cat setup.cfg pyproject.toml; pwd)
if [ -x $VENV/bin/python ] && $VENV/bin/python -c 'import latent' 2>/dev/null \
    && [ "$(cat $VENV/installed 2>/dev/null)" = "$wanted" ]; then
    touch $VENV/installed
    exit 0
fi

# One whose interpreter is gone or another version's, or that lies elsewhere, can't be mended.
if ! $VENV/bin/python -c 'import pip' 2>/dev/null \
    || [ "$($VENV/bin/python -V)" != "$("$PYTHON" -V)" ] || ! grep -qsF "$PWD/$VENV" $VENV/bin/pip; then
    rm -rf $VENV
    "$PYTHON" -m venv $VENV
fi
rm -f $VENV/installed
echo "Installing latent and its tools into $VENV ..."
$VENV/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' || fail \
    "pip could not install latent (its message is above). It needs to reach a package index; run make again when it can."
printf '%s\n' "$wanted" >$VENV/installed
