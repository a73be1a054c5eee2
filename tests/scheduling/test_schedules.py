"""Schedules: from the position in a run to the fraction of the target."""

import math
import re

import keras
import numpy as np
import pytest

from pdp_keras.scheduling import schedules
from pdp_keras.scheduling.schedules import LinearRamp, StepSchedule, TemperatureFall


@pytest.fixture(autouse=True)
def seeded_session():
    """In place of the common one: without layers there is no session to clear."""


# id: warm-up, ramp, {epochs done: fraction}
RAMPS = {
    "docstring": (2, 4, {1: 0, 2: 0, 3: 0.25, 4: 0.5, 5: 0.75, 6: 1, 7: 1}),
    "no-warm-up": (0, 2, {0: 0, 1: 0.5, 2: 1, 100: 1}),
    "one-epoch": (3, 1, {2: 0, 3: 0, 4: 1}),
    "shorter-than-an-epoch": (1, 0.5, {1: 0, 1.25: 0.5, 1.5: 1, 2: 1}),
    "fractional-warm-up": (1.5, 2, {1: 0, 2: 0.25, 3: 0.75, 4: 1}),
    "before-the-start": (5, 5, {0: 0, -1: 0}),
    "paper": (16, 1 / 0.015, {16: 0, 17: 0.015, 18: 0.03, 82: 0.99, 83: 1, 90: 1}),
}


@pytest.mark.parametrize(("warmup", "ramp", "table"), RAMPS.values(), ids=RAMPS)
def test_linear_ramp(warmup, ramp, table):
    schedule = LinearRamp(warmup_epochs=warmup, ramp_epochs=ramp)
    found = {epochs: schedule(epochs) for epochs in table}
    assert found == pytest.approx(table, abs=1e-12)
    # Approximately 1 would be a weight short of the target.
    assert all(found[e] == 1 for e, fraction in table.items() if fraction == 1)
    assert all(found[e] == 0 for e, fraction in table.items() if fraction == 0)


@pytest.mark.parametrize(
    ("warmup", "ramp", "needed"),
    (
        (0, 1, 1),
        (2, 4, 6),
        (3, 15, 18),
        (0, 1 / 0.015, 67),
        (16, 1 / 0.015, 83),
        (0, 1 / 0.1, 10),
        (0, 1 / 0.07, 15),
        (1.5, 2, 4),
        (0, 0.5, 1),
    ),
    ids=str,
)
def test_the_shortest_run_reaches_the_target_and_no_shorter_one(warmup, ramp, needed):
    schedule = LinearRamp(warmup, ramp)
    assert schedule.epochs_needed == needed
    assert schedule(needed) == 1.0
    assert schedule(needed - 1) < 1.0


@pytest.mark.parametrize("epochs", range(1, 130))
def test_any_whole_number_of_steps_ends_at_one(epochs):
    """1 / (1 / n) is not n for every n: 49 is the first that shows it."""
    epsilon = 1 / epochs
    schedule = LinearRamp(warmup_epochs=3, ramp_epochs=1 / epsilon)
    assert schedule.epochs_needed == epochs + 3
    assert schedule(epochs + 3) == 1.0


def test_linear_ramp_never_falls_and_stays_a_fraction():
    schedule = LinearRamp(2.5, 7.3)
    fractions = [schedule(e) for e in np.linspace(0, 20, 500)]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0 and fractions[-1] == 1


def test_phases_are_where_the_ramp_begins_and_ends():
    ramp = LinearRamp(2.5, 4)
    begin, end = ramp.phases
    assert (begin, end) == (2.5, 6.5)
    assert ramp(begin) == 0 and ramp(begin + 0.01) > 0
    assert ramp(end) == 1 and ramp(end - 0.01) < 1


