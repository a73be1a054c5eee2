"""ChannelWrapper: layers that share the masks of their channels, in training too."""

import channel_models
import keras
import models
import numpy as np
import pytest
import reference
import tensorflow as tf
from channel_models import ARCHITECTURES
from keras import layers
from reference import channel_scores

from pdp_keras import (
    PDPScheduleCallback,
    PDPWrapper,
    prune_model,
    sparsity_report,
    strip_pruning,
)
from pdp_keras.channels.axes import Axis
from pdp_keras.channels.group import ChannelGroup
from pdp_keras.channels.wrapper import ChannelWrapper
from pdp_keras.pruned import parts

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
Y = np.tanh(X[:, :3])


def pruned_mlp():
    """The model, its pruned copy of which 8 of 20 channels are dead, their group."""
    model = channel_models.randomize(models.mlp())
    pruned = prune_model(model, 0.4, "channel", temperature=0.3)
    models.set_zeros(pruned)
    (group,) = parts.channel_groups(pruned)
    return model, pruned, group


def images(batch=4, seed=2):
    return np.random.default_rng(seed).normal(size=(batch, 8, 8, 3)).astype("float32")


def pruned_network(name, seed=0, **arguments):
    keras.utils.set_random_seed(seed)
    model = channel_models.randomize(ARCHITECTURES[name](), seed)
    return prune_model(model, 0.5, "channel", **arguments)


def counts(model):
    return [int(group.zeros.numpy()) for group in parts.channel_groups(model)]


def test_inference_computes_without_the_smallest_channels():
    model, pruned, _ = pruned_mlp()
    first, last = model.layers
    scores = channel_scores([(first.kernel.numpy(), 1, None)], 20, "l2")
    kernel = last.kernel.numpy()
    kernel[reference.smallest(scores, 8)] = 0
    last.kernel.assign(kernel)
    np.testing.assert_array_equal(pruned(X), model(X))


@pytest.mark.parametrize("how", ("eager", "graph", "xla"))
def test_training_has_the_soft_mask_and_its_closed_gradient(how):
    model, pruned, _ = pruned_mlp()
    upstream = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")

    def compute(inputs):
        with tf.GradientTape() as tape:
            outputs = pruned(inputs, training=True)
        variables = [v.value for v in pruned.trainable_variables]
        return outputs, tape.gradient(outputs, variables, upstream)

    if how != "eager":
        compute = tf.function(compute, jit_compile=how == "xla")
    outputs, gradients = compute(X)
    names = [v.path.split("/")[-2:] for v in pruned.trainable_variables]

    w1, b1, w2, b2 = (np.float64(v.numpy()) for v in model.trainable_variables)
    norms = (w1**2).sum(0)
    scores = np.sqrt(norms / norms.mean())
    threshold = reference.threshold(scores, 8)
    mask = reference.soft_mask(scores, threshold, 0.3**0.5)
    hidden = np.maximum(X @ w1 + b1, 0)
    np.testing.assert_allclose(
        outputs, hidden @ (mask[:, None] * w2) + b2, rtol=1e-4, atol=1e-4
    )
    of_hidden = (upstream @ (mask[:, None] * w2).T) * (hidden > 0)
    of_mask = ((hidden.T @ upstream) * w2).sum(1)
    of_scores = of_mask * mask * (1 - mask) * 2 * scores / 0.3
    expected = [
        X.T @ of_hidden + of_scores * w1 / scores / norms.mean(),
        of_hidden.sum(0),
        mask[:, None] * (hidden.T @ upstream),
        upstream.sum(0),
    ]
    for name, gradient, wanted in zip(names, gradients, expected, strict=True):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(
            gradient, wanted, rtol=1e-3, atol=1e-4 * scale, err_msg=str(name)
        )


