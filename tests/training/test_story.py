"""The report of real runs: finished, stopped, resumed."""

from lerobot.scripts.train import train


def test_a_finished_run_tells_its_settings_and_checkpoints(flags, tmp_path):
    run = tmp_path / "run"
    train(flags(run, "--dataset.eval_split=0.3", "--eval_steps=3"))
    text = (run / "report.html").read_text(encoding="utf-8")
    for words in (
        "act on local/small",
        "taken all its 6 steps",
        "3 episodes, 36 frames at 10 fps; 12 frames held out",
        "loss on held-out frames at step 6",
        "checkpoints/000003<",
        "checkpoints/000006 (last)",
        'aria-label="gradient norm"',
        "&quot;optimizer_lr&quot;: 0.001",
    ):
        assert words in text, words


def test_a_stopped_run_has_a_report_so_far_and_a_resumed_one_the_whole(flags, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("lerobot.distributed.world.World.any", lambda self, flag, is_vote=True: True)  # Ctrl-C
        train(flags(run, "--log_freq=1"))
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "The run was stopped after 1 of 6 steps." in text and "checkpoints/000001 (last)" in text
    train(["--resume=true", f"--output_dir={run}"])
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "taken all its 6 steps" in text and "at step 1, best" in text
