"""Pictures: right size, really of the scene, the same for the same state."""

import numpy as np
import pytest

from lerobot.core.errors import UserError
from lerobot.sim import gl, tabletop
from lerobot.sim.physics import Physics
from lerobot.sim.scene import CAMERAS

pytestmark = pytest.mark.skipif(not gl.has_renderer(), reason="nothing here can draw")


@pytest.fixture(scope="module")
def physics():
    made = Physics()
    made.reset(angles=tabletop.HOME, cube=(0.22, 0.06, 0.2))
    yield made
    made.close()


@pytest.mark.parametrize("camera", CAMERAS)
def test_every_camera_sees_the_cube(physics, camera):
    image = physics.render(camera, width=96, height=96)
    assert image.shape == (96, 96, 3) and image.dtype == np.uint8
    red, green, blue = image.astype(int).transpose(2, 0, 1)
    assert ((red > 120) & (green < 60) & (blue < 60)).sum() > 15


@pytest.mark.parametrize("camera", ["front", "overview"])
def test_outside_cameras_see_bin_and_arm(physics, camera):
    red, green, blue = physics.render(camera, width=96, height=96).astype(int).transpose(2, 0, 1)
    assert ((blue > 120) & (red < 60)).sum() > 100
    assert ((red > 150) & (green > 100) & (blue < 80)).sum() > 100


def test_pictures_follow_the_state(physics):
    first = physics.render("front", width=64, height=48)
    np.testing.assert_array_equal(physics.render("front", width=64, height=48), first)
    saved = physics.save_state()
    physics.reset(angles=tabletop.HOME, cube=(0.20, -0.02, 0.0))
    moved = physics.render("front", width=64, height=48)
    physics.restore_state(saved)
    assert (moved != first).any()
    np.testing.assert_array_equal(physics.render("front", width=64, height=48), first)


def test_shadows_are_drawn_when_asked_for(physics):
    plain = physics.render("overview", width=64, height=64)
    shaded = physics.render("overview", width=64, height=64, has_shadows=True)
    assert shaded.mean() < plain.mean()
    np.testing.assert_array_equal(physics.render("overview", width=64, height=64), plain)


def test_sizes_that_cannot_be_drawn_are_errors(physics):
    for width, height in ((0, 10), (10, 4000)):
        with pytest.raises(UserError, match="1 to 1920"):
            physics.render("front", width=width, height=height)


def test_closed_contexts_come_back_when_needed(physics):
    before = physics.render("wrist", width=32, height=32)
    physics.close()
    np.testing.assert_array_equal(physics.render("wrist", width=32, height=32), before)
