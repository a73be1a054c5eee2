"""Rankings of weights in a run: who makes them, when, and what they change."""

import math

import models
import numpy as np
import pytest
from runs import LAMP, compiled, zeros

from pdp_keras import GlobalMagnitude, PDPScheduleCallback, methods, prune_model
from pdp_keras import allocation as allocations
from pdp_keras.pruned import parts

MOVE_THEMSELVES = {"optg", "acdc", "granet", "scp"}
MOVING_ONE, FIXED_ONE = GlobalMagnitude(0.8, moving=True), GlobalMagnitude(moving=False)
# id: the model's own allocation, the callback's, the ranking that moves; "open" is what
# was given where the method moves it
RANKINGS = {
    "open": (GlobalMagnitude(0.9), None, "open"),
    "moving": (MOVING_ONE, None, MOVING_ONE),
    "fixed": (FIXED_ONE, None, None),
    "uniform": ("uniform", None, None),
    "global": ("global", None, "open"),
    "lamp": ("lamp", None, LAMP),
    "the default of PDP": (None, None, LAMP),
    "the callback's": ("uniform", MOVING_ONE, MOVING_ONE),
    "the callback's is lamp": ("global", "lamp", LAMP),
    "the callback's is global": ("lamp", "global", "open"),
    "the callback's goes before": (FIXED_ONE, MOVING_ONE, MOVING_ONE),
    "the callback's is none": (MOVING_ONE, "erk", None),
    "the callback's is a mapping": (MOVING_ONE, {"first": 0.5, "last": 0.1}, None),
}


@pytest.mark.parametrize(("own", "given", "expected"), RANKINGS.values(), ids=RANKINGS)
def test_a_method_decides_on_rankings_where_the_user_leaves_it_open(
    own, given, expected
):
    model = prune_model(models.mlp(), allocation=own)
    for name in methods.METHODS:
        method, ranking = methods.get(name), expected
        if expected == "open":
            left_open = allocations.get(given or own)
            ranking = left_open if name in MOVE_THEMSELVES else None
        if method.sets_zeros:  # nothing is shared out
            ranking = None
        assert parts.moving_allocation(model, method, given) == ranking, name


# id: method, moving, whether the ranking is made anew
MOVING = {
    "gmp, moving": ("gmp", True, True),
    "gmp, once": ("gmp", False, False),
    "gmp, as it is": ("gmp", None, False),
    "pdp, moving": ("pdp", True, True),
    "pdp, as it is": ("pdp", None, False),
    "dnw, moving": ("dnw", True, False),  # all goes at once
}


@pytest.mark.parametrize(("method", "moving", "anew"), MOVING.values(), ids=MOVING)
@pytest.mark.parametrize("update", ["epoch", "step"])
def test_a_layer_that_shrinks_gets_more_zeros_if_the_ranking_moves(
    method, moving, anew, update
):
    model = compiled(0.5, method=method, allocation=GlobalMagnitude(moving=moving))
    first, last = parts.pruned_weights(model)
    last.variable.assign(np.full((20, 3), 0.5))
    first.variable.assign(np.linspace(0.1, 1, 120).reshape(6, 20))
    schedule = PDPScheduleCallback(ramp_epochs=3, update=update)
    schedule.start(model, epochs=4, steps_per_epoch=4)

    def train(epoch):
        schedule.start_epoch(epoch)
        for step in range(4):
            schedule.start_step(step)

    train(0)
    train(1)
    # Till now 53 of the first are below all of the last.
    last.variable.assign(np.full((20, 3), 0.01))
    train(2)
    train(3)
    assert sum(zeros(model)) == 90
    # At most 99 % of a layer goes.
    assert zeros(model) == ([31, 59] if anew else [53, 37])
    targets = [int(weight.target_zeros.numpy()) for weight in (first, last)]
    assert targets == zeros(model)


def test_the_default_of_pdp_is_a_cubic_ramp_by_step_and_a_moving_ranking_by_lamp():
    model = compiled(0.5)
    first, last = parts.pruned_weights(model)
    first.variable.assign(np.ones((6, 20)))
    last.variable.assign(np.full((20, 3), 0.01))
    schedule = PDPScheduleCallback(warmup_epochs=1, ramp_epochs=3)
    schedule.start(model, epochs=5, steps_per_epoch=4)
    totals, targets = [], []
    for epoch in range(5):
        schedule.start_epoch(epoch)
        for step in range(4):
            if (epoch, step) == (3, 1):
                values = np.full(60, 1e-6)
                values[:10] = 0.01
                last.variable.assign(values.reshape(20, 3))
            schedule.start_step(step)
            totals.append(sum(zeros(model)))
            targets.append([int(w.target_zeros.numpy()) for w in (first, last)])
    # round(90 * (1 - (1 - k / 12)**3)) for k from 1 to 12, the two layers rounded by
    # themselves between two rankings.
    expected = [21, 38, 52, 63, 72, 79, 83, 87, 89, 90, 90, 90]
    np.testing.assert_allclose(totals, [0] * 4 + expected + [90] * 4, atol=1)
    assert totals == sorted(totals) and totals[4] == 21 and totals[-5:] == [90] * 5
    # First 1/120, ..., 1/61 of the first, then both in turns from 1/60 to 1/46.
    assert targets[4:15] == [[75, 15]] * 11
    # All but 10 of the last, before 1/120, ..., 1/81 of the first.
    assert targets[15:] == [[40, 50]] * 5 and zeros(model) == [40, 50]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    # Of 120 and of 60 equal weights, at 60 % without a floor: 1/120 ... 1/37, 1/60 ...
    # 1/37; the first only; each for itself.
    [
        ({}, [84, 24]),
        ({"mode": "unstructured", "method": "pdp_paper"}, [108, 0]),
        ({"method": "gmp"}, [108, 0]),
        ({"allocation": "global"}, [108, 0]),
        ({"allocation": "uniform"}, [72, 36]),
    ],
    ids=["pdp", "pdp_paper", "gmp", "global", "uniform"],
)
def test_what_the_default_allocation_gives_to_layers_of_equal_weights(
    arguments, expected
):
    model = compiled(0.6, **arguments)
    for weight in parts.pruned_weights(model):
        weight.variable.assign(np.ones(weight.variable.shape))
    schedule = PDPScheduleCallback(ramp_epochs=1)
    schedule.start(model, epochs=1)
    schedule.start_epoch(0)
    assert zeros(model) == expected


