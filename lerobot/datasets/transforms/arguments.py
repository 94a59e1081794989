"""Which transforms there are and which arguments each takes: checked without torch, when a config is read.

    type + arguments as typed --read_arguments--> name: value as the transform computes with it

Names and meanings are torchvision's (v2) where torchvision has such a transform. A single number where a
range is meant becomes the range around it that torchvision makes of it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lerobot.core.errors import suggest

REQUIRED = object()
Span = tuple[float, float]


@dataclass(frozen=True)
class Argument:
    """One argument of a transform: how its value is read (ValueError says what was expected), its default."""

    read: Callable[[Any], Any]
    default: Any = REQUIRED
    is_range: bool = False  # (from, to), drawn from anew for every picture


# --------------------------------------------------------------------------------------------- single values
def is_number(value: Any) -> bool:
    """Whether it is a finite number and no switch."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, *, low: float = -math.inf, high: float = math.inf) -> float:
    """A number from `low` to `high`."""
    if not is_number(value) or not low <= value <= high:
        raise ValueError(f"a number{_within(low, high)}")
    return float(value)


def whole(value: Any, *, low: int, high: int | None = None) -> int:
    """A whole number from `low` to `high`."""
    top = math.inf if high is None else high
    if not is_number(value) or value != int(value) or not low <= value <= top:
        raise ValueError(f"a whole number{_within(low, top)}")
    return int(value)


