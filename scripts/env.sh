#!/usr/bin/env bash
# Builds .venv from requirements.lock with $PYTHON (default: python3); `make env` calls it, in the root of the checkout.
# `env.sh frameworks` builds .venv-frameworks: what requirements-frameworks.lock adds, over the packages of .venv.
# `env.sh site` builds .venv-site from requirements-site.lock: what builds the site, and neither torch nor .venv.
#
# Each may be a link, to a scratch disk say: then the folder it points to is filled. A folder that is neither empty nor
# an environment of this project is left as it is. Where the environment cannot be built, one line says why (exit
# status 2); its .complete is written last, so that what was interrupted is built again.

set -euo pipefail

python=${PYTHON:-python3}
venv=.venv lock=requirements.lock
[[ ${1:-} != frameworks ]] || venv=.venv-frameworks lock=requirements-frameworks.lock python=.venv/bin/python
[[ ${1:-} != site ]] || venv=.venv-site lock=requirements-site.lock
stamp=$venv/.complete mark=$venv/.syre log=$venv/build.log  # mark: the folder is ours, complete or not

fail() { echo "error: $*" >&2; exit 2; }

install() {  # COMMAND...: what it says matters only if it fails
  "$@" >"$log" 2>&1 || fail "packages could not be fetched or installed (is there a network?)," \
    "see $log; its last line: $(grep -v '^ *$' "$log" | tail -n 1)"
}

writable() {  # FOLDER, which may have to be made first
  local folder=$1
  while [[ ! -e $folder ]]; do folder=$(dirname -- "$folder"); done
  [[ -d $folder && -w $folder ]]
}

type -P "$python" >/dev/null || fail "PYTHON=$python is not found: make PYTHON=/path/to/python3.11"
# If it is the one of an old .venv, that is about to go: what it was made from is what is needed.
facts=$("$python" -c 'import sys
print("%d.%d %s" % (sys.version_info[0], sys.version_info[1], getattr(sys, "_base_executable", sys.executable)))' \
  2>/dev/null) || fail "PYTHON=$python is no Python that runs: make PYTHON=/path/to/python3.11"
version=${facts%% *} base=${facts#* }
[[ $version =~ ^3\.1[123]$ ]] ||
  fail "Python 3.11, 3.12 or 3.13 is needed, not $version: make PYTHON=/path/to/python3.11"
"$base" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "$base cannot make environments: on Debian and Ubuntu, apt-get install python$version-venv"

if [[ -L $venv && ! -e $venv ]]; then
  mkdir "$(readlink -m $venv)" 2>/dev/null || fail "$venv points to $(readlink -m $venv), which cannot be made"
elif [[ ! -e $venv ]]; then
  mkdir $venv 2>/dev/null || fail "$PWD cannot be written to"
fi
[[ -d $venv ]] || fail "$PWD/$venv is in the way: it is no folder"
if [[ -n $(ls -A $venv/) && ! -e $mark && ! -e $stamp ]]; then
  # What has no mark was interrupted before there were marks, if it is an environment and lies here.
  [[ ! -L $venv && -e $venv/pyvenv.cfg ]] ||
    fail "$(readlink -f $venv) is neither empty nor an environment of this project: empty it, or move $venv away"
fi
touch "$mark" 2>/dev/null || fail "$(readlink -f $venv) cannot be written to"
find $venv/ -mindepth 1 -maxdepth 1 ! -name "${mark##*/}" -exec rm -rf {} +

writable "${UV_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/}/.cache}/uv}" || export UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1
echo "building $venv with Python $version from $lock"
if [[ $venv != .venv-frameworks ]]; then
  install "$base" -m venv "$(readlink -f $venv)"  # which takes no link
  awk '/^uv==/ {on = 1} on {print} on && !/\\$/ {exit}' requirements.lock >$venv/uv.lock
  install $venv/bin/python -m pip install --disable-pip-version-check --require-hashes -r $venv/uv.lock
  install $venv/bin/uv pip install --python $venv/bin/python --require-hashes -r $lock
  if [[ $venv == .venv ]]; then
    install .venv/bin/uv pip install --python .venv/bin/python --no-deps -e .
    # uv compiles nothing: where PYTHONDONTWRITEBYTECODE is set each process would compile these anew (8 s more)
    env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -c "import torch, torchvision, pandas, wandb, matplotlib.pyplot" \
      >"$log" 2>&1 || true  # what needs one that fails says so
  fi
else  # the packages of .venv come after its own; a .pth file that only named their folder would lose their own .pth files
  install "$base" -m venv "$(readlink -f $venv)" --without-pip
  .venv/bin/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
    >"$venv/lib/python$version/site-packages/venv.pth"
  install .venv/bin/uv pip install --python $venv/bin/python --no-deps --require-hashes -r $lock
fi
rm -f "$log"
echo "$PWD/$venv/bin/python" >"$stamp"
