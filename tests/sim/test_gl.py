"""Choosing how to draw: really probed libraries, one-line advice, nothing on stderr at the end."""

import os
import subprocess
import sys

import pytest

from lerobot.core.errors import EnvironmentSetupError
from lerobot.sim import gl

DRAWING_VARIABLES = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY")
needs_renderer = pytest.mark.skipif(not gl.has_renderer(), reason="nothing here can draw")


@pytest.fixture
def headless(monkeypatch):
    for name in DRAWING_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")


def run(script: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )


def test_a_choice_of_the_user_is_kept(headless, monkeypatch):
    monkeypatch.setattr(gl, "BACKENDS", {"egl": ("c", "printf"), "osmesa": ("c", "printf")})
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert gl.choose_backend() == "osmesa" == os.environ["PYOPENGL_PLATFORM"]


def test_the_platform_of_pyopengl_is_followed(headless, monkeypatch):
    monkeypatch.setattr(gl, "BACKENDS", {"egl": ("c", "printf"), "osmesa": ("c", "printf")})
    monkeypatch.setenv("PYOPENGL_PLATFORM", "osmesa")
    assert gl.choose_backend() == "osmesa" == os.environ["MUJOCO_GL"]


def test_a_choice_that_is_not_here_names_its_package(headless, monkeypatch):
    monkeypatch.setattr(gl, "BACKENDS", {"osmesa": ("NoSuchLibrary", "f")})
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(EnvironmentSetupError, match="apt-get install libosmesa6"):
        gl.choose_backend()


def test_two_variables_that_contradict_each_other_are_an_error(headless, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("PYOPENGL_PLATFORM", "osmesa")
    with pytest.raises(EnvironmentSetupError, match="unset PYOPENGL_PLATFORM"):
        gl.choose_backend()


def test_a_screen_is_left_alone(headless, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    assert gl.choose_backend() == "" and "MUJOCO_GL" not in os.environ


def test_macos_is_left_alone(headless, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert gl.choose_backend() == "" and "MUJOCO_GL" not in os.environ


def test_without_screen_the_first_library_that_loads_is_taken(headless, monkeypatch):
    monkeypatch.setattr(gl, "BACKENDS", {"egl": ("NoSuchLibrary", "f"), "osmesa": ("c", "printf")})
    assert gl.choose_backend() == "osmesa" == os.environ["MUJOCO_GL"]


def test_a_library_without_its_entry_point_does_not_count(headless, monkeypatch):
    monkeypatch.setattr(gl, "BACKENDS", {"egl": ("c", "no_such_function")})
    assert not gl.is_loadable("egl")


def test_without_any_library_one_line_names_the_package(headless, monkeypatch):
    monkeypatch.setattr(gl, "BACKENDS", {"egl": ("NoSuchLibrary", "f")})
    gl._draw_once.cache_clear()
    try:
        assert not gl.has_renderer()
        with pytest.raises(
            EnvironmentSetupError, match="apt-get install libegl1 libgl1-mesa-dri .*libosmesa6"
        ) as error:
            gl.require_renderer()
        assert "\n" not in str(error.value)
    finally:
        gl._draw_once.cache_clear()


@pytest.mark.slow
def test_physics_runs_where_nothing_draws():
    done = run(
        "from lerobot.sim.physics import Physics\n"
        "physics = Physics()\n"
        "physics.step(10)\n"
        "try:\n    physics.render('front', width=8, height=8)\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n",
        MUJOCO_GL="disable",
    )
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("EnvironmentSetupError") and "libegl1" in done.stdout


@needs_renderer
@pytest.mark.slow
def test_mujoco_imported_too_early_is_said():
    script = "import mujoco\nfrom lerobot.sim import gl\nprint(gl.renderer_problem())\n"
    environment = {name: value for name, value in os.environ.items() if name not in DRAWING_VARIABLES}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert "imported with another back end. Type: export MUJOCO_GL=" in done.stdout


@needs_renderer
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_is_told_to_start_anew():
    done = run(
        "import os\n"
        "from lerobot.sim.physics import Physics\n"
        "physics = Physics()\n"
        "physics.render('front', width=8, height=8)\n"
        "child = os.fork()\n"
        "if child:\n    os.waitpid(child, 0)\n"
        "else:\n"
        "    try:\n        physics.render('front', width=8, height=8)\n"
        "    except Exception as error:\n        print(type(error).__name__, error, flush=True)\n"
        "    os._exit(0)\n"
    )
    assert done.stdout.startswith("EnvironmentSetupError") and "spawn" in done.stdout


@needs_renderer
@pytest.mark.slow
@pytest.mark.parametrize("ending", ["", "physics.close()", "import sys; sys.exit(0)"])
def test_leaving_says_nothing(ending):
    done = run(
        "from lerobot.sim.physics import Physics\n"
        "physics = Physics()\n"
        "other = Physics()\n"
        "for made in (physics, other):\n"
        "    front = made.render('front', width=32, height=24)\n"
        "    print(front.shape, made.render('wrist', width=16, height=16).shape)\n" + ending
    )
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines() == ["(24, 32, 3) (16, 16, 3)"] * 2
