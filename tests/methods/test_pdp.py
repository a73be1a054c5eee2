"""PDP as one method of the table: the soft mask, its gradient and its ramp."""

import numpy as np
import pytest
import reference
from wrapped import (
    at_epoch,
    at_step,
    computed,
    every_cut,
    gradients,
    random_kernel,
    wrap,
)

from pdp_keras import methods, modes
from pdp_keras.methods import PDP, PaperPDP


@every_cut
def test_inference_is_the_cut(kernel, zeros, left):
    wrapper, _ = wrap(kernel, "pdp", zeros)
    np.testing.assert_array_equal(computed(wrapper, training=False), left)


# id: method, the bound of its gradient
GAINS = {
    "the default": ("pdp", 1.0),
    "the paper's": ("pdp_paper", np.inf),
    "without a bound": (PDP(max_gain=None), np.inf),
    "bounded": (PDP(max_gain=1.2), 1.2),
}


@pytest.mark.parametrize(("method", "max_gain"), GAINS.values(), ids=GAINS)
@pytest.mark.parametrize("temperature", [None, 0.3])
@pytest.mark.parametrize("zeros", [0, 1, 17, 29, 30])
def test_training_is_the_soft_mask(zeros, temperature, method, max_gain):
    kernel, upstream = random_kernel(6, 5), random_kernel(6, 5, seed=1)
    if temperature is None and method == "pdp_paper":
        temperature = 1e-4
    wrapper, _ = wrap(kernel, method, zeros, temperature=temperature)
    t = reference.threshold(np.abs(kernel), zeros)
    # The default is relative: tau = t**2.
    width = t if temperature is None else temperature**0.5
    mask = reference.soft_mask(kernel, t, width)
    found = computed(wrapper, training=True)
    np.testing.assert_allclose(found, kernel * mask, rtol=1e-5, atol=1e-7)
    found = gradients(wrapper, upstream)
    assert found.keys() == {"kernel"}
    slope = np.minimum(reference.soft_masked_slope(kernel, t, width), max_gain)
    np.testing.assert_allclose(found["kernel"], upstream * slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("max_gain", [0, -1.0, float("nan")])
def test_errors(max_gain):
    with pytest.raises(ValueError, match=f"positive.* Received: max_gain={max_gain}"):
        PDP(max_gain=max_gain)


def test_the_bound_survives_saving():
    for method in (PDP(max_gain=2.5), PDP(max_gain=None), PDP(), PaperPDP()):
        assert methods.get(methods.serialize(method)) == method


LINEAR = {2: 0, 3: 0.1, 7: 0.5, 11: 0.9, 12: 1, 20: 1}
CUBIC = {2: 0, 3: 0.271, 7: 0.875, 11: 0.999, 12: 1, 20: 1}


@pytest.mark.parametrize(
    ("method", "shape", "table"),
    [
        (PDP(), None, CUBIC),
        (PDP(), "linear", LINEAR),
        (PDP(), "cubic", CUBIC),
        (PaperPDP(), None, LINEAR),
        (PaperPDP(), "cubic", CUBIC),
    ],
    ids=["own", "linear", "cubic", "the paper's", "the paper's, cubic"],
)
def test_fraction(method, shape, table):
    by_epoch = {done: method.fraction(at_epoch(done - 1), shape) for done in table}
    by_step = {d: method.fraction(at_step(10 * d - 1), shape) for d in table}
    assert by_epoch == pytest.approx(table)
    assert by_step == pytest.approx(table)


def test_the_papers_recipe_has_its_temperature_for_all_weights():
    kernel = random_kernel(6, 5)
    wrapper, weight = wrap(kernel, "pdp_paper", 17)
    t = reference.threshold(np.abs(kernel), 17)
    mask = reference.soft_mask(kernel, t, 1e-2)  # the root of 1e-4
    found = computed(wrapper, training=True)
    np.testing.assert_allclose(found, kernel * mask, rtol=1e-4, atol=1e-7)
    assert weight.temperature.value == 1e-4
    assert PaperPDP().final_temperature == 1
    given, weight = wrap(kernel, "pdp_paper", 17, temperature=0.3)
    assert weight.temperature.value == 0.3
    assert methods.get(given.get_config()["method"]) == PaperPDP()


def test_it_is_soft_goes_by_step_and_keeps_nothing():
    assert PDP().is_soft and PDP().goes_by_step and PDP().extras() == {}
    assert PDP().final_temperature == 0.01


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("unstructured", (0.5, 1.0)), ("2:4", (0.0, 1.0)), ("channel", (0.5, 1.0))],
)
def test_default_fall(mode, expected):
    assert PDP().default_fall(modes.get(mode)) == expected


def test_the_paper_goes_by_epoch():
    assert PaperPDP().is_soft and not PaperPDP().goes_by_step
    assert not PaperPDP().reallocates


# id: method, mode, what shares the sparsity out where the user leaves it open
ALLOCATIONS = {
    "weights": (PDP(), "unstructured", "lamp"),
    "n:m": (PDP(), "2:4", "global"),
    "channels": (PDP(), "channel", "global"),
    "the paper's weights": (PaperPDP(), "unstructured", "global"),
    "the paper's n:m": (PaperPDP(), "2:4", "global"),
    "the paper's channels": (PaperPDP(), "channel", "global"),
}


@pytest.mark.parametrize(
    ("method", "mode", "expected"), ALLOCATIONS.values(), ids=ALLOCATIONS
)
def test_default_allocation(method, mode, expected):
    assert method.default_allocation(modes.get(mode)) == expected
