#!/usr/bin/env bash
# Pictures of the simulation need EGL or OSMesa on a Linux without a screen. Installs the Debian packages where this
# is allowed; where not, says in one line which ones to install. Never fails: physics works without pictures.
#   bash .ci/renderer.sh .venv/bin/python
set -u
python=$1

can_draw() { "$python" -c 'import sys; from lerobot.sim import gl; sys.exit(not gl.has_renderer())' >/dev/null 2>&1; }
has_simulator() { "$python" -c 'import mujoco' >/dev/null 2>&1; }

[ "$(uname -s)" = Linux ] && has_simulator || exit 0
can_draw && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing libegl1 and libgl1-mesa-dri, which draw the simulation ..."
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y libegl1 libgl1-mesa-dri; } >/dev/null 2>&1
  can_draw && exit 0
fi
echo "The simulation cannot be drawn here; it goes on without cameras. For pictures: apt-get install libegl1 libgl1-mesa-dri"
