# shellcheck shell=bash
# Sourced by tests/run.sh and examples/run.sh: makes a virtual environment and
# installs pdp_keras with the given extras into it.

fail() {
  echo "error: $*" >&2
  exit 1
}

# can_apt: whether Debian packages can be installed without asking anybody.
can_apt() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

# apt_install PACKAGE: quiet, and never waits for an answer.
apt_install() {
  local log
  log=$(mktemp)
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "$1"; } \
    >"$log" 2>&1 </dev/null; then
    tail -n 5 "$log" >&2
    return 1
  fi
}

# make_venv FOLDER
make_venv() {
  local python=${PYTHON:-python3}
  command -v "$python" >/dev/null || fail "$python not found; set PYTHON=/path/to/python"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "pdp_keras needs Python 3.11 or newer. Received: $("$python" -V); set PYTHON"
  # Debian ships ensurepip, which venv needs, in a package of its own.
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    can_apt && { apt_install python3-venv || true; }
    "$python" -c 'import ensurepip' 2>/dev/null ||
      fail "$python cannot make a virtual environment: it has no ensurepip." \
        "On Debian: apt-get install python3-venv"
  fi
  # --clear: what a set-up that was cut off left behind must not look whole.
  "$python" -m venv --clear "$1"
}

# setup_env FOLDER EXTRAS CONSTRAINTS: afterwards $VENV_PYTHON is the environment's
# python. Installs nothing if neither pyproject.toml nor a constraint has changed.
setup_env() {
  local folder=$1 extras=$2 constraints=$3 stamp wanted
  VENV_PYTHON=$folder/bin/python
  stamp=$folder/installed-${extras//,/-}
  wanted=$(cat pyproject.toml tests/constraints*.txt | sha256sum)
  "$VENV_PYTHON" -c '' 2>/dev/null || make_venv "$folder"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "== installing .[$extras] into $folder (minutes, the first time)"
    "$VENV_PYTHON" -m pip install --quiet --disable-pip-version-check \
      --editable ".[$extras]" --constraint "$constraints"
    echo "$wanted" >"$stamp"
  fi
}
