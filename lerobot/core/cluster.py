"""A Ray cluster to work on: one that is there already, or one that is started on this machine."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lerobot.core.errors import ClusterError
from lerobot.core.optional import require


@contextmanager
def ray_cluster(address: str | None) -> Iterator[Any]:
    """Ray itself, connected to the cluster at `address`; None starts one here, which ends with the block.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it phones nobody
    ray = require("ray", extra="ray")
    try:
        ray.init(
            address=address,
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"--ray_address={address}: no Ray cluster answers ({error}). Start one: ray start --head"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
