#!/usr/bin/env bash
# Puts an aarch64 Python with LiteRT into a folder, and beside it a plugin for QEMU that
# counts instructions: bash benchmarks/aarch64/setup.sh [FOLDER]
#
# For Debian 12; nothing but qemu-user and gcc is installed on the machine itself.
# $VENV_PYTHON, or python3, decides the versions of LiteRT and numpy.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/setup_env.sh
folder=${1:-.aarch64}
python=${VENV_PYTHON:-python3}

for package in qemu-user gcc; do
  dpkg --status "$package" >/dev/null 2>&1 || { can_apt && apt_install "$package"; } ||
    fail "$package is needed: apt-get install $package"
done
versions=$("$python" - <<'PYTHON'
from importlib.metadata import version
print(*(f"{name}=={version(name)}" for name in ("ai-edge-litert", "numpy")))
PYTHON
)
wanted="$versions $(cat benchmarks/aarch64/{setup.sh,count.c} | sha256sum)"
[ "$(cat "$folder/installed" 2>/dev/null)" = "$wanted" ] && exit 0
echo "== installing an aarch64 Python into $folder"
rm -rf "$folder"
mkdir -p "$folder"/{apt/lists/partial,apt/archives/partial,wheels,root/site}
folder=$(cd "$folder" && pwd)

# Apt with folders of its own, so that this machine's packages do not change.
touch "$folder/apt/status"
options=(
  -o APT::Architecture=arm64 -o APT::Architectures=arm64
  -o Dir::State="$folder/apt" -o Dir::State::Lists="$folder/apt/lists"
  -o Dir::State::status="$folder/apt/status" -o Dir::Cache="$folder/apt"
  -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)"
)
quietly() {
  "$@" >"$folder/log" 2>&1 || { tail -n 5 "$folder/log" >&2; fail "$* failed"; }
}
quietly apt-get "${options[@]}" update
quietly apt-get "${options[@]}" --yes --no-install-recommends --download-only \
  install python3.11 libstdc++6 libgomp1
for package in "$folder"/apt/archives/*.deb; do
  dpkg --extract "$package" "$folder/root"
done

platforms=(--platform manylinux2014_aarch64)
for minor in $(seq 17 36); do # Debian 12 has glibc 2.36
  platforms+=(--platform "manylinux_2_${minor}_aarch64")
done
# shellcheck disable=SC2086
quietly "$python" -m pip download --only-binary=:all: --no-deps --python-version 3.11 \
  --implementation cp "${platforms[@]}" --dest "$folder/wheels" $versions
for wheel in "$folder"/wheels/*.whl; do
  "$python" -m zipfile --extract "$wheel" "$folder/root/site"
done

# What XNNPACK reads of the machine; without it, creating an interpreter crashes.
# /proc/cpuinfo is written for each run: see benchmarks/arm_emulation.py.
mkdir -p "$folder/root/sys/devices/system/cpu"
for name in possible present online kernel_max; do
  echo 0 >"$folder/root/sys/devices/system/cpu/$name"
done

quietly gcc -shared -fPIC -O2 -Wall -o "$folder/count.so" benchmarks/aarch64/count.c
rm -rf "$folder/apt" "$folder/wheels"
echo "$wanted" >"$folder/installed"
