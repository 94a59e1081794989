import pytest
import torch
from safetensors.torch import save, save_file

from lerobot.core.errors import CheckpointError
from lerobot.nn.imagenet import KNOWN, find_weights, load_imagenet_weights, weights_version
from lerobot.nn.resnet import NumberedResNet, ResNet
from tests.fakes.hub import FakeHub


@pytest.fixture
def weights():
    """A weight file's tensors, classifier included, as torchvision stores them."""
    state = ResNet("resnet10", norm="batch").state_dict()
    return state | {"fc.weight": torch.rand(3, 512), "fc.bias": torch.rand(3)}


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_file_fills_the_backbone(tmp_path, weights, ending):
    path = tmp_path / f"weights.{ending}"
    (torch.save if ending == "pth" else save_file)(weights, path)
    net = ResNet("resnet10", norm="frozen")
    load_imagenet_weights(net, "resnet10", source=str(path))
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())


def test_a_file_of_another_network_is_refused(tmp_path, weights):
    weights["layer3.0.conv1.weight"] = torch.rand(1, 2, 3, 3)
    del weights["layer4.0.conv1.weight"]
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"1 are missing, 1 have another shape.*weights=null"):
        load_imagenet_weights(ResNet("resnet10"), "resnet10", source=str(tmp_path / "weights.safetensors"))


def test_a_missing_file_says_how_to_go_on(tmp_path):
    with pytest.raises(CheckpointError, match="There is no file .*pretrained_backbone_weights=null"):
        find_weights("resnet18", str(tmp_path / "x.pth"))


def test_torchs_cache_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert find_weights("resnet18", "ResNet18_Weights.IMAGENET1K_V1") == cached
    assert find_weights("resnet18", "DEFAULT") == cached


def test_offline_the_message_names_flag_and_places(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError) as raised:
        find_weights("resnet18", "ResNet18_Weights.IMAGENET1K_V1")
    said = str(raised.value)
    assert "--policy.pretrained_backbone_weights=null" in said
    assert str(tmp_path / "hub" / "checkpoints") in said and "resnet18-f37072fd.pth" in said
    assert "timm/resnet18.tv_in1k" in said


def test_they_are_downloaded_from_the_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # read once, at its import
    content = save({"conv1.weight": torch.rand(2, 2)})
    with FakeHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.add("model", "timm/resnet18.tv_in1k", {"model.safetensors": content})
        path = find_weights("resnet18", "ResNet18_Weights.IMAGENET1K_V1")
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "source", ["ResNet50_Weights.IMAGENET1K_V1", "ResNet18_Weights.IMAGENET1K_V2", "imagenet", "V3"]
)
def test_names_that_fit_no_weights_are_refused(source):
    with pytest.raises(CheckpointError, match=r"expected ResNet18_Weights\.IMAGENET1K_V1, or a"):
        weights_version("resnet18", source)


def test_every_network_of_torchvision_has_weights():
    assert {network for network, _ in KNOWN} == {"resnet18", "resnet34", "resnet50", "resnet101", "resnet152"}
    assert weights_version("resnet50", "ResNet50_Weights.DEFAULT") == "V2"


def test_a_backbone_with_numbered_parts_is_filled_by_the_same_file(tmp_path, weights):
    save_file(weights, tmp_path / "weights.safetensors")
    named, numbered = ResNet("resnet10"), NumberedResNet("resnet10")
    for net in (named, numbered):
        load_imagenet_weights(net, "resnet10", source=str(tmp_path / "weights.safetensors"))
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(named.eval()(images), numbered.eval()(images))
