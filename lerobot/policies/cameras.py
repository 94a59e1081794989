"""Which camera of a dataset or robot a policy's camera may be, when their names differ: a proposal.

Names are compared word by word, views of the same kind count as alike: top and overhead, wrist and gripper.
Nothing is renamed without the person's word: the proposal is printed as the flag that confirms it.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping

VIEWS = (
    {"top", "overhead", "above", "up", "ceiling", "high", "head", "bird"},
    {"wrist", "hand", "gripper", "eef", "arm", "tip"},
    {"front", "base", "main", "primary", "exterior", "scene", "third", "agentview", "laptop"},
    {"side", "lateral"},
)


def propose_cameras(wanted: Iterable[str], offered: Iterable[str]) -> dict[str, str]:
    """Name there -> name in the policy for every pair that could be meant, the likeliest pairs first.

    Args:
        wanted: cameras of the policy that are not found by name.
        offered: cameras of the other side that the policy does not know.
    """
    left, free = list(wanted), list(offered)
    pairs: dict[str, str] = {}
    while left and free:
        # Of equally likely pairs the first of each side: cameras are usually listed in the same order.
        name, camera = max(((n, c) for c in left for n in free), key=lambda pair: likeness(*pair))
        pairs[name] = camera
        left.remove(camera)
        free.remove(name)
    return pairs


def likeness(one: str, other: str) -> float:
    """How alike two camera names are: 3 for the same words, 2 for the same view, below 1 for letters only."""
    words, others = _words(one), _words(other)
    if words == others:
        return 3.0
    letters = difflib.SequenceMatcher(None, "".join(sorted(words)), "".join(sorted(others))).ratio()
    alike = words & others or any(words & view and others & view for view in VIEWS)
    sides = {"left", "right"}
    opposite = words & sides and others & sides and words & sides != others & sides
    return (2.0 if alike and not opposite else 0.0) + 0.9 * letters


def confirming_flag(proposal: Mapping[str, str], rename_map: Mapping[str, str]) -> str:
    """The flag that a person types to accept the proposal, on top of what was renamed already."""
    return f"--rename_map='{json.dumps({**rename_map, **proposal})}'"


def _words(name: str) -> set[str]:
    """The words of the last part of a name, without 'cam' and numbers alone: {'left', 'wrist'}."""
    found = re.findall(r"[a-z]+|\d+", name.rsplit(".", 1)[-1].lower())
    return {word for word in found if word not in ("cam", "camera", "image", "rgb", "view")} or set(found)
