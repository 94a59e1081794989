"""LeRobot: record robot demonstrations, look at them, train a policy, evaluate it, run it on the robot."""

from lerobot import compat

__version__ = "0.7.0"

compat.install()
