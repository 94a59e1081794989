"""One frame of a dataset: a dict with flat keys that also gives nested views, `item["observation"]`."""

from typing import Any

from lerobot.core import keys
from lerobot.core.errors import suggest


class Item(dict):
    """Flat keys such as "observation.images.top"; a key that only begins others gives them as a nested dict.

    `item["observation"]` is {"state": ..., "images": {"top": ...}}. Nested views are plain dicts made when
    asked for; they are not among `keys()`.
    """

    def __missing__(self, key: str) -> dict[str, Any]:
        view: dict[str, Any] = {}
        for name, value in self.items():
            if not name.startswith(f"{key}."):
                continue
            if name.startswith(keys.IMAGES_PREFIX) and key == keys.OBSERVATION:
                view.setdefault("images", {})[name.removeprefix(keys.IMAGES_PREFIX)] = value
            else:
                view[name[len(key) + 1 :]] = value
        if not view:
            raise KeyError(f"{key!r} is not in this item; it has {', '.join(self)}.{suggest(key, self)}")
        return view