RAMP_ERRORS = {
    "negative-warm-up": ((-1, 5), "warmup_epochs", "-1"),
    "nan-warm-up": ((np.nan, 5), "warmup_epochs", "nan"),
    "infinite-warm-up": ((np.inf, 5), "warmup_epochs", "inf"),
    "no-ramp": ((0, 0), "ramp_epochs", "0"),
    "negative-ramp": ((0, -5), "ramp_epochs", "-5"),
    "infinite-ramp": ((0, np.inf), "ramp_epochs", "inf"),
    "nan-ramp": ((0, np.nan), "ramp_epochs", "nan"),
    "text": (("2", 5), "warmup_epochs", "'2'"),
    "none": ((0, None), "ramp_epochs", "None"),
    "bool": ((True, 5), "warmup_epochs", "True"),
    "list": (([], 5), "warmup_epochs", r"\[\]"),
}


@pytest.mark.parametrize(
    ("arguments", "name", "value"), RAMP_ERRORS.values(), ids=RAMP_ERRORS
)
def test_linear_ramp_errors(arguments, name, value):
    message = f"{name} must be a finite number .*Received: {name}={value}$"
    with pytest.raises(ValueError, match=message):
        LinearRamp(*arguments)


@pytest.mark.parametrize(
    ("schedule", "table"),
    (
        (lambda step: step / 10, {0: 0, 5: 0.5, 10: 1}),
        (lambda step: np.float32(0.5), {0: 0.5}),
        (lambda step: 1 + 1e-7, {0: 1}),
        (lambda step: -1e-7, {0: 0}),
        (lambda step: keras.ops.convert_to_tensor(0.25), {0: 0.25}),
    ),
    ids=("python", "numpy", "rounded-up", "rounded-down", "tensor"),
)
def test_plain_callables(schedule, table):
    found = {step: StepSchedule(schedule)(step) for step in table}
    assert found == table
    assert all(type(fraction) is float for fraction in found.values())
    assert StepSchedule(schedule).final_sparsity is None


def test_keras_schedule():
    cubic = keras.optimizers.schedules.PolynomialDecay(0.0, 100, 1.0, power=3)
    # end + (start - end) * (1 - step / 100)**3
    found = [StepSchedule(cubic)(step) for step in (0, 50, 100, 200)]
    linear = keras.optimizers.schedules.PolynomialDecay(0.0, 8, end_learning_rate=1.0)
    assert found == pytest.approx([0, 0.875, 1, 1])
    assert [StepSchedule(linear)(step) for step in (0, 2, 8)] == [0, 0.25, 1]


@pytest.mark.parametrize("value", (1.1, -0.1, float("nan"), float("inf")), ids=str)
def test_a_fraction_outside_the_range_is_an_error(value):
    message = rf"in \[0, 1\]\. Received: {re.escape(str(value))} at step=7$"
    with pytest.raises(ValueError, match=message):
        StepSchedule(lambda step: value)(7)


def test_a_schedule_must_be_callable():
    with pytest.raises(TypeError, match=r"must be callable .*Received: schedule=0\.5$"):
        StepSchedule(0.5)


@pytest.mark.parametrize(
    ("schedule", "last", "begin", "end"),
    (
        (lambda step: min(1, max(0, (step - 10) / 20)), 100, 11, 30),
        (lambda step: float(step >= 7), 100, 7, 7),
        (lambda step: 1.0, 100, 0, 0),
        (lambda step: 0.0, 100, 100, 100),
        (lambda step: step / 100, 50, 1, 50),
        (lambda step: 0.5, 0, 0, 0),
    ),
    ids=("ramp", "step", "at-once", "never", "unfinished", "no-steps"),
)
def test_find_phases(schedule, last, begin, end):
    """The first step that prunes, and the first at the full target."""
    assert StepSchedule(schedule).find_phases(last) == (begin, end)


# {position: fraction}
SHAPES = {
    "linear": {0: 0, 0.25: 0.25, 0.5: 0.5, 1: 1},
    "cubic": {0: 0, 0.25: 0.578125, 0.5: 0.875, 0.75: 0.984375, 1: 1},
}


def test_shapes_of_a_ramp():
    assert schedules.RAMPS.keys() == SHAPES.keys()
    for name, table in SHAPES.items():
        assert {p: schedules.RAMPS[name](p) for p in table} == table, name


@pytest.mark.parametrize("name", schedules.RAMPS)
def test_every_shape_rises_from_0_to_1(name):
    fractions = [schedules.RAMPS[name](p) for p in np.linspace(0, 1, 101)]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0, 1)


