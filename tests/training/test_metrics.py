"""Metrics: means on demand, rows on disk at once, a resumed run continues its own history."""

import json

import torch

from lerobot.training.logs.metrics import METRICS_FILE, Meter, MetricsFile, numbers, read_metrics


def test_the_meter_averages_each_name_over_its_own_count():
    meter = Meter()
    meter.add({"loss": torch.tensor(1.0, requires_grad=True), "lr": 0.1})
    meter.add({"loss": torch.tensor(3.0)})
    assert meter.read() == {"loss": 2.0, "lr": 0.1}
    assert meter.read() == {}


def test_however_many_values_come_few_are_kept_and_the_mean_is_exact():
    meter, values = Meter(), [0.1 * k for k in range(1000)]
    for value in values:
        meter.add({"loss": torch.tensor(value, dtype=torch.float64), "lr": value})
        assert len(meter.kept["loss"]) < Meter.FOLD_AFTER
    assert meter.read() == {"loss": sum(values) / 1000, "lr": sum(values) / 1000}


def test_a_value_that_is_no_number_hides_no_others():
    meter = Meter(only_finite=True)
    for value in (1.0, float("nan"), 3.0, float("inf")):
        meter.add({"loss": torch.tensor(value), "only": torch.tensor(float("nan"))})
    row = meter.read()
    assert row["loss"] == 2.0 and row["only"] != row["only"]


def test_a_meter_goes_on_where_it_was():
    whole, first, second = Meter(), Meter(), Meter()
    for k in range(100):
        whole.add({"loss": torch.tensor(1 / (k + 3))})
        (first if k < 70 else second).add({"loss": torch.tensor(1 / (k + 3))})
        if k == 69:
            second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.read() == whole.read()


def test_only_single_numbers_are_logged():
    info = {"l1": torch.tensor([2.0]), "many": torch.zeros(3), "name": "x", "flag": True, "count": 3}
    assert {name: float(value) for name, value in numbers(info).items()} == {"l1": 2.0, "count": 3.0}


def test_a_resumed_file_drops_what_came_after_the_checkpoint(tmp_path):
    file = MetricsFile(tmp_path)
    for step in (1, 2, 3):
        file.write({"step": step, "loss": 1.0 / step})
    file.close()
    file = MetricsFile(tmp_path, resume_step=2)
    file.write({"step": 3, "loss": 0.5})
    file.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path / METRICS_FILE)] == [
        (1, 1.0),
        (2, 0.5),
        (3, 0.5),
    ]


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1}]
