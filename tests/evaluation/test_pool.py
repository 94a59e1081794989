"""Processes of environments end with the one they belong to, however it ends, and say what is missing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lerobot.evaluation.pool import Pool
from lerobot.evaluation.rollout import stage_for
from lerobot.evaluation.stage import Here, Slots
from tests.fakes.world import WalkConfig

ROOT = Path(__file__).parents[2]
LIMIT_S = 60
SCRIPT = """
import sys
from pathlib import Path

def work():
    import numpy as np
    from lerobot.evaluation.assignment import assignments
    from lerobot.evaluation.pool import Pool
    from lerobot.evaluation.stage import Slots
    from tests.fakes.world import WalkConfig

    diary = Path(sys.argv[1])
    env = WalkConfig(diary=diary, pause_s=float(sys.argv[2]))
    every = assignments(env, n_episodes=2, seed=0, max_videos=4, video_folder=diary.parent / "videos")
    running = dict(enumerate(every))
    with Pool(Slots(num_looks=1), num_slots=2, num_processes=2) as pool:
        for slot, one in running.items():
            pool.tell(slot, one)
        while running:
            for seen in pool.hear():
                if seen.result:
                    print("steps", seen.result.steps)
                    del running[seen.slot]
                else:
                    pool.tell(seen.slot, np.zeros((7, 1)))

"""
GUARD = 'if __name__ == "__main__":\n    '


def start(folder, *, ending, pause_s=0.0, **how):
    """A script of a person's own that evaluates; steps of a pause of minutes never end by themselves."""
    script = folder / "script.py"
    script.write_text(SCRIPT + ending)
    return subprocess.Popen(
        [sys.executable, str(script), str(folder / "diary"), str(pause_s)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **how,
    )


def workers_of(folder):
    """The processes that have begun an episode, once there are two."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        diary = folder / "diary"
        lines = diary.read_text().splitlines() if diary.exists() else []
        found = {int(line.split()[0]) for line in lines if " reset " in line}
        if len(found) == 2:
            return found
        time.sleep(0.05)
    raise AssertionError("no episode has begun")


def are_gone(processes):
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if not any(is_alive(process) for process in processes):
            return True
        time.sleep(0.05)
    return False


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_they_end_with_a_parent_that_is_killed(tmp_path):
    script = start(tmp_path, ending=GUARD + "work()", pause_s=1000)
    workers = workers_of(tmp_path)
    script.kill()
    script.wait(LIMIT_S)
    assert are_gone(workers)


@pytest.mark.slow
def test_ctrl_c_ends_all_of_it_and_leaves_no_half_videos(tmp_path):
    script = start(tmp_path, ending=GUARD + "work()", pause_s=1000)
    workers = workers_of(tmp_path)
    os.killpg(script.pid, signal.SIGINT)  # as a terminal does: everybody gets it
    _, said = script.communicate(timeout=LIMIT_S)
    assert are_gone(workers)
    assert said.count("Traceback") == 1 and said.rstrip().endswith("KeyboardInterrupt")  # the script's own
    assert not list(tmp_path.glob("videos/*/*"))


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_what_to_do(tmp_path):
    script = start(tmp_path, ending="work()")
    _, said = script.communicate(timeout=LIMIT_S)
    assert script.returncode == 1
    last = said.splitlines()[-1]
    assert last.startswith("lerobot.core.errors.UserError: The processes of the environments import")
    assert 'below `if __name__ == "__main__":`' in said and "num_processes=None" in said


@pytest.mark.slow
def test_a_script_with_one_works(tmp_path):
    script = start(tmp_path, ending=GUARD + "work()")
    out, said = script.communicate(timeout=LIMIT_S)
    assert (script.returncode, out) == (0, "steps 30\nsteps 30\n"), said


def test_how_many_processes(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))

    def chosen(num_slots, num_processes, num_ranks=1):
        stage = stage_for(
            Slots(num_looks=1), num_slots=num_slots, num_processes=num_processes, num_ranks=num_ranks
        )
        return stage.num_processes if isinstance(stage, Pool) else stage.__class__

    assert chosen(1, 0) is Here and chosen(5, None) is Here
    assert chosen(5, 0) == 5 and chosen(20, 0) == 8 and chosen(20, 3) == 3 and chosen(4, 1) == 1
    assert chosen(20, 0, num_ranks=2) == 4 and chosen(20, 0, num_ranks=8) is Here


def test_a_worker_loads_no_torch():
    """It would take seconds and hundreds of megabytes, for every one of them."""
    code = "import sys, lerobot.evaluation.pool, lerobot.envs.so101; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_world_here_loads_no_torch_either():
    assert WalkConfig.__module__ == "tests.fakes.world"
