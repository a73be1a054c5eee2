"""What every method that prunes single weights does in a run."""

import types
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from wrapped import random_kernel, wrap

from pdp_keras import (
    PDPScheduleCallback,
    PDPWrapper,
    methods,
    prune_model,
    sparsity_report,
    strip_pruning,
)
from pdp_keras.pruned import parts

# Methods of channels have `channel_conformance.py`.
SINGLE = [n for n, m in methods.METHODS.items() if "unstructured" in m.modes]
LEARNED = {n for n, m in methods.METHODS.items() if m.learns_sparsity}
SPARSITY = 0.7
SIZE = 6 * 12 + 12 * 3
EPOCHS = 5
X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
Y = np.tanh(X[:, :3])
# What a run of 20 steps needs to show something; the rest is as it comes.
ARGUMENTS = {
    "granet": {"frequency": 3},
    "pofa": {"frequency": 3},
    "rigl": {"frequency": 3},
    "str": {"initial": -2.0},
    "soft_movement": {"force": 140.0},
}


def method_for_a_short_run(name):
    return methods.METHODS[name](**ARGUMENTS.get(name, {}))


def dense_model(hidden=12):
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(hidden, activation="tanh", name="first"),
            layers.Dense(3, name="last"),
        ]
    )


def values(model):
    return [variable.numpy() for variable in model.variables]


def strip(model):
    """A method that learns its sparsity may well be below its target."""
    with warnings.catch_warnings():
        if parts.pruned_weights(model)[0].method.learns_sparsity:
            message = ".*stripped before they have reached their target"
            warnings.filterwarnings("ignore", message, UserWarning)
        return strip_pruning(model)


def fit(model, *callbacks, **arguments):
    schedule = PDPScheduleCallback(warmup_epochs=1, ramp_epochs=2)
    known = {"epochs": EPOCHS, "batch_size": 4, "shuffle": False, "verbose": 0}
    return model.fit(X, Y, callbacks=[schedule, *callbacks], **known, **arguments)


def compiled(name, model=None, **arguments):
    if model is None:
        keras.utils.set_random_seed(3)
        model = dense_model()
    pruned = prune_model(model, SPARSITY, method=method_for_a_short_run(name))
    pruned.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", **arguments)
    return pruned


@pytest.fixture(scope="module", params=SINGLE)
def run(request, tmp_path_factory):
    """One fit of a model with the method: before, within and after it."""
    folder = tmp_path_factory.mktemp(request.param)
    keras.utils.set_random_seed(3)
    given = dense_model()
    before = values(given)
    starts = np.asarray(given(X))
    model = compiled(request.param, given)
    starts_pruned = np.asarray(model(X))

    def save_half(epoch, logs):
        if epoch == 1:
            model.save(folder / "half.keras")

    saving = keras.callbacks.LambdaCallback(on_epoch_end=save_half)
    history = fit(model, saving).history
    model.save(folder / "end.keras")
    return types.SimpleNamespace(
        name=request.param,
        given=given,
        before=before,
        starts=starts,
        starts_pruned=starts_pruned,
        model=model,
        history=history,
        stripped=strip(model),
        folder=folder,
    )