@pytest.mark.parametrize("name", ("dense_block", "residual", "nested_twice"))
def test_a_mask_is_computed_once_in_a_call(name, monkeypatch):
    pruned = pruned_network(name)
    models.set_zeros(pruned)
    groups = parts.channel_groups(pruned)
    found = []
    compute = ChannelGroup._compute_mask

    def counted(group, training):
        found.append((group.label, training))
        return compute(group, training)

    monkeypatch.setattr(ChannelGroup, "_compute_mask", counted)
    inputs = channel_models.inputs_for(pruned)[0]
    for training in (False, True):
        found.clear()
        pruned(inputs, training=training)
        assert sorted(found) == sorted((group.label, training) for group in groups)
        pruned(inputs, training=training)
        assert len(found) == 2 * len(groups)
    found.clear()
    traced = tf.function(pruned)
    traced(inputs)
    assert len(found) == len(groups)


def test_no_call_sees_the_mask_of_an_earlier_one():
    _, pruned, group = pruned_mlp()
    kernel = group.makers[0].variable
    values = kernel.numpy()
    for training in (False, True):
        outputs = []
        for change in range(4):
            kernel.assign(np.roll(values, change, axis=1))
            outputs.append(np.asarray(pruned(X, training=training)))
        assert len({array.tobytes() for array in outputs}) == 4
        kernel.assign(values)
        np.testing.assert_array_equal(pruned(X, training=training), outputs[0])
    for zeros in (0, 5, 19):
        group.zeros.assign(zeros)
        ((_, values),) = pruned.get_layer("last").masked_values(training=False)
        rows = np.any(values, axis=1)
        assert np.count_nonzero(~rows) == zeros


def train_twice(model, optimizer, x, y):
    """Two steps in a row, in one graph if it is traced."""
    for _ in range(2):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
        variables = model.trainable_variables
        gradients = tape.gradient(loss, [v.value for v in variables])
        optimizer.apply(gradients, variables)


@pytest.mark.parametrize("how", ("graph", "xla"))
def test_two_steps_in_one_graph_are_two_steps(how):
    results = []
    for traced in (False, True):
        _, pruned, _ = pruned_mlp()
        optimizer = keras.optimizers.SGD(0.1)
        optimizer.build(pruned.trainable_variables)
        step = train_twice
        if traced:
            step = tf.function(step, jit_compile=how == "xla")
        step(pruned, optimizer, tf.constant(X), tf.constant(Y))
        results.append([v.numpy() for v in pruned.trainable_variables])
    for eager, graph in zip(*results, strict=True):
        np.testing.assert_allclose(eager, graph, rtol=1e-4, atol=1e-5)


def test_soft_and_hard_masks_in_one_graph():
    _, pruned, _ = pruned_mlp()

    @tf.function
    def both(x):
        return pruned(x, training=True), pruned(x, training=False)

    soft, hard = both(X)
    np.testing.assert_allclose(soft, pruned(X, training=True), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(hard, pruned(X), rtol=1e-5, atol=1e-6)
    assert np.abs(soft - hard).max() > 1e-3


def test_recurrent_layers_in_a_graph():
    """A loop body is a graph of its own, which must not see the tensors of another."""
    inputs = keras.Input((4, 3))
    x = layers.LSTM(4, return_sequences=True)(inputs)
    x = layers.TimeDistributed(layers.Dense(5))(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.SimpleRNN(4)(x)))
    pruned = prune_model(channel_models.randomize(model), 0.5, "channel")
    models.set_zeros(pruned)
    sample = channel_models.inputs_for(model)[0]
    traced = tf.function(lambda x: (pruned(x, training=True), pruned(x)))
    for found, wanted in zip(
        traced(sample), (pruned(sample, training=True), pruned(sample)), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_every_kernel_gets_a_gradient():
    pruned = pruned_network("mha")
    models.set_zeros(pruned)
    inputs = channel_models.inputs_for(pruned)[0]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(pruned(inputs, training=True)))
    variables = pruned.trainable_variables
    for variable, gradient in zip(
        variables, tape.gradient(loss, [v.value for v in variables]), strict=True
    ):
        assert gradient is not None and np.isfinite(gradient).all(), variable.path
        # A key's bias shifts all scores alike: its gradient is 0 but for rounding.
        assert np.any(gradient), variable.path


