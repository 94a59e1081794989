"""Film a trained policy in simulation: a few episodes side by side, as one animated picture.

    python examples/film_policy.py outputs/demo/seed_0/train --output=learned.webp

It shows how a policy is used from Python: loaded by its path alone, it takes raw observations and returns
actions in the robot's units.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from lerobot.control.attempts import features_of
from lerobot.envs.so101 import SO101EnvConfig
from lerobot.policies.policy import PreTrainedPolicy

EVERY = 2  # every second frame is enough for the eye


def main() -> None:
    """Roll out, film, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policy", help="checkpoint or run folder, or Hub id")
    parser.add_argument("--output", type=Path, default=Path("learned.webp"))
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--width", type=int, default=260)
    args = parser.parse_args()

    policy = PreTrainedPolicy.from_pretrained(args.policy)
    films = [film(policy, seed=args.seed + i, width=args.width) for i in range(args.episodes)]
    longest = max(len(one) for one in films)
    films = [one + [one[-1]] * (longest - len(one)) for one in films]
    pages = [Image.fromarray(np.concatenate(row, axis=1)) for row in zip(*films, strict=True)]
    fps = SO101EnvConfig().fps / EVERY
    pages[0].save(
        args.output, save_all=True, append_images=pages[1:], duration=round(1000 / fps), loop=0, quality=60
    )
    print(f"{args.output}: {len(pages)} frames")


def film(policy: PreTrainedPolicy, *, seed: int, width: int) -> list[np.ndarray]:
    """Pictures (H, W, 3) uint8 of one episode."""
    env = SO101EnvConfig().build()
    observation, _ = env.reset(seed=seed)
    policy.reset()
    frames, is_done, step = [], False, 0
    while not is_done:
        action = policy.select_action(features_of(observation))
        observation, _, has_ended, is_over_time, _ = env.step(action.numpy())
        is_done, step = has_ended or is_over_time, step + 1
        if step % EVERY == 0 or is_done:
            picture = env.physics.render("overview", width=width, height=width * 3 // 4, has_shadows=True)
            frames.append(picture)
    env.close()
    return frames


if __name__ == "__main__":
    main()
