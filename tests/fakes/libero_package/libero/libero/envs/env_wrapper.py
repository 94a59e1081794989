"""A hand that moves over a box; placing fails now and then, and for ever where the bddl file says so."""

from types import SimpleNamespace

import mujoco
import numpy as np
from robosuite.utils.errors import RandomizationError

SCENE = """
<mujoco><worldbody>
  <light pos="0 0 3"/><geom type="plane" size="2 2 .1" rgba=".4 .5 .6 1"/>
  <body name="box"><freejoint/>
    <geom type="box" size=".1 .1 .1" rgba="1 0 0 1" group="1" contype="0" conaffinity="0" mass="1"/>
    <geom type="sphere" size=".5" rgba="0 1 0 1" group="0" contype="0" conaffinity="0" mass="0"/>
  </body>
  <camera name="agentview" pos="1 .3 1" xyaxes="-.3 1 0 -.7 -.2 .7"/>
  <camera name="robot0_eye_in_hand" pos="0 0 2"/>
</worldbody></mujoco>"""
STEP_M = 0.05


class ControlEnv:
    def __init__(self, bddl_file_name, *, hard_reset, **settings):
        with open(bddl_file_name) as file:  # a missing file fails like a missing scene
            self.words = file.read().split()
        if "no-scene" in self.words:
            raise FileNotFoundError(2, "No such file", "assets/scenes/table.xml")
        self.settings = settings | {"hard_reset": hard_reset}
        self.env = Inner(self)
        self.is_closed = False

    @property
    def robots(self):
        return self.env.robots

    @property
    def sim(self):
        return self.env.sim

    def reset(self):
        raise AssertionError("the package's own reset never ends when the scene fails")

    def set_init_state(self, state):
        self.env.hand[:] = state
        return self.env.observe()

    def check_success(self):
        return bool(self.env.hand[2] > 0.5)

    def step(self, action):
        return self.env.step(action)

    def close(self):
        self.is_closed = True


class Inner:
    def __init__(self, owner):
        self.owner, self.resets = owner, 0
        self.load()

    def load(self):
        model = mujoco.MjModel.from_xml_string(SCENE)
        self.sim = SimpleNamespace(
            model=SimpleNamespace(_model=model), data=SimpleNamespace(_data=mujoco.MjData(model))
        )
        self.robots = [SimpleNamespace(controller=SimpleNamespace(use_delta=True))]
        self.hand, self.waited = np.zeros(3), 0

    def reset(self):
        self.resets += 1
        if "no-room" in self.owner.words or self.resets % 2:
            raise RandomizationError
        if self.owner.settings["hard_reset"]:
            self.load()
        self.hand, self.waited = np.random.uniform(-0.1, 0.1, 3), 0
        self.show()

    def step(self, action):
        assert action.shape == (7,)
        if self.robots[0].controller.use_delta:
            self.hand += STEP_M * np.clip(action[:3], -1, 1)
        else:
            self.hand[:] = action[:3]
        self.waited += not action[:6].any()
        self.show()
        return self.observe(), float(self.owner.check_success()), False, {}

    def show(self):
        data = self.sim.data._data
        data.qpos[:3] = self.hand
        mujoco.mj_forward(self.sim.model._model, data)

    def observe(self):
        return {
            "robot0_eef_pos": self.hand.copy(),
            "robot0_eef_quat": np.array([1.0, 0, 0, 0]),
            "robot0_gripper_qpos": np.array([0.04, -0.04]),
        }
