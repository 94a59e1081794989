#!/usr/bin/env bash
# Tests a simulator whose MuJoCo is not the one in .venv: in .venv-<extra>, which holds what the extra brings and
# borrows everything else from .venv. Takes seconds to set up, and nothing in .venv changes.
#   bash .ci/envs.sh metaworld [arguments of pytest]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extra=$1
shift
venv=.venv-$extra

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
import sys, tomllib
print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]]))' "$extra")
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check -c constraints.txt -r /dev/stdin <<<"$requirements"
  touch "$venv/.installed"
fi
"$venv/bin/python" -m pytest "tests/envs/test_env_$extra.py" tests/envs/test_every_env.py tests/envs/test_experts.py -k "$extra" "$@"