def switch(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def off(value: Any) -> bool:
    """False: a choice that would change the pictures' size."""
    if value is not False:
        raise ValueError("false: pictures of a batch keep their size")
    return False


def one_of(value: Any, *, choices: Sequence[str]) -> str:
    """One of the listed words; torchvision's enum members count as their value."""
    word = getattr(value, "value", value)
    if word not in choices:
        raise ValueError(f"one of {', '.join(choices)}")
    return word


# ------------------------------------------------------------------------------------------------- ranges
def span(
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    widen: Callable[[float], Span] | None = None,
) -> Span:
    """(from, to) within `low` and `high`; a single number is widened to one."""
    said = f"{'a number or ' if widen else ''}[from, to]{_within(low, high)}"
    if widen and is_number(value):
        try:
            value = widen(float(value))
        except ValueError as error:
            raise ValueError(said) from error
    pair = _numbers(value, (2,), said)
    if not low <= pair[0] <= pair[1] <= high:
        raise ValueError(said)
    return pair[0], pair[1]


def whole_span(value: Any, *, low: int, high: int | None = None) -> tuple[int, int]:
    """(from, to) of whole numbers, both included; a single one is the range of itself."""
    first, last = span(value, low=low, high=math.inf if high is None else high, widen=same)
    if first != int(first) or last != int(last):
        raise ValueError(f"a whole number or [from, to] of whole numbers, at least {low}")
    return int(first), int(last)


def same(value: float) -> Span:
    """The range that holds only this number."""
    return value, value


def from_zero(value: float) -> Span:
    """0 to the number."""
    return 0.0, value


def both_ways(value: float) -> Span:
    """-v to v, for v of 0 and more."""
    if value < 0:
        raise ValueError
    return -value, value


def around_one(value: float) -> Span:
    """1 - v to 1 + v, never below 0, for v of 0 and more."""
    if value < 0:
        raise ValueError
    return max(0.0, 1.0 - value), 1.0 + value


def inverse_too(value: float) -> Span:
    """From 1 / v to v (or v to 1 / v), for positive v."""
    if value <= 0:
        raise ValueError
    return min(value, 1 / value), max(value, 1 / value)


def factor(value: Any) -> Span | None:
    """A range of factors; None when it leaves the picture as it is."""
    pair = None if value is None else span(value, low=0, widen=around_one)
    return None if pair == (1.0, 1.0) else pair


def turn(value: Any) -> Span | None:
    """A range of shifts of the hue, in whole turns of the colour wheel; None when there is none."""
    pair = None if value is None else span(value, low=-0.5, high=0.5, widen=both_ways)
    return None if pair == (0.0, 0.0) else pair


def odd_sizes(value: Any) -> tuple[int, ...]:
    """The odd whole numbers of a range."""
    first, last = whole_span(value, low=1)
    sizes = tuple(size for size in range(first, last + 1) if size % 2)
    if not sizes:
        raise ValueError("a range that holds an odd number")
    return sizes


# ---------------------------------------------------------------------------------------------- other shapes
def optional(value: Any, *, read: Callable[[Any], Any]) -> Any:
    """None, or what `read` makes of it."""
    return None if value is None else read(value)


def shares(value: Any) -> Span:
    """(along x, along y), each from 0 to 1."""
    pair = _numbers(value, (2,), said := "[x, y], each from 0 to 1")
    if not all(0 <= part <= 1 for part in pair):
        raise ValueError(said)
    return pair[0], pair[1]


def shear(value: Any) -> tuple[float, ...]:
    """(from, to) degrees along x, or (from, to, from, to) along x and y."""
    if is_number(value):
        return both_ways(abs(float(value)))
    values = _numbers(value, (2, 4), said := "a number, [from, to] or [from, to, from, to] in degrees")
    if any(values[i] > values[i + 1] for i in range(0, len(values), 2)):
        raise ValueError(said)
    return values


def color(value: Any) -> tuple[float, ...]:
    """One grey value, or one per channel, in 0..1."""
    return (0.0,) if value is None else _numbers(value, (1, 3), "a number or one per channel, each in 0 to 1")


def point(value: Any) -> Span | None:
    """(x, y) in pixels, or None for the middle."""
    return None if value is None else span_of_two(value)


def span_of_two(value: Any) -> Span:
    """Two numbers in any order."""
    pair = _numbers(value, (2,), "[x, y] in pixels")
    return pair[0], pair[1]


def size(value: Any) -> tuple[int, int]:
    """(height, width) in pixels; one number is a square."""
    pair = _numbers(value, (1, 2), said := "[height, width] in whole pixels")
    if any(side < 1 or side != int(side) for side in pair):
        raise ValueError(said)
    return int(pair[0]), int(pair[-1])


def odd_size(value: Any) -> tuple[int, int]:
    """(width, height) of a kernel, both odd."""
    pair = _numbers(value, (1, 2), said := "an odd whole number, or two of them [width, height]")
    if any(side < 1 or side % 2 != 1 for side in pair):
        raise ValueError(said)
    return int(pair[0]), int(pair[-1])


def borders(value: Any) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) pixels."""
    if value is None:
        return 0, 0, 0, 0
    sides = _numbers(value, (1, 2, 4), said := "pixels on every side, [x, y], or [left, top, right, bottom]")
    if any(side < 0 or side != int(side) for side in sides):
        raise ValueError(said)
    left, top, right, bottom = (int(side) for side in {1: sides * 4, 2: sides * 2, 4: sides}[len(sides)])
    return left, top, right, bottom


def _numbers(value: Any, lengths: Sequence[int], said: str) -> tuple[float, ...]:
    """The numbers of a list of one of these lengths; a single number counts as a list of one."""
    values = (value,) if is_number(value) else value
    if not isinstance(values, (list, tuple)) or len(values) not in lengths or not all(map(is_number, values)):
        raise ValueError(said)
    return tuple(float(part) for part in values)


def _within(low: float, high: float) -> str:
    if high < math.inf:
        return f" from {low:g} to {high:g}"
    return f" of {low:g} or more" if low > -math.inf else ""


# ------------------------------------------------------------------------------------------------- the table
CHANCE = Argument(partial(number, low=0, high=1), 0.5)
DEGREES = Argument(partial(span, widen=both_ways), is_range=True)
POSITIVE_SPAN = partial(span, low=1e-6)
FILL = Argument(color, 0)
CENTER = Argument(point, None)
NEAREST = Argument(partial(one_of, choices=("nearest", "bilinear")), "nearest")
BILINEAR = Argument(partial(one_of, choices=("nearest", "bilinear")), "bilinear")
PADDING_MODES = ("constant", "edge", "reflect")
SHARE = partial(number, low=0, high=1)

ARGUMENTS: dict[str, dict[str, Argument]] = {
    "Identity": {},
    "ColorJitter": {
        "brightness": Argument(factor, None, is_range=True),
        "contrast": Argument(factor, None, is_range=True),
        "saturation": Argument(factor, None, is_range=True),
        "hue": Argument(turn, None, is_range=True),
    },
    "GammaCorrection": {
        "gamma": Argument(partial(span, low=1e-6, widen=inverse_too), (0.5, 2.0), is_range=True)
    },
    "PlanckianJitter": {
        "temperature": Argument(partial(whole_span, low=3000, high=15000), (3000, 15000), is_range=True),
    },
    "Grayscale": {"num_output_channels": Argument(partial(whole, low=1, high=3), 1)},
    "RandomGrayscale": {"p": Argument(SHARE, 0.1)},
    "RandomInvert": {"p": CHANCE},
    "RandomSolarize": {"threshold": Argument(SHARE), "p": CHANCE},
    "RandomPosterize": {"bits": Argument(partial(whole, low=0, high=8)), "p": CHANCE},
    "RandomAutocontrast": {"p": CHANCE},
    "SharpnessJitter": {"sharpness": Argument(partial(span, low=0, widen=around_one), is_range=True)},
    "RandomAdjustSharpness": {"sharpness_factor": Argument(partial(number, low=0)), "p": CHANCE},
    "GaussianBlur": {
        "kernel_size": Argument(odd_size),
        "sigma": Argument(partial(span, low=1e-6, widen=same), (0.1, 2.0), is_range=True),
    },
    "MotionBlur": {"kernel_size": Argument(odd_sizes, (3, 11))},
    "GaussianNoise": {"std": Argument(partial(span, low=0, widen=from_zero), (5.0, 25.0), is_range=True)},
    "JPEGCompression": {"quality": Argument(partial(whole_span, low=1, high=100), (15, 75), is_range=True)},
    "RandomAffine": {
        "degrees": DEGREES,
        "translate": Argument(partial(optional, read=shares), None),
        "scale": Argument(partial(optional, read=POSITIVE_SPAN), None, is_range=True),
        "shear": Argument(partial(optional, read=shear), None),
        "interpolation": NEAREST,
        "fill": FILL,
        "center": CENTER,
    },
    "RandomRotation": {
        "degrees": DEGREES,
        "interpolation": NEAREST,
        "expand": Argument(off, False),
        "center": CENTER,
        "fill": FILL,
    },
    "RandomHorizontalFlip": {"p": CHANCE},
    "RandomVerticalFlip": {"p": CHANCE},
    "RandomCrop": {
        "size": Argument(size),
        "padding": Argument(borders, None),
        "pad_if_needed": Argument(switch, False),
        "fill": FILL,
        "padding_mode": Argument(partial(one_of, choices=PADDING_MODES), "constant"),
    },
    "RandomResizedCrop": {
        "size": Argument(size),
        "scale": Argument(POSITIVE_SPAN, (0.08, 1.0), is_range=True),
        "ratio": Argument(POSITIVE_SPAN, (3 / 4, 4 / 3)),
        "interpolation": BILINEAR,
        "antialias": Argument(switch, True),
    },
    "RandomErasing": {
        "p": CHANCE,
        "scale": Argument(partial(span, low=0, high=1), (0.02, 0.33), is_range=True),
        "ratio": Argument(POSITIVE_SPAN, (0.3, 3.3)),
        "value": FILL,
        "inplace": Argument(switch, False),
    },
    "CoarseDropout": {
        "max_holes": Argument(partial(whole, low=1), 8),
        "max_height_frac": Argument(SHARE, 0.07),
        "max_width_frac": Argument(SHARE, 0.07),
        "fill_value": Argument(SHARE, 0.0),
    },
    "GaussianPatchBrightness": {
        "num_patches": Argument(partial(whole_span, low=1), (1, 4), is_range=True),
        "sigma_range": Argument(POSITIVE_SPAN, (0.05, 0.25), is_range=True),
        "factor_range": Argument(partial(span, low=0), (0.4, 1.6), is_range=True),
    },
    "RandomShadow": {
        "opacity": Argument(partial(span, low=0, high=1, widen=same), (0.3, 0.6), is_range=True)
    },
}


def read_arguments(kind: str, values: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Every argument of a transform, as it computes with it.

    Raises:
        ValueError: an unknown transform or argument (the message suggests the nearest), a missing one, or a
            value out of range.
    """
    if kind not in ARGUMENTS:
        near, names = suggest(kind, ARGUMENTS), ", ".join(sorted(ARGUMENTS))
        raise ValueError(f"there is no image transform {kind!r}.{near} Known: {names}.")
    known = ARGUMENTS[kind]
    takes = f"{kind} takes {', '.join(known) or 'no arguments'}."
    if len(values) > len(known):
        raise ValueError(f"{len(values)} values are too many. {takes}")
    given = dict(zip(known, values, strict=False))
    for name, value in named.items():
        if name not in known:
            raise ValueError(f"{kind} has no argument {name!r}.{suggest(name, known)} {takes}")
        if name in given:
            raise ValueError(f"{kind} was given {name!r} twice.")
        given[name] = value
    read = {}
    for name, argument in known.items():
        value = given.get(name, argument.default)
        if value is REQUIRED:
            raise ValueError(f"{kind} needs {name!r}. {takes}")
        try:
            read[name] = argument.read(value)
        except ValueError as error:
            raise ValueError(f"{kind}: {name}={value!r}: expected {error}.") from None
    return read
