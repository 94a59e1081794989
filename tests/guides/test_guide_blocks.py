"""Our copies of the guides' code blocks are those of the guides, and no block was forgotten."""

import pytest

from tests.guides.blocks import BASICS, GUIDES, LEFT_OUT, RUN, TRAINING, copy_of, guide_blocks

needs_guides = pytest.mark.skipif(not GUIDES.is_dir(), reason="the guides do not lie beside the repository")


@needs_guides
@pytest.mark.parametrize("name", RUN)
def test_our_copy_is_the_guides_block(name):
    guide, number = RUN[name]
    assert copy_of(name).read_text(encoding="utf-8") == guide_blocks(guide)[number]


@needs_guides
@pytest.mark.parametrize("guide", [BASICS, TRAINING])
def test_every_block_is_run_or_left_out_for_a_reason(guide):
    decided = [place for place in (*RUN.values(), *LEFT_OUT) if place[0] == guide]
    assert sorted(decided) == [(guide, number) for number in range(len(guide_blocks(guide)))]


def test_there_is_one_copy_per_block_that_is_run():
    assert {path.stem for path in copy_of("versions").parent.iterdir()} == set(RUN)
