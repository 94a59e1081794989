"""The tabletop around the arm as MuJoCo XML: table, cube, bin, lights and cameras.

The arm's base is at the origin of the table top and faces +x; z points up. Two cameras feed policies: `front`
looks back at the workspace, `wrist` rides on the gripper. `overview` is for people.
"""

from lerobot.sim import arm

CUBE_HALF = 0.015  # m
CUBE_MASS = 0.025  # kg
BIN_HALF = 0.048  # m, inside
BIN_HEIGHT = 0.036  # m
WALL = 0.003  # m, half of a wall's thickness
CAMERAS = ("front", "wrist", "overview")
MAX_IMAGE_SIZE = (1920, 1920)  # width, height


def scene_xml(*, timestep_s: float) -> str:
    """The whole scene; MuJoCo compiles it."""
    front = arm.look_at((0.500, -0.005, 0.360), (0.110, -0.005, 0.050), up=(0.0, 0.0, 1.0))
    overview = arm.look_at((0.620, -0.330, 0.400), (0.125, 0.000, 0.095), up=(0.0, 0.0, 1.0))
    return f"""
<mujoco model="so101_tabletop">
  <compiler angle="radian" eulerseq="XYZ"/>
  <option timestep="{timestep_s!r}" integrator="implicitfast" cone="elliptic" impratio="5" iterations="20"/>
  <size memory="1M"/>
  <visual>
    <global offwidth="{MAX_IMAGE_SIZE[0]}" offheight="{MAX_IMAGE_SIZE[1]}"/>
    <headlight ambient="0.40 0.40 0.42" diffuse="0.26 0.26 0.26" specular="0.1 0.1 0.1"/>
    <quality shadowsize="4096"/>
    <map znear="0.02" zfar="20" shadowclip="0.6"/>
  </visual>
  <statistic center="0.15 0 0.1" extent="0.8"/>
  <default>{arm.DEFAULTS}
  </default>
  <asset>{arm.MATERIALS}
    <texture name="sky" type="skybox" builtin="gradient" rgb1="0.86 0.91 0.96" rgb2="0.50 0.58 0.68"
      width="64" height="384"/>
    <texture name="wood" type="2d" builtin="checker" rgb1="0.86 0.83 0.78" rgb2="0.84 0.81 0.755" width="128"
      height="128"/>
    <material name="table" texture="wood" texrepeat="6 6" specular="0.05" shininess="0.1"/>
    <material name="cube" rgba="0.86 0.12 0.13 1" specular="0.3" shininess="0.4"/>
    <material name="bin" rgba="0.13 0.42 0.78 1" specular="0.2" shininess="0.3"/>
  </asset>
  <worldbody>
    <light pos="0.5 -0.5 1.3" dir="-0.32 0.42 -1.0" directional="true" diffuse="0.52 0.51 0.49"
      specular="0.3 0.3 0.3"/>
    <camera name="front" {front} fovy="48"/>
    <camera name="overview" {overview} fovy="38"/>
    <geom name="table" type="box" pos="0.15 0 -0.02" size="0.45 0.45 0.02" material="table" contype="0"
      conaffinity="3" friction="1.0 0.01 0.0005"/>
    {arm.body_xml()}
    <body name="cube" pos="0.22 0 {CUBE_HALF}">
      <freejoint name="cube"/>
      <geom name="cube" type="box" size="{CUBE_HALF} {CUBE_HALF} {CUBE_HALF}" mass="{CUBE_MASS}"
        material="cube" contype="2" conaffinity="1" condim="4" friction="1.2 0.01 0.0005"/>
    </body>
    <body name="bin" mocap="true" pos="0.17 -0.14 0">{_bin_walls()}
    </body>
  </worldbody>
  <actuator>
{arm.actuator_xml()}
  </actuator>
</mujoco>"""


def _bin_walls() -> str:
    """The bin's floor and four walls; its origin is the middle of the floor, on the table."""
    looks, middle = 'type="box" material="bin" contype="0" conaffinity="3"', BIN_HALF + WALL
    walls = f'\n      <geom {looks} pos="0 0 0.001" size="{middle} {middle} 0.001"/>'
    for sign in (-1, 1):
        across, along = f"{WALL} {middle + WALL} {BIN_HEIGHT / 2}", f"{middle + WALL} {WALL} {BIN_HEIGHT / 2}"
        walls += f'\n      <geom {looks} pos="{sign * middle} 0 {BIN_HEIGHT / 2}" size="{across}"/>'
        walls += f'\n      <geom {looks} pos="0 {sign * middle} {BIN_HEIGHT / 2}" size="{along}"/>'
    return walls
