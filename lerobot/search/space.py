"""What is searched: one line of text per setting, read into a domain that a sampler draws from.

log[1e-6,1e-3]      a number, its order of magnitude drawn evenly
[0.1,0.9]           a number; [0.1,0.9,0.1] one of 0.1, 0.2, ...
int[8,128]          a whole number; int[8,128,8] one of 8, 16, ...
logint[8,512]       a whole number, its order of magnitude drawn evenly
{16,32,64}          one of these; texts, true, null and [lists] as well
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lerobot.core.errors import ConfigError

FORMS = "log[1e-6,1e-3], [0.1,0.9], [0.1,0.9,0.1], int[8,128], int[8,128,8], logint[8,512] or {16,32,64}"
INTERVAL = re.compile(r"(log|int|logint|)\s*\[([^\[\]]*)\]", re.IGNORECASE)
OPENING, CLOSING = "[({", "])}"
MOST_POINTS = 10_000  # of one setting in a grid


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    step: float | None = None
    is_whole: bool = False
    is_log: bool = False

    def words(self) -> list[str]:
        """Values that a flag can hold, the outermost and one between: what its type is checked with."""
        middle = math.sqrt(self.low * self.high) if self.is_log else (self.low + self.high) / 2
        values = (self.low, round(middle) if self.is_whole else middle, self.high)
        return [word_of(int(value) if self.is_whole else float(value)) for value in values]

    def points(self) -> list[float] | None:
        """Every value, where they can be counted."""
        if self.step is None or self.is_log:
            return None
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        if count > MOST_POINTS:
            return None
        values = [self.low + i * self.step for i in range(count)]
        return [int(value) if self.is_whole else float(f"{value:.12g}") for value in values]

    def __str__(self) -> str:
        kind = ("log" if self.is_log else "") + ("int" if self.is_whole else "")
        shown = [self.low, self.high]
        if self.step is not None and not (self.is_whole and self.step == 1):
            shown.append(self.step)
        return f"{kind}[{', '.join(f'{value:g}' for value in shown)}]"


@dataclass(frozen=True)
class Choices:
    """One of several words, each as it would be typed behind the flag."""

    options: tuple[str, ...]

    def words(self) -> list[str]:
        """The options."""
        return list(self.options)

    def points(self) -> list[str]:
        """The options."""
        return list(self.options)

    def __str__(self) -> str:
        return "{" + ", ".join(self.options) + "}"


Domain = Interval | Choices
Params = dict[str, Any]  # setting: the value a trial tries


def read_space(tree: Mapping[str, Any]) -> dict[str, Domain]:
    """The domain of each setting; nested sections become dotted names.

    Raises:
        ConfigError: nothing is searched, or a text cannot be read; the message names the flag.
    """
    space = {name: read_domain(text, name=name) for name, text in flatten(tree).items()}
    if not space:
        raise ConfigError(f'Say what to search: --space.policy.optimizer_lr="log[1e-6,1e-3]" ({FORMS}).')
    return space


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> text of a nested tree; YAML's `[0, 1]` and `{16, 32}` mean the same without quotes."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, (list, tuple)):
            flat[f"{prefix}{name}"] = f"[{','.join(map(str, value))}]"
        elif not isinstance(value, Mapping):
            flat[f"{prefix}{name}"] = value
        elif value and all(item is None for item in value.values()):
            flat[f"{prefix}{name}"] = "{" + ",".join(map(str, value)) + "}"
        else:
            flat |= flatten(value, f"{prefix}{name}.")
    return flat


def read_domain(text: Any, *, name: str) -> Domain:
    """The domain a text describes.

    Raises:
        ConfigError: it describes none.
    """
    word, flag = str(text).strip(), f"--space.{name}={text}"
    if word.startswith("{") and word.endswith("}"):
        return _choices(word[1:-1], name=name, flag=flag)
    match = INTERVAL.fullmatch(word)
    if match is None:
        raise ConfigError(f"{flag}: expected {FORMS}.")
    return _interval(match[1].lower(), match[2].split(","), flag)


def _choices(inside: str, *, name: str, flag: str) -> Choices:
    options = [_unquoted(word.strip()) for word in split(inside)]
    if "" in options:
        raise ConfigError(f"{flag}: an empty choice. Write {{16,32,64}}.")
    twice = next((word for word in options if options.count(word) > 1), None)
    if twice is not None:
        raise ConfigError(f"{flag}: {twice} is listed twice.")
    if len(options) < 2:
        only = options[0] if options else "VALUE"
        raise ConfigError(f"{flag}: one choice is nothing to search; give --{name}={only}.")
    return Choices(tuple(options))


def split(text: str) -> list[str]:
    """A list's items: split at the commas that stand in no bracket and no quote."""
    items, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign == "," and depth == 0:
            items.append("")
            continue
        depth += (sign in OPENING) - (sign in CLOSING) if not quote else 0
        items[-1] += sign
    return items if text.strip() else []


