"""Weights of a golden checkpoint that is kept as a recipe: megabytes of made-up numbers, computed on demand.

model.safetensors.recipe.json   {"header": ..., "tensors": {name: {kind, salt, offset, scale}}, "sha256": ...}
model.safetensors.literals      the few tensors that are stored as they are

A value is offset + scale * (2u - 1), with u the top 53 bits of the SplitMix64 hash of (salt * 2^32 + index).
"""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


def write_weights(folder: Path, target: Path) -> None:
    """Compute `model.safetensors` of the recipe in `folder`, check its SHA-256, write it to `target`."""
    recipe = json.loads((folder / "model.safetensors.recipe.json").read_text())
    literals = load_file(folder / "model.safetensors.literals")
    header = recipe["header"].encode()
    parts = [struct.pack("<Q", len(header)), header]
    entries = json.loads(header)
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        how = recipe["tensors"][name]
        parts.append(
            literals[name].tobytes() if how["kind"] == "literal" else made_up((end - start) // 4, how)
        )
    data = b"".join(parts)
    assert hashlib.sha256(data).hexdigest() == recipe["sha256"]
    target.write_bytes(data)


def made_up(count: int, how: dict) -> bytes:
    with np.errstate(over="ignore"):
        mixed = np.arange(count, dtype=np.uint64) + np.uint64((how["salt"] << 32) % 2**64)
        mixed += np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    unit = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return ((unit * 2.0 - 1.0) * how["scale"] + how["offset"]).astype(np.float32).tobytes()
