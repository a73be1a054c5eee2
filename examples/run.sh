#!/usr/bin/env bash
# Sets up what is missing, then trains and prunes: bash examples/run.sh [flags of train.py]
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/setup_env.sh

setup_env .venv examples tests/constraints.txt
exec "$VENV_PYTHON" examples/train.py "$@"
