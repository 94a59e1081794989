"""The small files of the ground floor: the frame of commands, log, clock, optional packages, types."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lerobot.core import log
from lerobot.core.clock import Pacer, readable_duration
from lerobot.core.command import command
from lerobot.core.errors import ConfigError, DatasetError, EnvironmentSetupError, MissingExtraError, suggest
from lerobot.core.optional import require
from lerobot.core.types import FeatureType, NormalizationMode, PolicyFeature, image_shape, policy_features

ROOT = Path(__file__).parents[2]


# -------------------------------------------------------------------------------------------------- command
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("--x is unknown."), 2),
        (DatasetError("no such dataset"), 2),
        (EnvironmentSetupError("no renderer"), 1),
    ],
)
def test_our_errors_are_one_line_and_a_status(error, status, capsys):
    @command
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    assert capsys.readouterr().err == f"error: {error}\n"


def test_a_mistake_of_ours_keeps_its_traceback():
    @command
    def main():
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        main()


def test_success_returns(capsys):
    done = []
    command(lambda: done.append(1))()
    assert done == [1]


def program(code: str, **how) -> subprocess.Popen:
    code = "from lerobot.core.command import command\n" + code
    return subprocess.Popen(
        [sys.executable, "-u", "-c", code], cwd=ROOT, stdout=-1, stderr=-1, text=True, **how
    )


def test_ctrl_c_has_a_status_and_no_traceback():
    running = program("import time\n@command\ndef main():\n    print('on')\n    time.sleep(30)\nmain()")
    assert running.stdout.readline() == "on\n"
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=10)
    assert (running.returncode, said) == (130, "interrupted\n")


def test_a_reader_that_leaves_is_no_error():
    running = program("@command\ndef main():\n    while True:\n        print('row')\nmain()")
    assert running.stdout.readline() == "row\n"
    running.stdout.close()
    assert running.wait(timeout=10) == 0
    assert running.stderr.read() == ""


@pytest.mark.parametrize("flag", ["--batch_sise=3", "--policy.type=atc", "--batch_size=abc", "stray"])
def test_a_users_mistake_at_a_real_command(flag):
    words = [
        sys.executable,
        "-m",
        "lerobot.scripts.train",
        "--dataset.repo_id=a/b",
        "--policy.type=act",
        flag,
    ]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=os.environ)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------------ log
@pytest.fixture
def root_logger():
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield root
    root.handlers = before
    root.setLevel(level)


def test_levels(root_logger, capsys):
    log.start("warning")
    logging.getLogger("lerobot.x").info("quiet")
    logging.getLogger("lerobot.x").warning("loud")
    assert capsys.readouterr().err == "WARNING loud\n"


def test_started_twice_says_everything_once(root_logger, capsys):
    log.start("INFO")
    log.start("INFO")
    logging.getLogger("lerobot.x").info("once")
    assert capsys.readouterr().err == "INFO once\n"


def test_handlers_of_others_stay(root_logger):
    theirs = logging.NullHandler()
    root_logger.addHandler(theirs)
    log.start("INFO")
    assert theirs in root_logger.handlers


def test_an_unknown_level():
    with pytest.raises(ConfigError, match="--log_level=INFOO: .* Did you mean 'INFO'"):
        log.start("infoo")


# ---------------------------------------------------------------------------------------------------- clock
def test_a_pacer_keeps_its_average_rate():
    pacer, began = Pacer(fps=200), time.perf_counter()
    for tick in range(20):
        if tick == 5:
            time.sleep(0.008)  # one late tick is caught up
        pacer.wait()
    assert time.perf_counter() - began > 0.095


def test_a_late_tick_says_so():
    pacer = Pacer(fps=1000)
    time.sleep(0.01)
    assert pacer.wait() < 0


def test_after_a_long_stop_a_loop_does_not_race():
    pacer = Pacer(fps=100)
    time.sleep(0.1)  # ten ticks late
    pacer.wait()
    began = time.perf_counter()
    for _ in range(4):
        pacer.wait()
    assert time.perf_counter() - began > 0.015


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (45.4, "45 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3600, "1 h 00 min"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations(seconds, text):
    assert readable_duration(seconds) == text


# ------------------------------------------------------------------------------------------------- optional
def test_a_package_that_is_there():
    assert require("json.decoder", extra="sim").__name__ == "json.decoder"


def test_a_missing_package_names_the_extra():
    with pytest.raises(
        MissingExtraError, match=r"'no_such_thing' is not installed. Type: pip install 'lerobot\[sim\]'"
    ):
        require("no_such_thing.inner", extra="sim")


def test_a_package_that_lacks_something_itself(tmp_path, monkeypatch):
    (tmp_path / "broken_vendor.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency") as raised:
        require("broken_vendor", extra="sim")
    assert not isinstance(raised.value, MissingExtraError)


# ----------------------------------------------------------------------------------------- errors and types
def test_suggestions():
    assert suggest("BATCH_sise", ["steps", "batch_size"]) == " Did you mean 'batch_size'?"
    assert suggest("zzz", ["steps", "batch_size"]) == ""


def test_enums_print_as_their_values():
    assert str({"STATE": NormalizationMode.MEAN_STD}) == "{'STATE': 'MEAN_STD'}"
    assert str({"x": PolicyFeature(FeatureType.STATE, (6,))}) == "{'x': {'type': 'STATE', 'shape': [6]}}"


@pytest.mark.parametrize(
    ("feature", "shape"),
    [
        ({"shape": [480, 640, 3], "names": ["height", "width", "channels"]}, (3, 480, 640)),
        ({"shape": [480, 640, 3], "names": ["height", "width", "channel"]}, (3, 480, 640)),
        ({"shape": [3, 480, 640], "names": ["channels", "height", "width"]}, (3, 480, 640)),
        ({"shape": [480, 640, 1], "names": None}, (1, 480, 640)),
        ({"shape": [3, 480, 640]}, (3, 480, 640)),
    ],
)
def test_images_are_channel_first(feature, shape):
    assert image_shape(feature) == shape


def test_features_of_a_dataset():
    table = {
        "observation.state": {"dtype": "float32", "shape": [6], "names": None},
        "observation.environment_state": {"dtype": "float32", "shape": [2], "names": None},
        "observation.images.top": {
            "dtype": "video",
            "shape": [4, 5, 3],
            "names": ["height", "width", "channels"],
        },
        "action": {"dtype": "float32", "shape": [6], "names": None},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        "observation.note": {"dtype": "string", "shape": [1], "names": None},
    }
    assert policy_features(table) == {
        "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
        "observation.environment_state": PolicyFeature(FeatureType.ENV, (2,)),
        "observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 4, 5)),
        "action": PolicyFeature(FeatureType.ACTION, (6,)),
    }
