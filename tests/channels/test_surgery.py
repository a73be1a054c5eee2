"""Removed channels against channels that nobody reads: the same outputs, always."""

import keras
import numpy as np
import pytest
from channel_models import (
    ARCHITECTURES,
    alive_along,
    difference,
    inputs_for,
    random_keep,
    randomize,
    run,
    with_dead_channels,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from random_graphs import random_graph

from pdp_keras.channels.surgery import remove_channels
from pdp_keras.channels.trace import find_channels

TOLERANCE = 1e-4


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_smaller_model_computes_what_dead_channels_leave(name):
    model = randomize(ARCHITECTURES[name]())
    before = [np.array(variable) for variable in model.variables]
    plan = find_channels(model)
    for seed in range(2):
        keep = random_keep(plan, seed)
        worst, small = difference(model, keep)
        assert worst <= TOLERANCE
        assert type(small) is type(model)
        assert small.name == model.name
        assert [x.name for x in small.layers] == [x.name for x in model.layers]
        cut = any(not mask.all() for mask in keep.values())
        assert (small.count_params() < model.count_params()) == cut
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_outputs_depend_on_the_inputs(name):
    model = randomize(ARCHITECTURES[name]())
    first, second = (run(model, inputs_for(model, seed=seed)) for seed in (1, 2))
    for x, y in zip(first, second, strict=True):
        assert np.abs(x - y).max() > 1e-3 * np.abs(x).max()


def test_one_unit_of_each_group_is_enough():
    for name in ("inverted_residual", "splits_and_slices", "recurrent"):
        model = randomize(ARCHITECTURES[name]())
        keep = {g.name: np.arange(g.size) == 0 for g in find_channels(model).groups}
        assert difference(model, keep)[0] <= TOLERANCE


def test_a_wrong_removal_is_noticed():
    model = randomize(ARCHITECTURES["residual"]())
    plan = find_channels(model)
    keep = {"in0": np.arange(5) < 3}
    wrong = {"in0": np.arange(5) >= 2}
    inputs = inputs_for(model)
    (expected,) = run(with_dead_channels(model, plan, keep), inputs)
    (actual,) = run(remove_channels(model, wrong), inputs)
    assert np.abs(expected - actual).max() > 1e-2 * np.abs(expected).max()
    (whole,) = run(model, inputs)
    assert np.abs(expected - whole).max() > 1e-2 * np.abs(expected).max()


def test_groups_that_are_not_named_stay_whole():
    model = randomize(ARCHITECTURES["sequential"]())
    small = remove_channels(model, {"b": np.array([True, False, False, True])})
    assert small.get_layer("a").filters == 6
    assert small.get_layer("b").filters == 2
    same = remove_channels(model, {})
    inputs = inputs_for(model)
    np.testing.assert_array_equal(run(model, inputs)[0], run(same, inputs)[0])


def test_weights_are_the_slices_that_were_kept():
    model = randomize(ARCHITECTURES["sequential"]())
    keep = np.array([True, False, True, True, False, True])
    small = remove_channels(model, {"a": keep})
    for old, new in zip(model.layers[:2], small.layers[:2], strict=True):
        for x, y in zip(old.weights, new.weights, strict=True):
            np.testing.assert_array_equal(np.array(x)[..., keep], np.array(y))
    np.testing.assert_array_equal(
        np.array(model.get_layer("b").kernel)[:, :, keep],
        np.array(small.get_layer("b").kernel),
    )


def test_trainable_flags_stay_and_nothing_is_compiled():
    model = ARCHITECTURES["nested_twice"]()
    model.get_layer("inner").trainable = False
    model.get_layer("a").trainable = False
    model.compile("sgd", "mse")
    small = remove_channels(model, {"a": np.arange(6) < 4})
    assert not small.compiled
    flags = [v.trainable for v in model.variables]
    assert [v.trainable for v in small.variables] == flags


def test_a_removed_channel_is_gone_from_every_slot():
    model = ARCHITECTURES["inverted_residual"]()
    plan = find_channels(model)
    keep = random_keep(plan)
    small = find_channels(remove_channels(model, keep))
    sizes = {g.name: int(keep[g.name].sum()) for g in plan.groups}
    left = {name: size for name, size in sizes.items() if size > 1}
    assert {g.name: g.size for g in small.groups} == left
    for old, new in zip(plan.slots, small.slots, strict=True):
        assert alive_along(old, plan, keep).sum() == len(new.group_of)


def test_the_smaller_model_can_be_saved(tmp_path):
    model = randomize(ARCHITECTURES["splits_and_slices"]())
    small = remove_channels(model, random_keep(find_channels(model)))
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    inputs = inputs_for(model)
    for x, y in zip(run(small, inputs), run(loaded, inputs), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"none": np.ones(6, bool)}, "must name groups"),
        ({"a": np.ones(5, bool)}, "a boolean for each unit"),
        ({"a": np.zeros(6, bool)}, "one of them True"),
        ({"a": np.ones(6)}, "a boolean for each unit"),
        ({"a": np.arange(6)}, "a boolean for each unit"),
    ],
)
def test_what_cannot_be_kept_is_refused(keep, message):
    with pytest.raises(ValueError, match=message):
        remove_channels(ARCHITECTURES["sequential"](), keep)


def test_adapted_statistics_are_copied():
    inputs = keras.Input((3,))
    normalization = layers.Normalization()
    x = layers.Dense(4, name="a")(normalization(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    normalization.adapt(np.random.default_rng(0).normal(3.0, 2.0, (50, 3)))
    assert difference(model, {"a": np.arange(4) < 2})[0] <= TOLERANCE


@settings(max_examples=25)
@given(st.data(), st.integers(0, 1000))
def test_random_graphs(data, seed):
    check_random(data.draw, seed)


@pytest.mark.slow
@settings(max_examples=400)
@given(st.data(), st.integers(0, 1000))
def test_many_random_graphs(data, seed):
    check_random(data.draw, seed)


def check_random(draw, seed):
    try:
        # Not in a strategy: Keras draws the seeds of initializers on its own.
        model = randomize(random_graph(draw), seed)
        keep = random_keep(find_channels(model), seed)
        assert difference(model, keep, seed)[0] <= TOLERANCE
    finally:
        keras.utils.clear_session()


APPLICATIONS = {
    "MobileNet": 32,
    "MobileNetV3Small": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "DenseNet121": 32,
    "NASNetMobile": 32,
    "InceptionV3": 75,
    "InceptionResNetV2": 75,
    "Xception": 71,
    "VGG16": 32,
    "ConvNeXtTiny": 32,
}


def check_application(name, size):
    model = getattr(keras.applications, name)(
        weights=None,
        input_shape=(size, size, 3),
        classes=10,
        classifier_activation=None,
    )
    randomize(model)
    plan = find_channels(model)
    assert {fixed.kind for fixed in plan.fixed} == {"output"}
    worst, small = difference(model, random_keep(plan))
    assert worst <= TOLERANCE
    assert small.count_params() < 0.5 * model.count_params()


@pytest.mark.slow
def test_mobilenet_v2():
    check_application("MobileNetV2", 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications(name):
    check_application(name, APPLICATIONS[name])