def _unquoted(word: str) -> str:
    is_quoted = len(word) >= 2 and word[0] == word[-1] and word[0] in "'\""
    return word[1:-1] if is_quoted else word


def _interval(kind: str, words: list[str], flag: str) -> Interval:
    numbers = [_number(word.strip(), flag) for word in words]
    is_whole, is_log = kind.endswith("int"), kind.startswith("log")
    if len(numbers) not in (2, 3) or (is_log and len(numbers) == 3):
        shape = "[low,high]" if is_log else "[low,high] or [low,high,step]"
        raise ConfigError(f"{flag}: expected {kind}{shape}, got {len(numbers)} numbers.")
    if is_whole and any(number != int(number) for number in numbers):
        raise ConfigError(f"{flag}: expected whole numbers; leave out 'int' for others.")
    low, high = numbers[:2]
    step = numbers[2] if len(numbers) == 3 else None
    if not low < high:
        raise ConfigError(f"{flag}: expected the lower end first, {kind}[{words[1]},{words[0]}].")
    if is_log and low <= 0:
        raise ConfigError(f"{flag}: a logarithm needs a lower end above 0.")
    if step is not None:
        if not 0 < step <= high - low:
            raise ConfigError(f"{flag}: expected a step above 0, and at most {high - low:g}.")
        high = low + math.floor((high - low) / step + 1e-9) * step  # the last value that is reached
    if is_whole:
        step = None if is_log else int(step or 1)
        return Interval(int(low), int(high), step, is_whole=True, is_log=is_log)
    return Interval(low, float(f"{high:.12g}"), step, is_log=is_log)


def _number(word: str, flag: str) -> float:
    try:
        number = float(word)
    except ValueError:
        raise ConfigError(f"{flag}: {word!r} is no number. Expected {FORMS}.") from None
    if not math.isfinite(number):
        raise ConfigError(f"{flag}: {word} is no end of an interval.")
    return number


def word_of(value: Any) -> str:
    """A value as it is typed behind a flag, every digit of it."""
    return repr(value) if isinstance(value, (int, float)) else str(value)


def flags_of(params: Params) -> list[str]:
    """The flags that set a trial's values."""
    return [f"--{name}={word_of(value)}" for name, value in params.items()]


def grid_of(space: Mapping[str, Domain]) -> dict[str, list[Any]]:
    """The values of each setting.

    Raises:
        ConfigError: the values of one cannot be counted.
    """
    grid: dict[str, list[Any]] = {}
    for name, domain in space.items():
        points = domain.points()
        if points is None:
            raise ConfigError(
                f"--sampler=grid cannot count the values of --space.{name}={domain}. "
                "List them, {1e-5,1e-4,1e-3}, or give a step, [0.1,0.9,0.1]."
            )
        grid[name] = list(points)
    return grid
