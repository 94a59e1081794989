"""The parts of a page about a comparison with a dataset: one number, charts of actions, errors by kind.

ReplayResult -> replay_parts -> ["<div ...", ...] -> page.document          curve_charts -> files of their own
"""

from collections.abc import Sequence

from lerobot.evaluation import page
from lerobot.evaluation.charts import Line, line_chart
from lerobot.evaluation.replay_result import Curve, Means, ReplayResult
from lerobot.evaluation.rollout_page import between, fact_rows

ERRORS = ("mae", "mse")


def replay_parts(result: ReplayResult) -> list[str]:
    """Headline, facts, error along the chunk, predicted against recorded actions, tables."""
    found, steps = result.overall, result.means("step")
    along = line_chart(
        "mean absolute error along the chunk",
        [Line("mae", range(len(steps)), [step["action_mae"] for step in steps])],
        x_label="steps ahead",
        y_range=(0.0, 0.0),
    )
    text = "is how far a planned action is from the recorded one, on average over joints, steps of the chunk "
    text += f"and frames, in the action's own units. The mean squared error is {found['action_mse']:.4g}. "
    if found["action_mae_interval"] is not None:
        text += f"Over all such episodes the mean is {between(found['action_mae_interval'], '.3g')} "
        text += f"(95 % interval from {len(result.episodes)} episodes)."
    rows = {name: row for name, row in result.rows.items() if name != "action error"}
    joints = error_table("joint", result.joint_names, result.means("joint"))
    return [
        page.headline(f"{found['action_mae']:.3g}", text),
        page.facts({**rows, **fact_rows(result.facts)}),
        page.section("Error by joint", joints),
        page.section("Error by step", page.grid([along], is_wide=True) if len(steps) > 1 else ""),
        *(curve_part(curve, result.joint_names) for curve in result.curves),
        page.section("Episodes", episode_table(result)),
    ]


def error_table(kind: str, names: Sequence[str], means: Sequence[Means]) -> str:
    """A row per name, with both errors and their intervals."""
    header = [kind, *(word for error in ERRORS for word in (error, "95 % interval"))]
    rows = [
        [name]
        + [
            word
            for error in ERRORS
            for word in (f"{mean[f'action_{error}']:.4g}", between(mean[f"action_{error}_interval"], ".4g"))
        ]
        for name, mean in zip(names, means, strict=True)
    ]
    return page.table(header, rows)


def episode_table(result: ReplayResult) -> str:
    """A row per episode."""
    rows = [
        [str(number), str(int(count)), *(f"{mean[f'action_{error}']:.4g}" for error in ERRORS)]
        for number, count, mean in zip(
            result.episodes, result.counts[:, 0], result.means("episode"), strict=True
        )
    ]
    return page.table(["episode", "frames", *ERRORS], rows)


def curve_part(curve: Curve, joint_names: Sequence[str]) -> str:
    """Recorded and predicted actions of one episode, a chart per joint."""
    words = "At each frame the policy saw the recorded observation; its first planned action is drawn."
    return page.section(
        f"Episode {curve.episode}, predicted and recorded",
        page.paragraph(words),
        page.grid(curve_charts(curve, joint_names), is_wide=True),
    )


def curve_charts(curve: Curve, joint_names: Sequence[str]) -> list[str]:
    """A chart per joint: what was recorded, and the first action that was planned at each frame."""
    frames = range(len(curve.recorded))
    return [
        line_chart(
            name,
            [
                Line("recorded", frames, curve.recorded[:, joint].tolist()),
                Line("predicted", frames, curve.predicted[:, joint].tolist()),
            ],
            x_label="frame",
        )
        for joint, name in enumerate(joint_names)
    ]
