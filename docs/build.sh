#!/usr/bin/env bash
# Sets up what is missing, then builds the documentation into docs/_build/html.
#
#   bash docs/build.sh [--no-notebooks] [arguments of sphinx-build]
#
# Strict: a broken link, an unknown reference, a public name without documentation or
# example, or a notebook that fails, fails the build. A notebook is executed again only
# when it has changed; --no-notebooks executes none.
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/setup_env.sh

arguments=()
for argument in "$@"; do
  if [ "$argument" = --no-notebooks ]; then
    arguments+=(-D nb_execution_mode=off)
  else
    arguments+=("$argument")
  fi
done

setup_env .venv docs tests/constraints.txt
# The notebooks train on Fashion-MNIST and run a file in a browser where these are
# installed, and say so where they are not.
for package in dataset-fashion-mnist chromium npm; do
  apt_need "$package"
done

# Sphinx warns of a page only when it reads and writes it: were what an earlier build has
# read kept, one that failed would succeed the second time.
"$VENV_PYTHON" -m sphinx --builder html --fail-on-warning --keep-going --nitpicky \
  --fresh-env --write-all --quiet ${arguments[@]+"${arguments[@]}"} \
  docs docs/_build/html
echo "docs/_build/html/index.html"
