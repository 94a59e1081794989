"""The SO-101 as MuJoCo XML: joints from `geometry`, bodies from boxes, capsules and cylinders (no meshes).

Each link is a 3D-printed part (yellow) around the servo (black) that moves the next one. One solid per link
collides and carries the link's mass; the rest is there to be seen. Servo constants follow public
identifications of the STS3215 (damping 0.6, friction 0.052, armature 0.028, 2.94 N·m); the stiffness lies
between the published ones, 17.8 and 998 N·m/rad.

Contact bits: the arm is 1 and the cube is 2; the table and the bin let both collide with them, the base the
cube only. The arm does not collide with itself.
"""

import numpy as np

from lerobot.sim.geometry import BASE_MASS, JOINTS, MOTOR_NAMES, Joint

JAW_GAP = 0.030  # distance between the jaws where they are parallel
JAW_LENGTH = 0.0747  # from the jaw's axis to its tip
JAW_PARALLEL = 0.2  # gripper angle (rad) where the jaws are parallel
FIXED_JAW_X = JOINTS[-1].xyz[0] - JAW_GAP  # inner face of the fixed jaw in the gripper link
MAX_TORQUE = 2.94  # N·m of one servo
MAX_GRIP_TORQUE = 1.0  # N·m the gripper's servo is limited to, as its Max_Torque register is on the real arm
GRIP_DAMPING = 0.15  # N·m·s/rad; with the arm's 0.6 so weak a servo would take half a second to close
STIFFNESS, STIFFNESS_DAMPING = 120.0, 4.0  # N·m/rad, N·m·s/rad

DEFAULTS = f"""
  <default class="arm">
    <joint limited="true" damping="0.6" frictionloss="0.052" armature="0.028"/>
    <position kp="{STIFFNESS}" kv="{STIFFNESS_DAMPING}" forcerange="{-MAX_TORQUE} {MAX_TORQUE}"/>
    <geom contype="1" conaffinity="0" condim="4" friction="1.4 0.02 0.0005" material="print"/>
    <default class="seen">
      <geom contype="0" conaffinity="0" mass="0"/>
      <default class="servo"><geom type="box" material="servo"/></default>
      <default class="horn"><geom type="cylinder" material="horn"/></default>
    </default>
  </default>"""

MATERIALS = """
    <material name="print" rgba="0.98 0.74 0.16 1" specular="0.25" shininess="0.4"/>
    <material name="servo" rgba="0.12 0.12 0.14 1" specular="0.5" shininess="0.5"/>
    <material name="horn" rgba="0.78 0.79 0.82 1" specular="0.8" shininess="0.7"/>"""

BASE = f"""
      <geom type="box" pos="0.018 0 0.006" size="0.056 0.045 0.006" mass="{BASE_MASS}" contype="0"
        conaffinity="2"/>
      <geom class="seen" type="box" pos="0.012 0 0.030" size="0.050 0.029 0.020"/>
      <geom class="seen" type="cylinder" pos="0.03884 0 0.030" size="0.032 0.023"/>
      <geom class="servo" pos="-0.014 0 0.056" size="0.020 0.020 0.008"/>
      <geom class="horn" pos="0.03884 0 0.0565" size="0.020 0.004"/>"""

SHOULDER = """
      <geom type="box" pos="-0.010 0 -0.024" size="0.036 0.030 0.022" mass="{mass}"/>
      <geom class="seen" type="box" pos="-0.0304 0.0255 -0.047" size="0.016 0.004 0.022"/>
      <geom class="seen" type="box" pos="-0.0304 -0.0255 -0.047" size="0.016 0.004 0.022"/>
      <geom class="servo" pos="-0.0260 0 -0.054" size="0.020 0.0205 0.0125"/>
      <geom class="horn" pos="-0.0304 0 -0.0542" size="0.011 0.032" euler="1.5708 0 0"/>"""

UPPER_ARM = """
      <geom type="capsule" fromto="-0.018 -0.004 0.0183 -0.088 -0.022 0.0183" size="0.0150" mass="{mass}"/>
      <geom class="seen" type="box" pos="-0.050 -0.0125 0.0400" size=".062 .011 .0035" euler="0 0 0.2438"/>
      <geom class="seen" type="box" pos="-0.050 -0.0125 -0.0034" size=".062 .011 .0035" euler="0 0 0.2438"/>
      <geom class="servo" pos="-0.100 -0.0240 0.0183" size="0.0220 0.0130 0.0180" euler="0 0 0.2438"/>
      <geom class="horn" pos="-0.11257 -0.028 0.0183" size="0.0105 0.0290"/>"""

LOWER_ARM = """
      <geom type="capsule" fromto="-0.022 0.001 0.0183 -0.108 0.004 0.0183" size="0.0135" mass="{mass}"/>
      <geom class="seen" type="box" pos="-0.060 0.0023 0.0395" size=".072 .010 .0032" euler="0 0 -0.0385"/>
      <geom class="seen" type="box" pos="-0.060 0.0023 -0.0029" size=".072 .010 .0032" euler="0 0 -0.0385"/>
      <geom class="servo" pos="-0.120 0.0047 0.0183" size="0.0220 0.0125 0.0175" euler="0 0 -0.0385"/>
      <geom class="horn" pos="-0.1349 0.0052 0.0183" size="0.0100 0.0285"/>"""

