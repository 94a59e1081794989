"""Parts of a policy by the names people give them: kept as they are, or learning at a rate of their own.

`vision_backbone` (a policy's own word), `model.backbone` (a path), `self_attn` (the end of one or more paths)
"""

from collections.abc import Mapping, Sequence

from torch import nn
from torch.optim import Optimizer

from lerobot.core.errors import ConfigError, suggest

Parameters = dict[str, nn.Parameter]


def find_part(policy: nn.Module, name: str, *, flag: str) -> Parameters:
    """The parameters, by their full names, of the part that `name` means; of several if it ends their paths.

    Raises:
        ConfigError: there is no such part; the message lists those there are.
    """
    prefixes = _paths(policy, name)
    found = {
        path: parameter
        for path, parameter in policy.named_parameters()
        if any(path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes)
    }
    if found:
        return found
    known = known_parts(policy)
    raise ConfigError(
        f"{flag}: this policy has no part {name!r}.{suggest(name, [*known, *_last_words(policy)])} "
        f"Its parts are: {', '.join(known)}; parts of these go by their paths, such as {_deepest(policy)}."
    )


def _paths(policy: nn.Module, name: str) -> list[str]:
    paths = {path for path, _ in policy.named_modules() if path} | {p for p, _ in policy.named_parameters()}
    if name in paths:
        return [name]
    own = own_words(policy)
    if name in own:
        return [own[name]]
    return sorted(path for path in paths if path.endswith(f".{name}"))


def own_words(policy: nn.Module) -> dict[str, str]:
    """The words a policy, or a part of it, has for parts of its own (properties) -> their paths."""
    path_of = {id(module): path for path, module in policy.named_modules()}
    found: dict[str, str] = {}
    for path, module in policy.named_modules():
        for word, value in vars(type(module)).items():
            part = path_of.get(id(getattr(module, word, None))) if _gives_module(value) else None
            if part:
                found.setdefault(word, part)
                found.setdefault(f"{path}.{word}".lstrip("."), part)
    return found


def _gives_module(value: object) -> bool:
    """Whether a class's attribute is a property that says it gives a module: others are not evaluated."""
    if not isinstance(value, property) or value.fget is None:
        return False
    given = value.fget.__annotations__.get("return")
    return isinstance(given, type) and issubclass(given, nn.Module)


def known_parts(policy: nn.Module) -> list[str]:
    """The words and short paths by which a policy's parts go."""
    trained = [path for path, _ in policy.named_parameters()]
    short = {".".join(path.split(".")[:2]) for path in trained if path.count(".") > 1}
    return sorted({word for word in own_words(policy) if "." not in word}) + sorted(short)


def _last_words(policy: nn.Module) -> set[str]:
    return {path.rpartition(".")[2] for path, _ in policy.named_modules() if path}


def _deepest(policy: nn.Module) -> str:
    return max((path for path, _ in policy.named_modules()), key=lambda path: path.count("."))


# --------------------------------------------------------------------------------------------------- freeze
def freeze(policy: nn.Module, names: Sequence[str]) -> None:
    """Keep the weights of these parts as they are.

    Raises:
        ConfigError: there is no such part, or nothing is left to train.
    """
    for name in names:
        for parameter in find_part(policy, name, flag="--freeze").values():
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in policy.parameters()):
        raise ConfigError(f"--freeze={list(names)} leaves nothing to train; name fewer parts.")


# --------------------------------------------------------------------------------------------------- rates
def scale_rates(optimizer: Optimizer, policy: nn.Module, factors: Mapping[str, float]) -> None:
    """Multiply the learning rates of these parts: each group of the optimizer is cut where they begin.

    The groups keep their order; behind what is left of each come its parts, in the order they were named. Of
    parts inside each other the smaller one counts. Call it before the first step.

    Raises:
        ConfigError: there is no such part, or it is not trained.
    """
    parts = {name: find_part(policy, name, flag="--lr_scale") for name in factors}
    for name, part in parts.items():
        if not any(parameter.requires_grad for parameter in part.values()):
            raise ConfigError(f"--lr_scale: {name} is frozen, so it has no learning rate. Leave it out.")
    owner: dict[int, str] = {}
    for name in sorted(parts, key=lambda name: -len(parts[name])):
        owner |= {id(parameter): name for parameter in parts[name].values()}
    groups = []
    for group in optimizer.param_groups:
        rest = [p for p in group["params"] if id(p) not in owner]
        groups.append({**group, "params": rest})
        for name, factor in factors.items():
            members = [p for p in group["params"] if owner.get(id(p)) == name]
            if members:
                groups.append({**group, "params": members, "lr": group["lr"] * factor})
    optimizer.param_groups = groups
