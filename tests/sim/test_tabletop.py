"""Layouts and success of the pick-and-place task."""

import numpy as np
import pytest

from lerobot.core.errors import ConfigError
from lerobot.sim import tabletop
from lerobot.sim.physics import Physics
from lerobot.sim.scene import CUBE_HALF


def layouts(difficulty: str, count: int = 200) -> list[tabletop.Layout]:
    return [tabletop.draw_layout(difficulty, np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("difficulty", tabletop.AREAS)
def test_a_seed_fixes_a_layout_and_another_gives_another(difficulty):
    assert layouts(difficulty, 5) == layouts(difficulty, 5)
    assert len({layout.cube for layout in layouts(difficulty, 50)}) == 50


def test_harder_means_wider():
    areas = [np.ptp([layout.cube for layout in layouts(name)], axis=0)[:2].prod() for name in tabletop.AREAS]
    assert areas[0] < areas[1] < areas[2]
    assert len({layout.bin_position for layout in layouts("easy")}) == 1
    assert len({layout.bin_position for layout in layouts("hard")}) == 200


def test_the_easy_cube_faces_the_arm_and_the_hard_one_anything():
    for layout in layouts("easy"):
        x, y, yaw = layout.cube
        assert yaw == pytest.approx(np.arctan2(y, x - 0.03884))
    assert np.ptp([layout.cube[2] for layout in layouts("hard")]) > 6


def test_the_jaws_fit_between_cube_and_bin():
    for difficulty in tabletop.AREAS:
        for layout in layouts(difficulty):
            assert np.hypot(*np.subtract(layout.cube[:2], layout.bin_position)) > tabletop.MIN_CUBE_TO_BIN


def test_an_unknown_difficulty_suggests_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'medium'"):
        tabletop.draw_layout("mediun", np.random.default_rng(0))


def test_placed_means_in_the_bin_at_rest_and_let_go():
    physics = Physics()
    physics.reset(angles=tabletop.HOME, cube=(0.22, 0.05, 0.0))
    assert not tabletop.is_placed(physics)
    x, y, _ = physics.bin_position
    physics.reset(angles=tabletop.HOME, cube=(x, y, 0.3))
    physics._data.qpos[8] = 0.08  # above the bin: falls in
    physics.step(1)
    assert not tabletop.is_placed(physics)
    physics.step(30)
    assert not tabletop.is_placed(physics)  # still moving
    physics.step(400)
    assert tabletop.is_placed(physics)
    assert physics.cube_pose[2] == pytest.approx(CUBE_HALF + 0.002, abs=1e-3)