def test_the_given_model_is_untouched(run):
    for old, new in zip(run.before, values(run.given), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(run.given(X), run.starts)


def test_it_starts_from_the_given_model(run):
    """Soft thresholding alone is never without effect."""
    if run.name == "str":
        assert not np.allclose(run.starts_pruned, run.starts, atol=1e-3)
    else:
        np.testing.assert_array_equal(run.starts_pruned, run.starts)


def test_training_helps(run):
    loss = run.history["loss"]
    assert np.isfinite(loss).all()
    # The mean square of a model that says 0: what is learned is not lost to the mask.
    assert loss[-1] < np.mean(np.square(Y))


def test_inference_is_the_stripped_model_bit_for_bit(run):
    assert not any("pdp_keras" in type(x).__module__ for x in run.stripped.layers)
    np.testing.assert_array_equal(run.model(X), run.stripped(X))


def test_the_zeros_of_the_stripped_model_are_those_that_were_counted(run):
    counted = [int(w.zeros.numpy()) for w in parts.pruned_weights(run.model)]
    kernels = [layer.kernel.numpy() for layer in run.stripped.layers]
    assert [int(np.sum(kernel == 0)) for kernel in kernels] == counted
    assert run.history["sparsity"][-1] == pytest.approx(sum(counted) / SIZE)
    assert sparsity_report(run.model).zeros == sum(counted)
    if run.name in LEARNED:
        assert 0 < sum(counted) < SIZE
    else:
        assert sum(counted) == round(SPARSITY * SIZE)


def test_a_saved_model_is_the_same(run):
    loaded = keras.models.load_model(run.folder / "end.keras")
    np.testing.assert_array_equal(loaded(X), run.model(X))
    pair = map(parts.find_wrappers, (run.model, loaded))
    for ours, theirs in zip(*pair, strict=True):
        assert theirs.get_config() == ours.get_config()
        assert theirs.get_config()["method"]["name"] == run.name
    weights = parts.pruned_weights(run.model)
    for ours, theirs in zip(weights, parts.pruned_weights(loaded), strict=True):
        assert theirs.method == ours.method == method_for_a_short_run(run.name)
        assert ours.extras.keys() == theirs.extras.keys()
        for name, variable in ours.extras.items():
            np.testing.assert_array_equal(variable, theirs.extras[name])


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(run):
    resumed = keras.models.load_model(run.folder / "half.keras")
    fit(resumed, initial_epoch=2)
    variables = zip(run.model.variables, resumed.variables, strict=True)
    for straight, variable in variables:
        # Only where a threshold is looked for first, which an evaluation moves too.
        if not straight.path.endswith("_bracket"):
            np.testing.assert_array_equal(straight, variable, straight.path)


@pytest.mark.slow
def test_a_whole_run_in_xla_gives_the_same(run):
    model = compiled(run.name, jit_compile=True)
    fit(model)
    for graph, xla in zip(run.model.variables, model.variables, strict=True):
        if graph.path.endswith("_bracket"):
            continue
        np.testing.assert_allclose(graph, xla, 1e-3, 1e-5, err_msg=graph.path)


# Compiling the search for a threshold takes seconds; "gmp" has it too.
SEARCHING = {"pdp", "pdp_paper", "dnw", "sr_ste", "movement"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in SEARCHING else [])
        for name in SINGLE
    ],
)
def test_xla_computes_the_same(name):
    """Outputs and gradients of one layer; the marked test above has whole runs."""
    wrapper, weight = wrap(random_kernel(6, 5), method_for_a_short_run(name), 12)
    for number, extra in enumerate(weight.extras.values()):
        # Masks need both; a rate, more than 0.
        given = random_kernel(*extra.shape, seed=number + 2)
        extra.assign(given > 0 if extra.dtype == "bool" else np.abs(given))
    upstream = random_kernel(6, 5, seed=1)

    def differentiate(inputs):
        with tf.GradientTape() as tape:
            outputs = wrapper(inputs, training=True)
            loss = tf.reduce_sum(outputs * upstream)
        variables = [v.value for v in wrapper.trainable_variables]
        return outputs, wrapper(inputs), tape.gradient(loss, variables)

    inputs = tf.constant(X[:6])
    ways = differentiate, tf.function(differentiate, jit_compile=True)
    eager, xla = (tf.nest.flatten(way(inputs)) for way in ways)
    assert len(eager) == 2 + len(wrapper.trainable_variables)
    for ours, theirs in zip(eager, xla, strict=True):
        assert np.any(ours)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stride", [None, 1, 2], ids="stride={}".format)
@pytest.mark.parametrize("name", [name for name in SINGLE if name not in LEARNED])
def test_the_target_is_reached_however_rarely_it_is_asked(name, stride):
    """By epoch (None), at each step, or at the first of several in one execution."""
    model = prune_model(dense_model(200), SPARSITY, method=method_for_a_short_run(name))
    update = "epoch" if stride is None else "step"
    schedule = PDPScheduleCallback(warmup_epochs=1, ramp_epochs=3, update=update)
    schedule.start(model, epochs=6, steps_per_epoch=4)
    for epoch in range(6):
        schedule.start_epoch(epoch)
        for step in range(0, 4, stride or 1):
            schedule.start_step(step)
    weights = parts.pruned_weights(model)
    target = round(SPARSITY * 1800)
    assert sum(int(weight.zeros.numpy()) for weight in weights) == target
    assert sum(pruned_now(weight) for weight in weights) == target


def pruned_now(weight):
    """Places, not zeros: a weight may be 0 because it has only just come."""
    if "mask" in weight.extras:
        return np.sum(~weight.extras["mask"].numpy())
    return np.sum(np.asarray(weight.hard_masked()) == 0)


@pytest.mark.parametrize("name", [name for name in SINGLE if name not in LEARNED])
def test_uniform_allocation_and_a_single_wrapper(name):
    """As a user builds it who wraps layers by hand."""
    first = PDPWrapper(
        layers.Dense(12, activation="tanh", name="first"),
        SPARSITY,
        method=method_for_a_short_run(name),
    )
    model = keras.Sequential([keras.Input((6,)), first, layers.Dense(3, name="last")])
    schedule = PDPScheduleCallback(warmup_epochs=1, ramp_epochs=3)
    schedule.start(model, epochs=6, steps_per_epoch=4)
    for epoch in range(6):
        schedule.start_epoch(epoch)
        for step in range(4):
            schedule.start_step(step)
    (weight,) = first.pruned_weights
    assert int(weight.zeros.numpy()) == pruned_now(weight) == round(SPARSITY * 72)