# id: steps in an epoch, warm-up, ramp, the steps (of all epochs) of the rankings
MADE_AT = {
    "one an epoch": (30, 1, 3, [30, 60, 90, 119]),
    "every 100 steps": (250, 1, 2, [250, 350, 450, 500, 600, 700, 749]),
    "a twentieth of the ramp": (
        400,
        0,
        10,
        sorted([*range(0, 4000, 400), *range(200, 4000, 400), 3999]),
    ),
    "from the middle of an epoch": (40, 0.5, 2, [20, 40, 80, 99]),
}


@pytest.mark.parametrize(
    ("steps", "warmup", "ramp", "expected"), MADE_AT.values(), ids=MADE_AT
)
def test_when_a_moving_ranking_is_made(steps, warmup, ramp, expected, monkeypatch):
    model = compiled(0.5)
    rank, found, now = GlobalMagnitude.__call__, [], []

    def remember(self, weights, sparsity):
        found.append(now[-1])
        return rank(self, weights, sparsity)

    monkeypatch.setattr(GlobalMagnitude, "__call__", remember)
    schedule = PDPScheduleCallback(warmup_epochs=warmup, ramp_epochs=ramp)
    epochs = math.ceil(warmup + ramp) + 1
    schedule.start(model, epochs=epochs, steps_per_epoch=steps)
    for epoch in range(epochs):
        now.append(epoch * steps)
        schedule.start_epoch(epoch)
        for step in range(steps):
            now.append(epoch * steps + step)
            schedule.start_step(step)
    assert sorted(set(found)) == expected


def test_a_moving_ranking_wants_finite_weights():
    model = compiled(0.5)
    schedule = PDPScheduleCallback(ramp_epochs=4)
    schedule.start(model, epochs=4, steps_per_epoch=4)
    schedule.start_epoch(0)
    before = zeros(model)
    parts.pruned_weights(model)[0].variable.assign(np.full((6, 20), np.nan))
    with pytest.raises(ValueError, match="Received: NaN or infinity in 'first/kernel'"):
        schedule.start_epoch(1)
    assert zeros(model) == before


@pytest.mark.parametrize("update", ["epoch", "step"])
@pytest.mark.parametrize("ramp", ["linear", "cubic"])
def test_a_moving_ranking_keeps_to_the_ramp_between_two_rankings(ramp, update):
    """A layer that is all but pruned at first cannot grow in proportion."""
    model = compiled(0.7, method="gmp", allocation=GlobalMagnitude(moving=True))
    first, last = parts.pruned_weights(model)
    first.variable.assign(np.linspace(1, 2, 120).reshape(6, 20))
    last.variable.assign(np.linspace(0.1, 0.2, 60).reshape(20, 3))
    schedule = PDPScheduleCallback(ramp_epochs=3, ramp=ramp, update=update)
    schedule.start(model, epochs=4, steps_per_epoch=4)
    seen = []
    for epoch in range(4):
        schedule.start_epoch(epoch)
        for step in range(4):
            schedule.start_step(step)
            done = epoch + 1 if update == "epoch" else epoch + (step + 1) / 4
            part = min(1, done / 3)
            fraction = part if ramp == "linear" else 1 - (1 - part) ** 3
            assert sum(zeros(model)) == pytest.approx(126 * fraction, abs=1.01)
            seen.append(zeros(model))
            assert seen[-1][1] <= 59
    # A ranking comes at the beginning of each epoch; from there on it is a line.
    for first in range(0, 16, 4):
        assert seen[first : first + 4] == sorted(seen[first : first + 4])
    assert seen[-1] == [67, 59]


@pytest.mark.filterwarnings("ignore:The allocation leaves no weight at all in")
def test_the_ranking_of_weights_that_trained_densely():
    """AC/DC prunes nothing in a tenth of the run: it is ranked after that."""
    allocation = GlobalMagnitude(max_sparsity=1.0, moving=False)
    model = compiled(0.5, method="acdc", allocation=allocation)
    first, last = parts.pruned_weights(model)
    schedule = PDPScheduleCallback(ramp_epochs=1)
    schedule.start(model, epochs=20, steps_per_epoch=1)
    schedule.start_epoch(0)
    schedule.start_epoch(1)
    assert zeros(model) == [0, 0]
    first.variable.assign(np.ones((6, 20)))
    last.variable.assign(np.full((20, 3), 0.5))
    schedule.start_epoch(2)
    assert zeros(model) == [30, 60]
    schedule.start_epoch(3)
    assert zeros(model) == [0, 0]
