#!/usr/bin/env bash
# Sets up what is missing, then lints, type-checks and tests.
#
#   bash tests/run.sh [--lowest] [pytest arguments]
#
# --slow, or any other argument, goes to pytest. --lowest tests, without linting, the
# oldest versions that pyproject.toml allows, in an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/setup_env.sh

environment=.venv
constraints=tests/constraints.txt
arguments=()
for argument in "$@"; do
  if [ "$argument" = --lowest ]; then
    environment=.venv-lowest
    constraints=tests/constraints-lowest.txt
  else
    arguments+=("$argument")
  fi
done

extras=test,lint,backends
packages=(dataset-fashion-mnist wordnet-base chromium npm)
if [[ " ${arguments[*]-} " == *" --slow "* ]]; then
  # They build the documentation, and ask Bazel what it sees.
  extras+=,docs
  packages+=(bazel-bootstrap)
fi
setup_env "$environment" "$extras" "$constraints"
# Tests that read Fashion-MNIST or WordNet, use a browser or ask Bazel skip, and say so,
# where these are not installed.
for package in "${packages[@]}"; do
  apt_need "$package"
done
# And those on an emulated Arm processor without QEMU; Debian 12 has what they need.
if can_apt && [ "$environment" = .venv ]; then
  VENV_PYTHON=$VENV_PYTHON bash benchmarks/aarch64/setup.sh ||
    echo "warning: no emulated Arm processor" >&2
fi

check() {
  echo "== $*"
  "$VENV_PYTHON" -m "$@" || fail "$* failed"
}
if [ "$environment" = .venv ]; then
  check ruff check --quiet .
  check ruff format --quiet --diff .
  check mypy
fi
echo "== pytest"
exec "$VENV_PYTHON" -m pytest -n 2 --dist=worksteal ${arguments[@]+"${arguments[@]}"}
