"""Milliseconds to augment one batch of two cameras, as training does it, on the CPU or a GPU.

.venv/bin/python benchmarks/augmentation.py [--device cuda] [--batches 20] [--threads 2] [--one_by_one]
"""

import argparse
import time

import torch

from lerobot.datasets.transforms import (
    BatchTransforms,
    ImageTransformConfig,
    ImageTransforms,
    ImageTransformsConfig,
)
from lerobot.datasets.transforms.config import published_transforms

BATCH = 8
SIZES = ((96, 96), (480, 640))


def main():
    args = read_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    print(f"{args.device}, {args.threads} threads, batches of {BATCH} x 2 cameras, median of {args.batches}")
    for height, width in SIZES:
        pictures = torch.randint(0, 256, (BATCH, 3, height, width), dtype=torch.uint8, device=device)
        row = {"to float": lambda images=pictures: images.float().div_(255)}
        row["published set"] = changed(ImageTransformsConfig(enable=True), pictures)
        if args.one_by_one:
            row["published set, picture by picture"] = single(ImageTransformsConfig(enable=True), pictures)
        if args.each:
            for name, entry in {**published_transforms(), **further(height, width)}.items():
                cfg = ImageTransformsConfig(enable=True, tfs={name: entry})
                row[f"all pictures: {name}"] = changed(cfg, pictures)
        for name, call in row.items():
            print(f"  {height}x{width}  {name:40s} {median_ms(call, device, args.batches):8.2f} ms")


def read_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--one_by_one", action="store_true", help="also as `image_transforms=` of a dataset")
    parser.add_argument("--each", action="store_true", help="also every transform by itself, on all pictures")
    return parser.parse_args()


def further(height, width):
    def entry(kind, **kwargs):
        return ImageTransformConfig(type=kind, kwargs=kwargs)

    return {
        "blur": entry("GaussianBlur", kernel_size=5),
        "crop": entry("RandomCrop", size=[height, width], padding=4, padding_mode="edge"),
        "resized crop": entry("RandomResizedCrop", size=[height, width], scale=[0.8, 1.0]),
        "rotation": entry("RandomRotation", degrees=10, interpolation="bilinear"),
        "flip": entry("RandomHorizontalFlip"),
        "noise": entry("GaussianNoise"),
        "motion blur": entry("MotionBlur"),
        "jpeg": entry("JPEGCompression"),
        "shadow": entry("RandomShadow"),
        "spots": entry("GaussianPatchBrightness"),
        "holes": entry("CoarseDropout"),
    }


def changed(cfg, pictures):
    transforms, epochs = BatchTransforms(cfg, seed=1), iter(range(10**9))
    index = torch.arange(len(pictures))
    return lambda: transforms(pictures, index=index, epoch=next(epochs), camera="top")


def single(cfg, pictures):
    transform = ImageTransforms(cfg)
    return lambda: torch.stack([transform(picture.float() / 255) for picture in pictures])


def median_ms(call, device, batches):
    """Of two cameras; each is as dear as the other."""
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    times = []
    for _ in range(batches + 3):
        start = clock()
        call()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(clock() - start)
    return 1000 * sorted(times[3:])[batches // 2]


if __name__ == "__main__":
    main()
