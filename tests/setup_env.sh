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

# apt_install PACKAGE: never waits for an answer, and shows output only if it fails.
apt_install() {
  local log
  log=$(mktemp)
  echo "== installing Debian's $1"
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "$1"; } \
    >"$log" 2>&1 </dev/null; then
    tail -n 5 "$log" >&2
    return 1
  fi
}

# apt_need PACKAGE: installs it if it is missing and that is allowed; what needs it says
# so where it is not.
apt_need() {
  command -v "$1" >/dev/null || dpkg --status "$1" >/dev/null 2>&1 && return
  { can_apt && apt_install "$1"; } || echo "warning: no $1" >&2
}

# show_progress: of the lines of pip, which package is at hand; a line that moves on in a
# terminal, one line for every ten packages elsewhere.
show_progress() {
  local line package count=0
  while IFS= read -r line; do
    case $line in
      Collecting*)
        package=${line#Collecting }
        package=${package%% (from*}
        count=$((count + 1))
        if [ -t 1 ]; then
          printf '\r   %3d packages, %3d s: %-50.50s' "$count" "$SECONDS" "$package"
        elif [ $((count % 10)) = 0 ]; then
          printf '   %3d packages, %3d s: %s\n' "$count" "$SECONDS" "$package"
        fi
        ;;
      "Installing collected"*)
        [ -t 1 ] && printf '\n'
        printf '   %3d packages, %3d s: downloaded, now unpacking\n' "$count" "$SECONDS"
        ;;
    esac
  done
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

# is_installed FOLDER EXTRAS WANTED: whether a set-up like this one had all of them.
is_installed() {
  local stamp extra
  for stamp in "$1"/installed-*; do
    [ "$(cat "$stamp" 2>/dev/null)" = "$3" ] || continue
    for extra in ${2//,/ }; do
      [[ "${stamp##*/installed}-" == *"-$extra-"* ]] || continue 2
    done
    return 0
  done
  return 1
}

# setup_env FOLDER EXTRAS CONSTRAINTS: afterwards $VENV_PYTHON is the environment's
# python. Installs nothing if neither pyproject.toml nor a constraint has changed.
setup_env() {
  local folder=$1 extras=$2 constraints=$3 wanted
  VENV_PYTHON=$folder/bin/python
  wanted=$(cat pyproject.toml tests/constraints*.txt | sha256sum)
  "$VENV_PYTHON" -c '' 2>/dev/null || make_venv "$folder"
  is_installed "$folder" "$extras" "$wanted" && return
  echo "== installing pdp_keras[$extras] into $folder; the first time, TensorFlow and"
  echo "   what comes with it take two to five minutes and up to 5 GB"
  SECONDS=0
  "$VENV_PYTHON" -m pip install --disable-pip-version-check --progress-bar off \
    --editable ".[$extras]" --constraint "$constraints" 2>"$folder/pip-errors" |
    show_progress || { cat "$folder/pip-errors" >&2; fail "pip could not install"; }
  echo "   done after $SECONDS s"
  echo "$wanted" >"$folder/installed-${extras//,/-}"
}
