#!/usr/bin/env bash
# Sets up what is missing, then pretrains, tunes and prunes a small BERT:
# bash examples/text.sh [flags of text.py]
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/setup_env.sh

setup_env .venv examples tests/constraints.txt
apt_need wordnet-base
exec "$VENV_PYTHON" examples/text.py "$@"
