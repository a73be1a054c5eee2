#!/usr/bin/env bash
# Sets up what is missing, trains if there are no files yet, and serves the page that
# runs a dense and a sparse network side by side: bash examples/web.sh [flags of mobile.py]
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/setup_env.sh

setup_env .venv examples tests/constraints.txt
apt_need npm
command -v npm >/dev/null || fail "the page needs Node.js 20 with npm"
if [ $# -gt 0 ] || [ ! -e pdp_output/mobile/page.json ]; then
  "$VENV_PYTHON" examples/mobile.py "$@"
fi
exec "$VENV_PYTHON" examples/serve.py
