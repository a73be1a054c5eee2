#!/usr/bin/env bash
# Sets up what is missing, then tunes a network that has learned ImageNet, dense and
# pruned, and exports both: bash examples/pretrained.sh [flags of mobile.py]
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/setup_env.sh

setup_env .venv examples,pretrained tests/constraints.txt
apt_need dataset-fashion-mnist
exec "$VENV_PYTHON" examples/mobile.py --network=efficientnet_lite0 \
  --dataset=fashion_mnist --images=6000 --size=96 "$@"
