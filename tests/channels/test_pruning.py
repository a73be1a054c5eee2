"""Channels from `prune_model` to `strip_pruning`: the same outputs, always.

What `test_surgery` checks for the removal alone, here through the wrappers: the masks
are where channels are read, normalizations count living channels only.
"""

import channel_models
import keras
import numpy as np
import pytest
from channel_models import ARCHITECTURES, inputs_for, randomize, run
from hypothesis import given, settings
from hypothesis import strategies as st
from models import set_zeros
from random_graphs import random_graph

import pdp_keras
from pdp_keras.pruned import parts

TOLERANCE = 1e-4


def difference_after_stripping(model, sparsity, seed=1):
    """The largest difference of stripped and pruned, relative to their scale."""
    pruned = pdp_keras.prune_model(
        model, sparsity, mode="channel", allocation="uniform"
    )
    set_zeros(pruned)
    inputs = inputs_for(model, seed=seed)
    small = pdp_keras.strip_pruning(pruned)
    worst = 0.0
    for x, y in zip(run(pruned, inputs), run(small, inputs), strict=True):
        assert x.shape == y.shape
        assert np.isfinite(x).all()
        worst = max(worst, np.abs(x - y).max() / max(np.abs(x).max(), 1e-30))
    return worst, pruned, small


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_stripped_equals_pruned(name):
    model = randomize(ARCHITECTURES[name]())
    before = [np.array(variable) for variable in model.variables]
    if not can_be_pruned(model):
        pytest.skip("nothing of it can be pruned")
    worst, pruned, small = difference_after_stripping(model, 0.5)
    assert worst <= TOLERANCE
    removable = [g for g in parts.channel_groups(pruned) if g.removable]
    gone = any(not group.kept().all() for group in removable)
    assert (small.count_params() < model.count_params()) == gone
    assert not any(type(x).__module__.startswith("pdp_keras") for x in small.layers)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


def can_be_pruned(model):
    try:
        pdp_keras.prune_model(model, mode="channel")
    except ValueError as error:
        assert "must have channels that can be pruned" in str(error)
        return False
    return True


@pytest.mark.slow
@settings(max_examples=25)
@given(st.data(), st.integers(0, 1000), st.sampled_from([0.3, 0.5, 0.8]))
def test_random_graphs(data, seed, sparsity):
    try:
        model = randomize(random_graph(data.draw), seed)
        if can_be_pruned(model):
            worst, _, _ = difference_after_stripping(model, sparsity, seed)
            assert worst <= TOLERANCE
    finally:
        keras.utils.clear_session()


def test_a_wrong_mask_is_noticed(monkeypatch):
    """The check itself: what reads a pruned channel must be masked."""
    from pdp_keras.channels.wrapper import ChannelWrapper

    model = randomize(channel_models.residual())
    assert difference_after_stripping(model, 0.5)[0] <= TOLERANCE
    monkeypatch.setattr(ChannelWrapper, "masked_values", lambda self, training: [])
    assert difference_after_stripping(model, 0.5)[0] > 1e-2
