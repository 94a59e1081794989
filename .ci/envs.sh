#!/usr/bin/env bash
# Tests the simulators that hold MuJoCo back, and ours with that old MuJoCo: in .venv-envs, which holds what their
# extras bring and borrows everything else from .venv. Takes seconds to set up, and nothing in .venv changes.
#   bash .ci/envs.sh [arguments of pytest]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv-envs

if [ ! -f "$venv/.installed" ] || [ pyproject.toml -nt "$venv/.installed" ] || [ .venv/.installed -nt "$venv/.installed" ]; then
  rm -rf "$venv"
  .venv/bin/python -m venv "$venv"
  mkdir "$venv/borrowed"
  packages() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
  for path in "$(packages .venv)"/*; do # MuJoCo's package looks for parts of itself in every folder
    case "${path##*/}" in mujoco* | *.pth) ;; *) ln -s "$path" "$venv/borrowed/" ;; esac
  done
  echo "$PWD/$venv/borrowed" >"$(packages "$venv")/borrowed.pth"
  requirements=$("$venv/bin/python" -c '
import tomllib
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
print("\n".join(extras["aloha"] + extras["metaworld"]))')
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check -c constraints.txt -r /dev/stdin <<<"$requirements"
  touch "$venv/.installed"
fi
"$venv/bin/python" -m pytest tests/envs tests/sim "$@"