def test_groups_are_shared_by_name_and_by_object():
    pruned = pruned_network("residual")
    by_name = {group.label: group for group in parts.channel_groups(pruned)}
    assert by_name.keys() == {"stem", "in0", "in1"}
    for wrapper in parts.find_wrappers(pruned):
        for group in wrapper.groups:
            assert group is by_name[group.label]
    assert [m.path for m in by_name["stem"].makers] == [
        "out0/kernel",
        "out1/kernel",
        "stem/kernel",
    ]
    assert len({id(v) for v in pruned.variables}) == len(pruned.variables)
    state_of_groups = [v for v in pruned.variables if v.name == "target_zeros"]
    assert len(state_of_groups) == 3


@pytest.mark.parametrize("name", ("residual", "nested_twice", "mha", "sequential"))
def test_saved_and_loaded(name, tmp_path):
    pruned = pruned_network(name)
    models.set_zeros(pruned, 0.5)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert counts(loaded) == counts(pruned) and any(counts(loaded))
    inputs = channel_models.inputs_for(pruned)[0]
    for training in (False, True):  # and no warning of a missing schedule
        np.testing.assert_array_equal(
            loaded(inputs, training=training), pruned(inputs, training=training)
        )
    by_label = {}
    for wrapper in parts.find_wrappers(loaded):
        for group in wrapper.groups:
            assert by_label.setdefault(group.label, group) is group
    for old, new in zip(
        parts.channel_groups(pruned), parts.channel_groups(loaded), strict=True
    ):
        assert new.get_config() == old.get_config()
        assert [m.path for m in new.makers] == [m.path for m in old.makers]
    old_layers, new_layers = map(parts.find_wrappers, (pruned, loaded))
    for old, new in zip(old_layers, new_layers, strict=True):
        for role in ("makes", "reads", "normalizes", "zeroes", "reasons", "name"):
            assert getattr(new, role) == getattr(old, role)
    assert str(sparsity_report(loaded)) == str(sparsity_report(pruned))
    models.set_zeros(loaded)
    assert strip_pruning(loaded).count_params() < pruned.count_params()


def test_a_group_that_a_nested_model_meets_first_is_saved_once(tmp_path):
    inner = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(8), keras.layers.Dense(6)], name="inner"
    )
    inputs = keras.Input((5,))
    outputs = keras.layers.Dense(3, name="outer")(inner(inputs))
    pruned = prune_model(keras.Model(inputs, outputs), 0.5, mode="channel")
    models.set_zeros(pruned)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    np.testing.assert_array_equal(loaded(x), pruned(x))
    assert counts(loaded) == counts(pruned) and any(counts(loaded))


def test_weights_alone_are_saved_and_loaded(tmp_path):
    pruned = pruned_network("residual")
    models.set_zeros(pruned)
    pruned.save_weights(tmp_path / "model.weights.h5")
    other = pruned_network("residual", 1)
    other.load_weights(tmp_path / "model.weights.h5")
    assert counts(other) == counts(pruned)
    inputs = images()
    np.testing.assert_array_equal(other(inputs), pruned(inputs))


@pytest.mark.slow
def test_two_epochs_and_two_more_equal_four(tmp_path):
    x = images(16)
    y = np.random.default_rng(3).normal(size=(16, 3)).astype("float32")

    def compiled():
        pruned = pruned_network("residual")
        pruned.compile(keras.optimizers.Adam(1e-2), "mse")
        return pruned

    def fit(model, *callbacks, **arguments):
        schedule = PDPScheduleCallback(ramp_epochs=3, update="step")
        arguments |= {"batch_size": 8, "shuffle": False, "verbose": 0, "epochs": 4}
        model.fit(x, y, callbacks=[schedule, *callbacks], **arguments)
        return model

    class PowerCut(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                self.model.save(tmp_path / "half.keras")

    straight = fit(compiled(), PowerCut())
    resumed = fit(keras.models.load_model(tmp_path / "half.keras"), initial_epoch=2)
    assert sum(counts(resumed)) == 8  # of 16 channels
    for a, b in zip(straight.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), a.path)


