"""What people see when something fails: one class per kind of mistake; the message says what to type next."""

import difflib
import errno
from collections.abc import Iterable

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # error numbers: no space, quota, size limit


class LeRobotError(Exception):
    """A failure that was expected to be possible; commands print its message without a traceback."""

    exit_status = 1


class UserError(LeRobotError, ValueError):
    """The command line, the config file or a call is wrong; commands exit with status 2."""

    exit_status = 2


class ConfigError(UserError):
    """A flag, a config key or one of their values is not accepted."""


class DatasetError(UserError):
    """A dataset is missing, damaged or does not hold what was asked for."""


class FrameError(DatasetError):
    """A frame that does not fit the dataset's declared features was offered for recording."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or does not fit the model."""


class FeatureMismatchError(UserError):
    """Dataset, environment and policy disagree about names or shapes of features."""


class MissingStatsError(UserError):
    """A feature must be normalised and its statistics are not there."""


class MissingExtraError(UserError, ImportError):
    """An optional package is not installed."""


class DeviceError(UserError):
    """The compute device that was asked for is not there."""


class TrainingError(LeRobotError):
    """A run cannot go on: its loss is no longer a number, or its state cannot be saved."""


class LostConnectionError(LeRobotError):
    """Another process of the run does not answer: it ended before, and said why, or was stopped."""


class ClusterError(LeRobotError):
    """A cluster of machines that was to be used does not answer."""


class EnvironmentSetupError(LeRobotError):
    """A simulated environment or its renderer cannot start on this machine."""


class EnvironmentFailedError(LeRobotError):
    """A simulated environment failed in the middle of an episode, which the message names."""


def suggest(name: str, known: Iterable[str]) -> str:
    """' Did you mean X?' for the nearest known name, capitals aside, or an empty string."""
    by_small = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_small, n=1, cutoff=0.6)
    return f" Did you mean {by_small[near[0]]!r}?" if near else ""
