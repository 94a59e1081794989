import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lerobot.core.errors import CheckpointError
from lerobot.policies.weights import by_module, load_weights, read_weights, write_weights

FILE = "model.safetensors"


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.table.weight
        self.out = nn.Linear(5, 2)


def numbers(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_shared_tensor_is_written_once_under_its_first_name(tmp_path):
    write_weights(Tied(), tmp_path)
    with safe_open(tmp_path / FILE, framework="pt") as file:
        assert sorted(file.keys()) == ["head.weight", "out.bias", "out.weight"]
        assert file.metadata() == {"format": "pt", "table.weight": "head.weight"}


def test_every_name_of_a_shared_tensor_is_filled(tmp_path):
    source, target = Tied(), Tied()
    write_weights(source, tmp_path)
    load_weights(target, read_weights(tmp_path), source="it")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in numbers(target).items())
    assert target.head.weight is target.table.weight


@pytest.mark.parametrize("kept", ["head.weight", "table.weight"])
def test_one_name_is_enough_whichever_it_is(tmp_path, kept):
    source, target = Tied(), Tied()
    tensors = {name: value.clone() for name, value in source.state_dict().items()}
    del tensors[{"head.weight": "table.weight", "table.weight": "head.weight"}[kept]]
    save_file(tensors, tmp_path / FILE)
    load_weights(target, read_weights(tmp_path), source="it")
    assert torch.equal(target.table.weight, source.table.weight)


def test_names_left_out_by_others_are_filled_for_models_that_do_not_share(tmp_path):
    write_weights(Tied(), tmp_path)
    assert torch.equal(read_weights(tmp_path)["table.weight"], load_file(tmp_path / FILE)["head.weight"])


def test_without_shared_tensors_the_file_has_no_metadata(tmp_path):
    write_weights(nn.Linear(2, 2), tmp_path)
    with safe_open(tmp_path / FILE, framework="pt") as file:
        assert file.metadata() is None


def test_names_of_compiled_models_are_plain(tmp_path):
    model = nn.Sequential(torch.compile(nn.Linear(2, 3)))
    assert "0._orig_mod.weight" in model.state_dict()
    write_weights(model, tmp_path)
    assert sorted(read_weights(tmp_path)) == ["0.bias", "0.weight"]
    save_file({f"0._orig_mod.{name}": torch.ones(2) for name in ("weight", "bias")}, tmp_path / FILE)
    assert sorted(read_weights(tmp_path)) == ["0.bias", "0.weight"]


def test_what_does_not_fit_is_listed_by_module_and_changes_nothing():
    model = Tied()
    before = numbers(model)
    weights = {"out.weight": torch.rand(2, 5), "out.bias": torch.rand(3), "more.1.a": torch.rand(1)}
    with pytest.raises(CheckpointError) as raised:
        load_weights(model, weights, source="X")
    said = str(raised.value)
    assert "2 weights are missing (table: 1, head: 1)" in said
    assert "1 are left over (more: 1)" in said
    assert "out.bias is (3,), expected (2,)" in said and "strict=False" in said
    assert all(torch.equal(value, before[name]) for name, value in numbers(model).items())


def test_without_strict_only_shapes_must_fit(caplog):
    model = Tied()
    load_weights(model, {"out.bias": torch.tensor([7.0, 8.0]), "x": torch.rand(1)}, source="X", strict=False)
    assert model.out.bias.tolist() == [7, 8]
    assert "3 weights are missing" in caplog.text and "1 are left over" in caplog.text
    with pytest.raises(CheckpointError, match="another shape"):
        load_weights(model, {"out.bias": torch.rand(9)}, source="X", strict=False)


def test_a_cut_file_and_a_missing_one(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        read_weights(tmp_path)
    write_weights(nn.Linear(20, 20), tmp_path)
    data = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        read_weights(tmp_path)


def test_many_modules_are_cut_short():
    text = by_module([f"model.part{i}.layers.0.weight" for i in range(9)])
    assert text.startswith("model.part0.layers: 1, ") and text.endswith(", …")
