import math

import pytest
import torch

from lerobot.policies.chunk import TemporalEnsemble


@pytest.mark.parametrize("coeff", [0.0, 0.01, -0.5, 2.0])
def test_the_ensemble_is_the_weighted_mean_of_all_predictions_for_now(coeff):
    length, chunks = 5, torch.randn(12, 2, 5, 3)
    ensemble = TemporalEnsemble(coeff, length)
    for now in range(len(chunks)):
        predictions = [chunks[then, :, now - then] for then in range(max(0, now - length + 1), now + 1)]
        weights = [math.exp(-coeff * i) for i in range(len(predictions))]  # the oldest has i = 0
        wanted = sum(w * p for w, p in zip(weights, predictions, strict=True)) / sum(weights)
        torch.testing.assert_close(ensemble.update(chunks[now]), wanted)


def test_a_cleared_ensemble_starts_anew():
    ensemble, chunk = TemporalEnsemble(0.1, 4), torch.randn(1, 4, 2)
    for _ in range(3):
        ensemble.update(torch.randn(1, 4, 2))
    ensemble.clear()
    torch.testing.assert_close(ensemble.update(chunk), chunk[:, 0])


def test_chunks_of_one_action_are_passed_through():
    ensemble = TemporalEnsemble(0.01, 1)
    for chunk in torch.randn(3, 2, 1, 4):
        torch.testing.assert_close(ensemble.update(chunk), chunk[:, 0])
