"""Chooses how MuJoCo draws without a screen, before MuJoCo is imported: that is when it reads MUJOCO_GL.

A back end counts as usable when its shared library loads and has the entry point that MuJoCo's binding calls.
dm_control and robosuite read the same variable; PyOpenGL, which all of them draw with, reads its own.
"""

import atexit
import ctypes
import ctypes.util
import functools
import os
import sys
import weakref
from types import ModuleType
from typing import Protocol

from lerobot.core.errors import EnvironmentSetupError
from lerobot.core.optional import require

BACKENDS = {
    "egl": ("EGL", "eglGetProcAddress"),
    "osmesa": ("OSMesa", "OSMesaCreateContextExt"),
}  # library, symbol
OFF = ("disable", "disabled", "off", "false", "0")
SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software")  # in the names of Mesa's renderers without a GPU
PACKAGES = {"egl": "libegl1 libgl1-mesa-dri", "osmesa": "libosmesa6"}  # of Debian
ADVICE = f"Type: sudo apt-get install {PACKAGES['egl']} (or: {PACKAGES['osmesa']})"
FORKED = (
    "This process was forked from one that has drawn, and drawing libraries do not survive that. "
    "Start it anew: multiprocessing.get_context('spawn'), AsyncVectorEnv(..., context='spawn')."
)
TINY_SCENE = """
<mujoco><worldbody><light pos="0 0 3"/><geom type="sphere" size="1" rgba="1 1 1 1"/></worldbody></mujoco>"""


class Closable(Protocol):
    """Something that holds a drawing context until it is closed."""

    def close(self) -> None:
        """Free the context; calling it again does nothing."""


_DRAWING: "weakref.WeakSet[Closable]" = weakref.WeakSet()


def choose_backend() -> str:
    """Settle MUJOCO_GL and return it: kept when set, 'egl' or 'osmesa' on a Linux without screen, else ''.

    PYOPENGL_PLATFORM is settled with it. Where neither library loads MUJOCO_GL is 'disable': physics works,
    pictures do not (`require_renderer` says why).

    Raises:
        EnvironmentSetupError: the back end that the user chose is not here, or the two variables contradict
            each other; MuJoCo could not even be imported.
    """
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
    platform = os.environ.get("PYOPENGL_PLATFORM", "").strip().lower()
    if chosen in BACKENDS and platform not in ("", chosen):
        raise EnvironmentSetupError(
            f"MUJOCO_GL={chosen} and PYOPENGL_PLATFORM={platform} contradict each other. "
            "Type: unset PYOPENGL_PLATFORM"
        )
    if chosen in BACKENDS and not is_loadable(chosen):
        raise EnvironmentSetupError(
            f"MUJOCO_GL={chosen}, and its library is not here. "
            f"Type: sudo apt-get install {PACKAGES[chosen]} (or: unset MUJOCO_GL)"
        )
    has_screen = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if not chosen and sys.platform.startswith("linux") and not has_screen:
        wanted = [platform] if platform in BACKENDS else list(BACKENDS)
        chosen = next((name for name in wanted if is_loadable(name)), "disable")
        os.environ["MUJOCO_GL"] = chosen
    if chosen in BACKENDS:
        os.environ["PYOPENGL_PLATFORM"] = chosen
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


def import_mujoco(*, extra: str = "sim") -> ModuleType:
    """MuJoCo, imported with a back end that can draw here, if there is one.

    Raises:
        MissingExtraError: it is not installed; names the extra that brings it.
    """
    choose_backend()
    return require("mujoco", extra=extra)


def close_at_exit(thing: Closable) -> None:
    """Close it before MuJoCo shuts EGL down at exit, if nobody has by then; it is not kept alive for that."""
    _register_at_exit()
    _DRAWING.add(thing)


def is_software() -> bool:
    """Whether the context that is current now draws on the processor: tens of times slower than a GPU."""
    opengl = require("OpenGL.GL", extra="sim")
    name = (opengl.glGetString(opengl.GL_RENDERER) or b"").decode(errors="replace").lower()
    return any(word in name for word in SOFTWARE)


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
    try:
        backend = choose_backend()
    except EnvironmentSetupError as error:
        return os.getpid(), str(error)
    if backend in OFF:
        return (
            os.getpid(),
            f"Nothing can be drawn: neither EGL nor OSMesa is here, or MUJOCO_GL=disable. {ADVICE}",
        )
    mujoco = import_mujoco()
    if backend in BACKENDS and not mujoco.GLContext.__module__.endswith(backend):
        return os.getpid(), f"MuJoCo was imported with another back end. Type: export MUJOCO_GL={backend}"
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


@functools.cache
def _register_at_exit() -> None:
    atexit.register(_close_drawing)  # what is registered later runs earlier: before MuJoCo's own


def _close_drawing() -> None:
    for thing in list(_DRAWING):
        thing.close()
