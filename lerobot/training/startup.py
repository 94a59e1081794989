"""What need not be loaded before the first step: torch.compile, where nothing is compiled.

torch's optimizers load the whole compiler (0.9 s of CPU, as much as torch itself) only to hide from it: four
of their methods when first called, and `step` each time. Here they are as they would be without that.
"""

import inspect
from typing import Any

import torch
from torch.optim import Optimizer

HIDDEN = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")
MARK = "__dynamo_disable"  # where torch keeps the hidden form of such a method
_replaced: dict[Any, Any] = {}  # class: its `step` as torch made it


def spare_compiler(*, is_compiled: bool) -> None:
    """Let optimizers be made and take steps without loading torch.compile, or undo that.

    The numbers are the same. A torch that is built in another way is left as it is.
    """
    for name in HIDDEN:
        plain = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if plain is not None and not is_compiled:
            vars(plain).setdefault(MARK, plain)
        elif plain is not None and vars(plain).get(MARK) is plain:
            delattr(plain, MARK)
    for kind in list(_replaced):  # of a run before this one in the same process
        kind.step = _replaced.pop(kind)
    if is_compiled:
        return
    kinds: tuple[Any, ...] = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
    for kind in kinds:
        step = vars(kind).get("step")
        if step is not None and "_use_grad" in _names(step):
            _replaced[kind] = step
            # What the wrapper does besides: gradients are off, unless the step itself is differentiated.
            kind.step = torch.no_grad()(inspect.unwrap(step))


def _names(function: Any) -> list[str]:
    """Names of the code of a function and of all that it wraps."""
    names = []
    while function is not None:
        names.append(function.__code__.co_name)
        function = getattr(function, "__wrapped__", None)
    return names
