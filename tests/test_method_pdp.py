"""PDP as one method of the table: the soft mask, its gradient and its ramp."""

import numpy as np
import pytest
import reference
from wrapped import CUTS, at_epoch, at_step, computed, gradients, random_kernel, wrap

from pdp_keras import methods
from pdp_keras.methods import PDP, PaperPDP


@pytest.mark.parametrize(("kernel", "zeros", "left"), CUTS.values(), ids=CUTS)
def test_inference_is_the_cut(kernel, zeros, left):
    wrapper, _ = wrap(kernel, "pdp", zeros)
    np.testing.assert_array_equal(computed(wrapper, training=False), left)


@pytest.mark.parametrize("temperature", [None, 0.3])
@pytest.mark.parametrize("zeros", [0, 1, 17, 29, 30])
def test_training_is_the_soft_mask(zeros, temperature):
    kernel, upstream = random_kernel(6, 5), random_kernel(6, 5, seed=1)
    wrapper, _ = wrap(kernel, "pdp", zeros, temperature=temperature)
    t = reference.threshold(np.abs(kernel), zeros)
    # The default is relative: tau = t**2.
    width = t if temperature is None else temperature**0.5
    mask = reference.soft_mask(kernel, t, width)
    found = computed(wrapper, training=True)
    np.testing.assert_allclose(found, kernel * mask, rtol=1e-5, atol=1e-7)
    found = gradients(wrapper, upstream)
    assert found.keys() == {"kernel"}
    slope = reference.soft_masked_slope(kernel, t, width)
    np.testing.assert_allclose(found["kernel"], upstream * slope, rtol=1e-5, atol=1e-7)


LINEAR = {2: 0, 3: 0.1, 7: 0.5, 11: 0.9, 12: 1, 20: 1}
CUBIC = {2: 0, 3: 0.271, 7: 0.875, 11: 0.999, 12: 1, 20: 1}


@pytest.mark.parametrize(
    ("shape", "table"),
    [(None, LINEAR), ("linear", LINEAR), ("cubic", CUBIC)],
    ids=["own", "linear", "cubic"],
)
def test_fraction(shape, table):
    by_epoch = {done: PDP().fraction(at_epoch(done - 1), shape) for done in table}
    by_step = {d: PDP().fraction(at_step(10 * d - 1), shape) for d in table}
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


def test_it_is_soft_goes_by_epoch_and_keeps_nothing():
    assert PDP().is_soft and not PDP().goes_by_step and PDP().extras() == {}
