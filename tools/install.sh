#!/bin/sh
# Make .venv hold what requirements.lock says, and ngrl itself, editable. `make install` calls this from the
# project's root: tools/install.sh PYTHON, a Python 3.11 or 3.10, or uv. One line on the terminal; the rest is logged.
set -eu

python=$1
venv=.venv
log=$venv/install.log
unfinished=$venv/.installing # there while an installation runs, so that one cut short starts afresh

usable='import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))'

make_environment() {
    case $python in
    *uv) "$python" venv --allow-existing --seed --python 3.11 $venv ;;
    *) "$python" -m venv $venv ;;
    esac
}

pip() {
    $venv/bin/python -m pip --disable-pip-version-check --no-input "$@"
}

install() {
    { [ -x $venv/bin/pip ] || make_environment; } &&
        # gym comes as source only. Its build uses the lock's own setuptools rather than one that pip would fetch
        # unhashed, so that one goes first.
        awk '/^setuptools==/ {found = 1} found {print; if (!/\\$/) exit}' requirements.lock >$venv/build.lock &&
        pip install --require-hashes --no-deps -r $venv/build.lock &&
        pip install --require-hashes --no-build-isolation --use-pep517 -r requirements.lock &&
        pip install --no-deps --no-build-isolation --editable .
}

if [ -e $unfinished ] || ! $venv/bin/python -c "$usable" 2>/dev/null; then
    rm -rf $venv
fi
mkdir -p $venv
rm -f $venv/.installed
: >$unfinished

printf 'Installing into .venv (log: %s) ... ' $log
start=$(date +%s)
if install >$log 2>&1; then
    echo "done in $(($(date +%s) - start)) s"
else
    echo 'failed:'
    tail -n 15 $log >&2
    exit 1
fi
rm -f $unfinished
: >$venv/.installed