@pytest.mark.slow
def test_training_compiled_by_xla_reaches_its_target():
    pruned = pruned_network("layer_normalizations")
    pruned.compile(keras.optimizers.Adam(1e-2), "mse", jit_compile=True)
    x = channel_models.inputs_for(pruned, 16)[0]
    y = np.random.default_rng(3).normal(size=(16, 3)).astype("float32")
    schedule = PDPScheduleCallback(warmup_epochs=1, ramp_epochs=2)
    history = pruned.fit(
        x, y, batch_size=8, epochs=8, verbose=0, callbacks=[schedule]
    ).history
    np.testing.assert_allclose(history["sparsity"][-1], 0.5)
    assert history["loss"][-1] < history["loss"][0]
    stripped = strip_pruning(pruned)
    expected = pruned.predict(x, verbose=0)
    np.testing.assert_allclose(
        stripped.predict(x, verbose=0), expected, atol=1e-4 * np.abs(expected).max()
    )


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        pruned = pruned_network("layer_normalizations")
        models.set_zeros(pruned)
        x = channel_models.inputs_for(pruned, 8)[0].astype("float32")
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(pruned(x, training=True), "float32") ** 2)
        variables = [v.value for v in pruned.trainable_variables]
        assert all(np.isfinite(g).all() for g in tape.gradient(loss, variables))
        stripped = strip_pruning(pruned)
        expected = np.asarray(pruned(x), "float32")
        assert pruned(x).dtype == stripped(x).dtype == "float16"
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(
        np.asarray(stripped(x), "float32"), expected, atol=2e-2 * np.abs(expected).max()
    )


def test_a_layer_is_wrapped_only_once():
    wrapper = parts.find_wrappers(pruned_network("residual"))[0]
    with pytest.raises(ValueError, match=r"wrapped by PDPWrapper only once"):
        PDPWrapper(wrapper)
    with pytest.raises(ValueError, match=r"wrapped by ChannelWrapper only once"):
        ChannelWrapper(PDPWrapper(layers.Dense(2)), [])


def hand_made(**roles):
    """A Dense of 4 outputs with the groups A of units 0, 1 and B of unit 0."""
    groups = [ChannelGroup("a", 2, 1), ChannelGroup("b", 1, 1)]
    axis = Axis("kernel", 1, (0, -1, 1, 0), (0, -1, 0, 1))
    wrapper = ChannelWrapper(
        layers.Dense(4), groups, **{role: [axis] for role in roles}
    )
    wrapper(np.zeros((1, 3), "float32"))
    kernel = np.float32([[1, 1, 1, 2]] * 3)
    wrapper.layer.kernel.assign(kernel)
    return wrapper, groups


def test_one_axis_may_carry_the_channels_of_several_groups():
    wrapper, (a, b) = hand_made(makes=True, reads=True)
    np.testing.assert_allclose(a.scores(), [0.4**0.5, 1.6**0.5], rtol=1e-6)
    np.testing.assert_allclose(b.scores(), [1])
    a.zeros.assign(1)
    ((variable, values),) = wrapper.masked_values(training=False)
    assert variable is wrapper.layer.kernel
    np.testing.assert_array_equal(values, [[0, 1, 1, 2]] * 3)
    b.zeros.assign(1)
    ((_, values),) = wrapper.masked_values(training=False)
    np.testing.assert_array_equal(values, [[0, 1, 0, 2]] * 3)
    assert wrapper.kept_outputs(variable) == (2, 4)
    assert wrapper.group_of(variable) in (a, b)
    assert wrapper.kept_outputs(wrapper.layer.bias) is None


def test_a_schedule_of_one_group_is_the_wrappers():
    wrapper, (a, _) = hand_made(makes=True)
    assert not wrapper.is_scheduled
    a.is_scheduled = True
    assert wrapper.is_scheduled
    wrapper.is_scheduled = False
    assert not a.is_scheduled
    assert len(wrapper.added_variables) == 6


def test_a_config_of_axes():
    wrapper, groups = hand_made(makes=True, zeroes=True)
    config = wrapper.get_config()
    assert config["groups"] == groups and config["reads"] == []
    assert config["makes"][0] == {
        "weight": "kernel",
        "axis": 1,
        "groups": (0, -1, 1, 0),
        "units": (0, -1, 0, 1),
    }
    text = keras.saving.serialize_keras_object(wrapper)
    again = keras.saving.deserialize_keras_object(text)
    assert again.makes == wrapper.makes and again.zeroes == wrapper.zeroes
    assert again.path_in_model == wrapper.path_in_model