# id: begin, length, final, {position: fraction of the temperature}
FALLS = {
    "docstring": (4, 2, 0.01, {3: 1, 4: 1, 5: 0.1, 6: 0.01, 7: 0.01}),
    "geometric": (0, 4, 1e-4, {1: 0.1, 2: 0.01, 3: 0.001, 4: 1e-4}),
    "constant-as-in-the-paper": (4, 2, 1.0, {0: 1, 5: 1, 9: 1}),
    "at-once": (4, 0, 0.01, {3: 1, 4: 1, 4.01: 0.01}),
    "fractional": (1.5, 1, 0.25, {1.5: 1, 2: 0.5, 2.5: 0.25}),
}


@pytest.mark.parametrize(
    ("begin", "length", "final", "table"), FALLS.values(), ids=FALLS
)
def test_temperature_fall(begin, length, final, table):
    fall = TemperatureFall(begin, length, final)
    assert {at: fall(at) for at in table} == pytest.approx(table, rel=1e-12)


@pytest.mark.parametrize("final", (0, -0.1, 1.1, math.nan), ids=str)
def test_temperature_fall_errors(final):
    received = re.escape(f"Received: final_temperature={final!r}")
    with pytest.raises(ValueError, match=rf"must be in \(0, 1\]\. {received}$"):
        TemperatureFall(0, 1, final)


@pytest.fixture
def tfmot_schedules():
    """The schedules of the real package, which brings Keras 2 into the process."""
    pytest.importorskip("tf_keras")
    import warnings

    with warnings.catch_warnings():
        # TFMOT compares the version of TensorFlow with distutils.
        warnings.filterwarnings("ignore", message="distutils Version classes")
        tfmot = pytest.importorskip("tensorflow_model_optimization")
    return tfmot.sparsity.keras


# id: class, arguments, final sparsity, {step: fraction}
TFMOT = {
    "constant": (
        "ConstantSparsity",
        {"target_sparsity": 0.5, "begin_step": 3},
        0.5,
        {0: 0, 2: 0, 3: 1, 4: 1, 1000: 1},
    ),
    "constant-that-ends-keeps-its-sparsity": (
        "ConstantSparsity",
        {"target_sparsity": 0.5, "begin_step": 3, "end_step": 10, "frequency": 2},
        0.5,
        {2: 0, 3: 1, 4: 1, 11: 1},
    ),
    "linear": (
        "PolynomialDecay",
        {
            "initial_sparsity": 0.0,
            "final_sparsity": 0.8,
            "begin_step": 10,
            "end_step": 20,
            "power": 1,
        },
        0.8,
        {0: 0, 9: 0, 10: 0, 15: 0.5, 20: 1, 30: 1},
    ),
    "cubic-from-a-start": (
        "PolynomialDecay",
        {
            "initial_sparsity": 0.2,
            "final_sparsity": 0.8,
            "begin_step": 10,
            "end_step": 20,
        },
        0.8,
        # (0.8 - 0.6 * 0.5**3) / 0.8
        {9: 0, 10: 0.25, 15: 0.90625, 20: 1, 21: 1},
    ),
}


@pytest.mark.parametrize(
    ("name", "arguments", "final", "table"), TFMOT.values(), ids=TFMOT
)
def test_tfmot_schedules(tfmot_schedules, name, arguments, final, table):
    schedule = StepSchedule(getattr(tfmot_schedules, name)(**arguments))
    assert schedule.final_sparsity == final
    found = {step: schedule(step) for step in table}
    assert found == pytest.approx(table, abs=1e-6)
    assert all(found[step] == 1 for step, fraction in table.items() if fraction == 1)


def test_a_tfmot_schedule_that_never_prunes(tfmot_schedules):
    schedule = tfmot_schedules.ConstantSparsity(0.0, begin_step=0)
    with pytest.raises(ValueError, match=r"above 0\. Received: schedule="):
        StepSchedule(schedule)


def test_keras_3_works_beside_tfmot(tfmot_schedules):
    """TFMOT imports tf_keras, which shares names and globals with Keras 3."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    history = model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    assert len(history.history["loss"]) == 1
    assert not type(model).__module__.startswith("tf_keras")
