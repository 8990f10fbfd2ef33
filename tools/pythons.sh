#!/usr/bin/env bash
# The supported Pythons other than .venv's, each in a fresh environment from a lock with ngrl's wheel: a short run of each
# loop from an empty folder, and a part of the suite that covers each package. Python 3.10 has the oldest set, the others
# the newest. tools/pythons.sh [VERSION ...]; one that isn't there is skipped by name. CI runs this.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

runs=(
    "ngdqn_cartpole_v1 run.num_env_steps=1500"
    "trpo_cartpole_v1 run.num_env_steps=4096"
    "acer_cartpole_v1 run.num_env_steps=2000"
)
part=(
    tests/curvature/test_gauss_newton.py tests/solvers/test_solver_contract.py tests/losses
    tests/optimizers/test_guard.py tests/optimizers/test_kl_sized_step.py tests/networks tests/environments/test_bridge.py
    tests/environments/test_spaces.py tests/environments/test_lunar_lander.py
    tests/environments/test_compiled_environments.py tests/replay tests/agents/test_dqn_agent.py
    tests/keras/test_output_losses.py tests/configuration/test_configuration.py tests/loops/test_compiled.py
    tests/examples/test_descent.py tests/studies/test_study.py tests/test_install.py
)

# What only other tests use, two fifths of an installation.
unused='^(arch|babel|envpool|librt|mkdocs|mujoco|mypy|pyarrow|ray|rliable|ruff|statsmodels)[-a-z_]*=='

# The Python of a version: on the path, also where pyenv's shim there has been told of no version, or under pyenv.
find_python() {
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        if "$candidate" -c "import ensurepip, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$1')"; then
            echo "$candidate"
            return
        fi 2>/dev/null
    done
}

# try VERSION PYTHON LOCK: everything about one of them; what it prints goes to a log.
try() {
    local venv=$work/$1/venv empty=$work/$1/empty run
    mkdir -p "$empty"
    awk -v unused="$unused" '/^[a-z]/ {keep = $0 !~ unused} keep' "$3" >"$work/$1/lock"
    sh tools/install.sh "$2" "$venv" "$work/$1/lock" "$work"/ngrl-*.whl
    "$venv/bin/python" tools/check_installed.py
    for run in "${runs[@]}"; do
        (cd "$empty" && "$venv/bin/ngrl" launch --gin_file="gin/${run% *}.gin" --gin_bindings="${run#* }" \
            --gin_bindings=Evaluation.episodes=2 --noprogress)
    done
    "$venv/bin/python" -m pytest -q -m "not slow" -p no:cacheprovider "${part[@]}"
    rm -rf "$venv"
}

own=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
.venv/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$work" "$root"
start=$(date +%s)
declare -A jobs
[ $# -gt 0 ] || set -- 3.10 3.11 3.12 3.13
for version in "$@"; do
    lock=requirements.lock
    [ "$version" = 3.10 ] && lock=requirements-oldest.lock
    python=$(find_python "$version")
    if [ "$version" = "$own" ]; then
        echo "Python $version: that of .venv"
    elif [ -z "$python" ]; then
        echo "Python $version ($lock): SKIPPED, found neither as python$version nor under pyenv"
    else
        try "$version" "$python" "$lock" >"$work/$version.log" 2>&1 &
        jobs[$version]=$!
    fi
done
failed=()
for version in "${!jobs[@]}"; do
    wait "${jobs[$version]}" || failed+=("$version")
    echo "Python $version, after $(($(date +%s) - start)) s:"
    sed 's/^/    /' "$work/$version.log"
done
[ ${#failed[@]} = 0 ] || { echo "failed with Python ${failed[*]}" >&2; exit 1; }
