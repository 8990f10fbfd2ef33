#!/bin/sh
# Make an environment hold what a lock says, and ngrl itself, editable or from a wheel. `make install` calls this from
# the project's root: tools/install.sh PYTHON [FOLDER [LOCK [WHEEL]]]; PYTHON is a Python 3.10 to 3.13, or uv. One line
# on the terminal; the rest is logged.
set -eu

python=$1
venv=${2:-.venv}
lock=${3:-requirements.lock}
wheel=${4:-}
log=$venv/install.log
unfinished=$venv/.installing # there while an installation runs, so that one cut short starts afresh

usable='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'

make_environment() {
    case $python in
    *uv) "$python" venv --allow-existing --seed --python '>=3.10,<3.14' "$venv" ;;
    *) "$python" -m venv "$venv" ;;
    esac
}

pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"
}

install() {
    # Without dependencies: the lock is complete, and pip would refuse it for TF-Agents' pins. rliable comes as source
    # only. Its build uses the lock's own setuptools rather than one that pip would fetch unhashed, so that goes first.
    awk '/^setuptools==/ {found = 1} found {print; if (!/\\$/) exit}' "$lock" >"$venv/build.lock" &&
        pip install --require-hashes --no-deps -r "$venv/build.lock" &&
        pip install --require-hashes --no-deps --no-build-isolation --use-pep517 -r "$lock" &&
        if [ -n "$wheel" ]; then pip install --no-deps "$wheel"; else
            pip install --no-deps --no-build-isolation --editable .
        fi
}

if [ -e "$unfinished" ] || ! "$venv/bin/python" -c "$usable" 2>/dev/null; then
    rm -rf "$venv"
fi
mkdir -p "$venv"
rm -f "$venv/.installed"
: >"$unfinished"

fail() {
    echo 'failed:'
    tail -n 15 "$log" >&2
    exit 1
}

printf 'Installing into %s ' "$venv"
start=$(date +%s)
[ -x "$venv/bin/pip" ] || make_environment >"$log" 2>&1 || fail
printf 'with Python %s (log: %s) ... ' "$("$venv/bin/python" -c 'import platform; print(platform.python_version())')" "$log"
install >>"$log" 2>&1 || fail
echo "done in $(($(date +%s) - start)) s"
rm -f "$unfinished"
: >"$venv/.installed"
