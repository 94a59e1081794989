"""Pictures of a MuJoCo model, ours or another package's, as it is or fast.

Drawn in software, shadows and smooth edges are nearly all of the work: leaving out shadows, reflections and
multisampling makes a picture 4 to 40 times as fast, and another picture. A policy that has learned from the
one does not know the other.
"""

import functools
import logging
import os
import weakref
from typing import Any

import numpy as np

from lerobot.sim import gl

logger = logging.getLogger(__name__)
FAST_SHAPES = (16, 8, 1)  # facets of round things: around, along, and of flat ones


class Drawing:
    """Draws one model; every size has a context of its own, made when it is first asked for.

    Args:
        model: a `mujoco.MjModel`.
        advice: logged once per process when the model as it is must be drawn in software.
        hidden_groups: numbers of the groups of shapes that are not drawn.
    """

    def __init__(self, model: Any, *, advice: str = "", hidden_groups: tuple[int, ...] = ()):
        self._mujoco = gl.import_mujoco()
        self._options = self._mujoco.MjvOption()
        self._options.geomgroup[list(hidden_groups)] = 0
        self._model = model
        self._advice = advice
        quality = model.vis.quality
        self._quality = (quality.offsamples, quality.numslices, quality.numstacks, quality.numquads)
        self._renderers: dict[tuple[int, int, bool, int], Any] = {}
        weakref.finalize(self, _close_all, self._renderers)

    def picture(
        self, data: Any, camera: str | int, *, width: int, height: int, is_fast: bool = False
    ) -> np.ndarray:
        """(H, W, 3) uint8: the state `data` (a `mujoco.MjData`) from `camera`.

        Args:
            is_fast: without shadows, reflections and smooth edges.

        Raises:
            EnvironmentSetupError: nothing here can draw.
        """
        # A forked process must not draw with its parent's context.
        kind = (width, height, is_fast, os.getpid())
        if kind not in self._renderers:
            self._renderers[kind] = self._make_renderer(width, height, is_fast=is_fast)
        renderer = self._renderers[kind]
        renderer.update_scene(data, camera, self._options)
        return renderer.render()

    def close(self) -> None:
        """Free the contexts; called at exit if nobody did before."""
        _close_all(self._renderers)

    def _make_renderer(self, width: int, height: int, *, is_fast: bool) -> Any:
        gl.require_renderer()
        buffer, quality = self._model.vis.global_, self._model.vis.quality  # read when the context is made
        buffer.offwidth, buffer.offheight = max(buffer.offwidth, width), max(buffer.offheight, height)
        (quality.offsamples, quality.numslices, quality.numstacks, quality.numquads) = (
            (0, *FAST_SHAPES) if is_fast else self._quality
        )
        renderer = self._mujoco.Renderer(self._model, height, width)
        gl.close_at_exit(self)
        if is_fast:
            flags = self._mujoco.mjtRndFlag
            renderer.scene.flags[flags.mjRND_SHADOW] = False
            renderer.scene.flags[flags.mjRND_REFLECTION] = False
        elif self._advice and gl.is_software():
            _advise(self._advice)
        return renderer


@functools.cache
def _advise(advice: str) -> None:
    logger.warning(advice)


def _close_all(renderers: dict) -> None:
    while renderers:
        renderers.popitem()[1].close()
