"""Chooses how MuJoCo draws without a screen, before MuJoCo is imported: that is when it reads MUJOCO_GL.

A back end counts as usable when its shared library loads and has the entry point that MuJoCo's binding calls.
"""

import ctypes
import ctypes.util
import functools
import os
import sys
from types import ModuleType

from lerobot.core.errors import EnvironmentSetupError
from lerobot.core.optional import require

BACKENDS = {
    "egl": ("EGL", "eglGetProcAddress"),
    "osmesa": ("OSMesa", "OSMesaCreateContextExt"),
}  # library, symbol
OFF = ("disable", "disabled", "off", "false", "0")
ADVICE = "Type: sudo apt-get install libegl1 libgl1-mesa-dri (or: libosmesa6)"
FORKED = (
    "This process was forked from one that has drawn, and drawing libraries do not survive that. "
    "Start it anew: multiprocessing.get_context('spawn'), AsyncVectorEnv(..., context='spawn')."
)
TINY_SCENE = """
<mujoco><worldbody><light pos="0 0 3"/><geom type="sphere" size="1" rgba="1 1 1 1"/></worldbody></mujoco>"""


def choose_backend() -> str:
    """Settle MUJOCO_GL and return it: kept when set, 'egl' or 'osmesa' on a Linux without screen, else ''.

    Where neither library loads it is 'disable': physics works, pictures do not (`require_renderer` says why).
    """
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
    has_screen = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if chosen or not sys.platform.startswith("linux") or has_screen:
        return chosen
    chosen = next((name for name in BACKENDS if is_loadable(name)), "disable")
    os.environ["MUJOCO_GL"] = chosen
    return chosen


def is_loadable(backend: str) -> bool:
    """Whether the shared library of 'egl' or 'osmesa' loads and is whole."""
    library, symbol = BACKENDS[backend]
    path = ctypes.util.find_library(library)
    if path is None:
        return False
    try:
        return hasattr(ctypes.CDLL(path), symbol)
    except OSError:  # found, but something it needs is missing
        return False


def import_mujoco() -> ModuleType:
    """MuJoCo, imported with a back end that can draw here, if there is one.

    Raises:
        MissingExtraError: it is not installed.
    """
    choose_backend()
    return require("mujoco", extra="sim")


def require_renderer() -> None:
    """Return if pictures can be drawn here.

    Raises:
        EnvironmentSetupError: they cannot; one line names the Debian package to install.
    """
    problem = renderer_problem()
    if problem:
        raise EnvironmentSetupError(problem)


def has_renderer() -> bool:
    """Whether pictures can be drawn here: one tiny frame is really drawn, the first time this is asked."""
    return renderer_problem() is None


def renderer_problem() -> str | None:
    """Why no picture can be drawn here, in one line with the cure; None when they can."""
    process, problem = _draw_once()
    if problem is None and process != os.getpid():
        return FORKED
    return problem


@functools.cache
def _draw_once() -> tuple[int, str | None]:
    """The process that tried to draw a tiny frame, and what went wrong; a fork inherits the answer."""
    backend = choose_backend()
    if backend in OFF:
        return (
            os.getpid(),
            f"Nothing can be drawn: neither EGL nor OSMesa is here, or MUJOCO_GL=disable. {ADVICE}",
        )
    mujoco = import_mujoco()
    model = mujoco.MjModel.from_xml_string(TINY_SCENE)
    model.vis.quality.offsamples = 0
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    try:
        with mujoco.Renderer(model, 16, 16) as renderer:
            renderer.update_scene(data)
            is_drawn = bool(renderer.render().any())
    except Exception as error:  # noqa: BLE001  each back end has its own: FatalError, EGLError, AttributeError
        reason = " ".join(str(error).split())[:200]
        return os.getpid(), f"MUJOCO_GL={backend!r} cannot draw: {reason}. {ADVICE}"
    return os.getpid(), None if is_drawn else f"MUJOCO_GL={backend!r} draws black pictures. {ADVICE}"