WRIST = """
      <geom type="box" pos="0 -0.034 0.0181" size="0.0140 0.0210 0.0175" mass="{mass}"/>
      <geom class="servo" pos="0 -0.040 0.0181" size="0.0175 0.0125 0.0210"/>
      <geom class="horn" pos="0 -0.0585 0.0181" size="0.0120 0.0030" euler="1.5708 0 0"/>"""

GRIPPER = """
      <geom type="box" pos="0.004 0 -0.016" size="0.0230 0.0185 0.0160" mass="{mass}"/>
      <geom class="servo" pos="0.016 -0.001 -0.017" size="0.0160 0.0200 0.0125"/>
      <geom class="horn" pos="0.0202 0.0205 -0.0234" size="0.0090 0.0025" euler="1.5708 0 0"/>
      <geom class="horn" pos="0.0202 -0.0205 -0.0234" size="0.0090 0.0025" euler="1.5708 0 0"/>
      <geom type="box" pos="{fixed_x} 0 -0.0630" size="0.0040 0.0120 0.0351" mass="0.01"/>
      <geom class="seen" type="box" pos="{rib_x} 0 -0.0460" size="0.0040 0.0060 0.0180"/>
      <geom class="servo" pos="0.002 0.062 0.010" size="0.0150 0.0110 0.0070" euler="-0.64 0 0"/>
      <geom class="seen" type="box" pos="0.002 0.036 0.004" size="0.0090 0.0200 0.0030" euler="0.25 0 0"/>
      {camera}"""

JAW = """
      <geom type="box" pos="{blade}" size="0.0040 {half_length} 0.0120" euler="0 0 {tilt}" mass="{mass}"/>
      <geom class="seen" type="cylinder" pos="0 0 0.0188" size="0.0095 0.0160"/>
      <geom class="seen" type="box" pos="{rib}" size="0.0040 0.0180 0.0060" euler="0 0 {tilt}"/>"""


def look_at(eye: tuple[float, ...], target: tuple[float, ...], *, up: tuple[float, ...]) -> str:
    """The `pos` and `xyaxes` attributes of a camera at `eye` that looks at `target`."""
    backward = np.subtract(eye, target)
    right = np.cross(up, backward)
    right = right / np.linalg.norm(right)
    above = np.cross(backward, right)
    above = above / np.linalg.norm(above)
    return f'pos="{_text(eye)}" xyaxes="{_text((*right, *above))}"'


def body_xml() -> str:
    """The `<body>` of the arm, base at the origin, facing +x."""
    camera = look_at((0.002, 0.072, 0.004), (0.004, 0.006, -0.084), up=(0.0, 0.0, -1.0))
    along = np.array([-np.sin(JAW_PARALLEL), -np.cos(JAW_PARALLEL), 0.0])  # jaw's axis to its tip, at angle 0
    outward = np.array([np.cos(JAW_PARALLEL), -np.sin(JAW_PARALLEL), 0.0])
    centre = np.array(
        [0.0, 0.0, JOINTS[-1].xyz[1]]
    )  # the jaw frame lies on the servo's horn, not on its middle
    solids = {
        "shoulder_pan": SHOULDER,
        "shoulder_lift": UPPER_ARM,
        "elbow_flex": LOWER_ARM,
        "wrist_flex": WRIST,
        "wrist_roll": GRIPPER,
        "gripper": JAW,
    }
    numbers = {
        "fixed_x": FIXED_JAW_X - 0.004,
        "rib_x": FIXED_JAW_X - 0.011,
        "camera": f'<camera name="wrist" {camera} fovy="70"/>',
        "half_length": JAW_LENGTH / 2,
        "tilt": -JAW_PARALLEL,
        "blade": _text(centre + along * JAW_LENGTH / 2 + outward * 0.004),
        "rib": _text(centre + along * 0.028 + outward * 0.011),
    }
    damping = {"gripper": f' damping="{GRIP_DAMPING}"'}
    inside = ""
    for joint in reversed(JOINTS):
        solid = solids[joint.name].format(mass=joint.mass, **numbers)
        inside = _link(joint, solid, inside, more=damping.get(joint.name, ""))
    return f'<body name="base" childclass="arm">{BASE}{inside}\n    </body>'


def actuator_xml() -> str:
    """One position servo per joint, in the joints' order."""
    grip = f' forcerange="{-MAX_GRIP_TORQUE} {MAX_GRIP_TORQUE}"'
    return "\n".join(
        f'    <position class="arm" name="{name}" joint="{name}"{grip if name == "gripper" else ""}/>'
        for name in MOTOR_NAMES
    )


def _link(joint: Joint, solids: str, inside: str, *, more: str) -> str:
    return f"""
    <body name="{joint.name}_link" pos="{_text(joint.xyz)}" euler="{_text(joint.rpy)}">
      <joint name="{joint.name}" axis="0 0 1" range="{joint.lower} {joint.upper}"{more}/>{solids}{inside}
    </body>"""


def _text(numbers: tuple[float, ...] | np.ndarray) -> str:
    return " ".join(f"{number:.10g}" for number in numbers)
