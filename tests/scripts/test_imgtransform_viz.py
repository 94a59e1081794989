"""`lerobot-imgtransform-viz`: the files it writes, what is in them, and mistakes."""

import numpy as np
import pytest
from PIL import Image

from lerobot.core.errors import ConfigError
from lerobot.scripts.imgtransform_viz import main, visualize_image_transforms
from tests.fakes.dataset import IMAGE, NUMBERS, make, picture


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make(tmp_path_factory.mktemp("viz") / "made", [3, 2], {**NUMBERS, **IMAGE}).root


def show(root, folder, *more):
    return visualize_image_transforms(
        ["--repo_id=me/made", f"--root={root}", f"--output_dir={folder}", *more]
    )


def pixels(path):
    return np.asarray(Image.open(path)).astype(float)


def test_the_published_set(root, tmp_path):
    folder = show(root, tmp_path)
    assert folder == tmp_path / "made"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.png")}
    names = ["brightness", "contrast", "saturation", "hue", "sharpness", "affine"]
    numbers = [f"{n}.png" for n in range(1, 6)]
    assert found == {
        "original_frame.png",
        *(f"all/{number}" for number in numbers),
        *(f"{name}/{file}" for name in names for file in (*numbers, "min.png", "mean.png", "max.png")),
    }
    original = pixels(folder / "original_frame.png")
    assert np.array_equal(original, picture(0, 0))
    assert np.abs(pixels(folder / "brightness/max.png") - np.minimum(original * 1.2, 255)).max() <= 1
    assert np.abs(pixels(folder / "brightness/min.png") - original * 0.8).max() <= 1
    assert np.array_equal(pixels(folder / "brightness/mean.png"), original)


def test_own_transforms_of_another_frame(root, tmp_path):
    tfs = "--image_transforms.tfs={dark: {type: ColorJitter, kwargs: {brightness: [0, 0]}}, same: {}}"
    folder = show(root, tmp_path, tfs, "--frame=2", "--n_examples=2", "--camera=observation.images.wrist")
    assert np.array_equal(pixels(folder / "original_frame.png"), picture(0, 2))
    assert pixels(folder / "dark/2.png").max() == 0
    assert sorted(path.name for path in (folder / "same").iterdir()) == ["1.png", "2.png"]  # nothing to range


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--camera=observation.images.wirst", "Did you mean 'observation.images.wrist'"),
        ("--frame=99", "expected 0 to 2"),
        ("--n_examples=0", "at least 1"),
        ("--image_transforms.tfs={a: {type: Blur}}", "GaussianBlur"),
    ],
)
def test_mistakes(root, tmp_path, flag, said):
    with pytest.raises(ConfigError, match=said):
        show(root, tmp_path, flag)


def test_a_mistake_at_the_shell_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lerobot-imgtransform-viz", "--repo_id=me/made", "--frame=x"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2 and capsys.readouterr().err.startswith("error: --frame=x")
