"""strip_pruning: plain models with exact zeros that need nothing of this package."""

import subprocess
import sys

import channel_models
import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from channel_models import ARCHITECTURES
from keras import layers
from model_kinds import MODELS, Unconfigurable, flat, inputs_for

from pdp_keras import (
    Channel,
    PDPScheduleCallback,
    PDPWrapper,
    prune_model,
    strip_pruning,
)
from pdp_keras.models.kernels import find_kernels
from pdp_keras.pruned import parts


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_stripped_model_is_plain_and_predicts_the_same(make):
    model = make()
    inputs = inputs_for(model)
    pruned = prune_model(model, 0.6, allocation="uniform")
    models.set_zeros(pruned)
    # BatchNormalization with statistics of its own, to see them copied.
    pruned(inputs, training=True)
    dense = flat(model(inputs))
    expected = flat(pruned(inputs))
    stripped = strip_pruning(pruned)

    assert type(stripped) is type(model)
    modules = {type(layer).__module__.split(".")[0] for layer in plain_layers(stripped)}
    assert "pdp_keras" not in modules
    for actual, wanted, unpruned in zip(
        flat(stripped(inputs)), expected, dense, strict=True
    ):
        np.testing.assert_array_equal(actual, wanted)
        assert not np.array_equal(actual, unpruned)
    for actual, wanted in zip(
        flat(stripped.predict(inputs, verbose=0)),
        flat(pruned.predict(inputs, verbose=0)),
        strict=True,
    ):
        np.testing.assert_array_equal(actual, wanted)
    assert [v.shape for v in stripped.variables] == [v.shape for v in model.variables]
    assert parts.pruned_weights(pruned)  # the pruned model is still one


def plain_layers(model):
    return list(model._flatten_layers())


def test_nothing_is_left_in_the_graph_of_a_stripped_model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    x = layers.DepthwiseConv2D(3)(x)
    model = keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))
    pruned = prune_model(model, 0.6)
    models.set_zeros(pruned)
    stripped = strip_pruning(pruned)

    def operations(model, training):
        traced = tf.function(lambda x: model(x, training=training))
        concrete = traced.get_concrete_function(tf.TensorSpec((2, 8, 8, 3)))
        return [operation.type for operation in concrete.graph.get_operations()]

    for training in (False, True):
        assert operations(stripped, training) == operations(model, training)


@pytest.mark.parametrize("sparsity", [0.0, 0.123, 0.5, 0.9, 0.999])
def test_sparsity_is_exactly_the_rounded_target(sparsity):
    pruned = prune_model(models.cnn(), sparsity, allocation="uniform")
    models.set_zeros(pruned)
    stripped = strip_pruning(pruned)
    for weight in parts.pruned_weights(pruned):
        layer = stripped
        for name in weight.layer.split("/"):
            layer = layer.get_layer(name)
        kernel = getattr(layer, weight.name).numpy()
        assert np.count_nonzero(kernel == 0) == round(sparsity * kernel.size)


def test_constant_weights_reach_the_target():
    model = models.mlp(kernel_initializer="ones")
    pruned = prune_model(model, 0.75, allocation="uniform", filters="first")
    models.set_zeros(pruned)
    kernel = strip_pruning(pruned).get_layer("first").kernel.numpy()
    np.testing.assert_array_equal(np.ravel(kernel), [0] * 90 + [1] * 30)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(models.mlp, marks=pytest.mark.slow),
        models.cnn,
        pytest.param(MODELS["recurrent layers"], marks=pytest.mark.slow),
    ],
    ids=["sequential", "functional", "recurrent"],
)
def test_stripped_model_loads_where_the_package_is_not_installed(make, tmp_path):
    model = make()
    pruned = prune_model(model, 0.5)
    models.set_zeros(pruned)
    stripped = strip_pruning(pruned)
    inputs = inputs_for(model)
    stripped.save(tmp_path / "model.keras")
    np.save(tmp_path / "inputs.npy", inputs)
    np.save(tmp_path / "outputs.npy", stripped(inputs))
    script = f"""
import sys
sys.modules["pdp_keras"] = None  # an import of it would fail
import keras, numpy as np
model = keras.models.load_model({str(tmp_path / "model.keras")!r})
outputs = np.asarray(model(np.load({str(tmp_path / "inputs.npy")!r})))
np.testing.assert_array_equal(outputs, np.load({str(tmp_path / "outputs.npy")!r}))
print("same outputs")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert "same outputs" in done.stdout, done.stderr


def test_wrappers_inside_other_layers_are_found():
    inputs = keras.Input((5, 4))
    cell = PDPWrapper(layers.GRUCell(3), 0.5)
    x = layers.RNN(cell, return_sequences=True)(inputs)
    x = layers.TimeDistributed(PDPWrapper(layers.Dense(2), 0.5))(x)
    model = keras.Model(inputs, x)
    models.set_zeros(model)
    stripped = strip_pruning(model)
    assert not any(isinstance(x, PDPWrapper) for x in stripped._flatten_layers())
    sample = models.random_inputs(model)
    np.testing.assert_array_equal(stripped(sample), model(sample))


def test_wrappers_that_a_user_put_into_a_subclassed_model():
    @keras.saving.register_keras_serializable("pdp_keras_tests")
    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = PDPWrapper(layers.Dense(4), 0.5)

        def call(self, inputs, training=None):
            return self.dense(inputs, training=training)

    model = Mine()
    x = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    model(x)
    models.set_zeros(model)
    stripped = strip_pruning(model)
    assert isinstance(stripped.dense, layers.Dense)
    assert isinstance(model.dense, PDPWrapper)
    np.testing.assert_array_equal(stripped(x), model(x))


def test_a_model_pruned_in_place_is_stripped_in_place():
    model = Unconfigurable(layers.Dense(4))
    x = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    model(x)
    prune_model(model, 0.5, inplace=True)
    models.set_zeros(model)
    expected = np.asarray(model(x))
    stripped = strip_pruning(model)
    assert stripped is model and type(model) is Unconfigurable
    assert isinstance(model.head, layers.Dense)
    np.testing.assert_array_equal(stripped(x), expected)


def test_a_stripped_model_can_be_trained_and_pruned_again():
    pruned = prune_model(models.mlp(), 0.5)
    models.set_zeros(pruned)
    stripped = strip_pruning(pruned)
    stripped.compile("sgd", "mse")
    x = models.random_inputs(stripped)
    stripped.fit(x, np.zeros((16, 3)), verbose=0)
    assert parts.pruned_weights(prune_model(stripped, 0.9))


def test_stripping_below_the_target_warns():
    pruned = prune_model(models.mlp(), 0.5)
    with pytest.warns(UserWarning, match=r"2 of 2 weights.*PDPScheduleCallback"):
        stripped = strip_pruning(pruned)
    assert np.count_nonzero(stripped.get_layer("first").kernel) == 120


def test_errors():
    with pytest.raises(ValueError, match=r"prune_model.*Received: model='mlp'"):
        strip_pruning(models.mlp())
    pruned = prune_model(models.mlp(), 0.5)
    models.set_zeros(pruned)
    parts.pruned_weights(pruned)[0].variable.assign(np.full((6, 20), np.nan))
    with pytest.raises(ValueError, match=r"finite.*Received: NaN.*'first/kernel'"):
        strip_pruning(pruned)


# Whole channels: they are removed, and the sums come in another order.


def pruned_by_channels(model, sparsity=0.5, mode="channel", **arguments):
    """Random in every weight, or dead channels would hide mistakes; and pruned."""
    channel_models.randomize(model)
    pruned = prune_model(model, sparsity, mode, **arguments)
    models.set_zeros(pruned)
    return pruned


def channel_inputs(model, batch=4):
    inputs = channel_models.inputs_for(model, batch)
    return inputs if len(inputs) > 1 else inputs[0]


def assert_close(actual, wanted):
    for x, y in zip(flat(actual), flat(wanted), strict=True):
        assert x.shape == y.shape and np.isfinite(y).all()
        assert np.abs(x - y).max() <= 1e-4 * np.abs(y).max()


CHOSEN = {
    "sequential",
    "residual",
    "inverted_residual",
    "inception",
    "layer_normalizations",
    "nested_twice",
    "nested_outputs",
    "shared_dense",
    "mha",
    "recurrent_states",
    "channel_layers",
    "unknown_length",
    "unknown_layer",
}


@pytest.mark.parametrize(
    "name",
    [
        name if name in CHOSEN else pytest.param(name, marks=pytest.mark.slow)
        for name in ARCHITECTURES
        if name != "mixing_layers"  # none of its channels can be removed
    ],
)
def test_a_model_without_its_dead_channels_predicts_the_same(name):
    model = ARCHITECTURES[name]()
    pruned = pruned_by_channels(model)
    inputs = channel_inputs(model)
    weights = [np.array(v) for v in model.variables]
    state_before = [np.array(v) for v in pruned.variables]
    dense, expected = flat(model(inputs)), flat(pruned(inputs))
    stripped = strip_pruning(pruned)

    assert type(stripped) is type(model) and stripped.name == model.name
    assert [x.name for x in stripped.layers] == [x.name for x in model.layers]
    modules = {type(x).__module__.split(".")[0] for x in plain_layers(stripped)}
    assert "pdp_keras" not in modules
    assert stripped.count_params() < model.count_params()
    assert_close(stripped(inputs), expected)
    assert any(
        np.abs(unpruned - wanted).max() > 1e-3 * np.abs(wanted).max()
        for unpruned, wanted in zip(dense, expected, strict=True)
    )
    # Neither the model nor its pruned copy has changed.
    for before, variable in zip(weights, model.variables, strict=True):
        np.testing.assert_array_equal(before, np.array(variable))
    for before, variable in zip(state_before, pruned.variables, strict=True):
        np.testing.assert_array_equal(before, np.array(variable))
    assert parts.channel_groups(pruned)


@pytest.mark.parametrize(
    "make",
    [models.mlp, models.cnn, ARCHITECTURES["inverted_residual"]],
    ids=["mlp", "cnn", "gates"],
)
def test_predict_of_a_smaller_model(make):
    model = make()
    pruned = pruned_by_channels(model, allocation="uniform")
    inputs = channel_inputs(model, 40)
    stripped = strip_pruning(pruned)
    assert_close(stripped.predict(inputs, verbose=0), pruned.predict(inputs, verbose=0))
    halves = {
        (g.label, int(g.zeros.numpy()), g.units) for g in parts.channel_groups(pruned)
    }
    assert all(2 * zeros == units for _, zeros, units in halves)


def test_the_shapes_of_a_smaller_model():
    pruned = pruned_by_channels(models.cnn(), allocation="uniform")
    shapes = {k.full_name: k.shape for k in find_kernels(strip_pruning(pruned))[0]}
    assert shapes == {
        "stem/kernel": (3, 3, 3, 4),
        "separable/depthwise_kernel": (3, 3, 4, 1),
        "separable/pointwise_kernel": (1, 1, 4, 4),
        "nested/hidden/kernel": (8 * 8 * 4, 6),
        "logits/kernel": (6, 10),
    }


@pytest.mark.parametrize("activation", ["sigmoid", "softplus", "elu", "gelu"])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_constants_of_dead_channels_leave_nothing_at_padded_borders(
    activation, padding
):
    """A dead channel is sigmoid(beta) inside a picture and 0 around it."""
    inputs = keras.Input((5, 5, 3))
    x = layers.Conv2D(8, 3, padding="same", name="a")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Activation(activation)(x)
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(4, 3, padding=padding, name="b", activation=activation)(x)
    x = layers.DepthwiseConv2D(3, padding=padding)(x)
    model = keras.Model(inputs, layers.Conv2D(2, 3, padding=padding, name="o")(x))
    pruned = pruned_by_channels(model, 0.5, allocation="uniform")
    sample = channel_inputs(model)
    assert_close(strip_pruning(pruned)(sample), pruned(sample))


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9, 0.99])
def test_at_least_one_channel_is_left(sparsity):
    model = models.mlp(6, 20, 3)
    pruned = pruned_by_channels(model, sparsity)
    stripped = strip_pruning(pruned)
    left = max(1, 20 - round(sparsity * 20))
    assert stripped.get_layer("first").units == left
    inputs = channel_inputs(model)
    assert_close(stripped(inputs), pruned(inputs))


def test_channels_are_rounded():
    pruned = pruned_by_channels(models.mlp(6, 20, 3), 0.5, Channel(round_to=8))
    assert strip_pruning(pruned).get_layer("first").units == 8


@pytest.mark.slow
def test_a_smaller_model_loads_where_the_package_is_not_installed(tmp_path):
    pruned = pruned_by_channels(ARCHITECTURES["vision_transformer"]())
    pruned.save(tmp_path / "pruned.keras")  # and from a pruned model that was loaded
    stripped = strip_pruning(keras.models.load_model(tmp_path / "pruned.keras"))
    inputs = channel_inputs(stripped)
    stripped.save(tmp_path / "model.keras")
    np.save(tmp_path / "inputs.npy", inputs)
    np.save(tmp_path / "outputs.npy", stripped(inputs))
    assert_close(stripped(inputs), pruned(inputs))
    script = f"""
import sys
sys.modules["pdp_keras"] = None  # an import of it would fail
import keras, numpy as np
model = keras.models.load_model({str(tmp_path / "model.keras")!r})
outputs = np.asarray(model(np.load({str(tmp_path / "inputs.npy")!r})))
np.testing.assert_array_equal(outputs, np.load({str(tmp_path / "outputs.npy")!r}))
print("same outputs")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert "same outputs" in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["residual", "mha"])
def test_a_smaller_model_is_fine_tuned_and_pruned_again(name):
    stripped = strip_pruning(pruned_by_channels(ARCHITECTURES[name]()))
    stripped.compile(keras.optimizers.Adam(1e-2), "mse")
    inputs = channel_inputs(stripped, 16)
    targets = np.random.default_rng(0).normal(size=(16, 3))
    losses = stripped.fit(inputs, targets, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    smaller = strip_pruning(pruned_by_channels(stripped, 0.3))
    assert smaller.count_params() < stripped.count_params()


def test_a_subclassed_model_keeps_its_dead_channels_as_zeros():
    model = models.Encoder()
    inputs = channel_models.inputs_for(ARCHITECTURES["mha"](), 3)[0][:, :4]
    model(inputs)
    pruned = pruned_by_channels(model, 0.5, allocation="uniform")
    expected = np.asarray(pruned(inputs))
    stripped = strip_pruning(pruned)
    assert type(stripped) is models.Encoder
    np.testing.assert_array_equal(stripped(inputs), expected)
    assert [v.shape for v in stripped.variables] == [v.shape for v in model.variables]
    project = stripped.stem.get_layer("project")
    dead = ~np.any(project.kernel.numpy(), axis=0)
    assert dead.sum() == 4 and not np.any(project.bias.numpy()[dead])
    assert np.all(stripped.heads["main"].kernel.numpy())


def test_stripping_channels_below_the_target_warns():
    model = channel_models.randomize(models.cnn())
    pruned = prune_model(model, 0.5, "channel")
    with pytest.warns(
        UserWarning, match=r"2 of 2 channel groups.*channel groups: 0\.00%"
    ):
        stripped = strip_pruning(pruned)
    assert [v.shape for v in stripped.variables] == [v.shape for v in model.variables]
    inputs = channel_inputs(model)
    np.testing.assert_array_equal(stripped(inputs), model(inputs))


def test_errors_of_channels():
    pruned = pruned_by_channels(models.mlp())
    kernel = parts.channel_groups(pruned)[0].makers[0].variable
    kernel.assign(np.full(kernel.shape, np.inf))
    with pytest.raises(
        ValueError, match=r"finite.*Received: NaN or inf.*'first/kernel'"
    ):
        strip_pruning(pruned)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="text")
@pytest.mark.parametrize("mode", [None, "channel"])
def test_vocabularies_that_were_learned_come_along(mode):
    import tensorflow as tf

    vectorize = layers.TextVectorization(max_tokens=10, output_sequence_length=4)
    vectorize.adapt(["a sparse model", "a fast model"])
    text = keras.Input((1,), dtype="string")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(10, 8)(vectorize(text)))
    model = keras.Model(text, layers.Dense(3)(layers.Dense(16, "relu")(x)))
    words = tf.constant([["a fast model"], ["sparse"]])
    arguments = {"mode": mode} if mode else {}
    pruned = prune_model(model, 0.5, **arguments)
    np.testing.assert_allclose(pruned(words), model(words), rtol=1e-5, atol=1e-7)
    schedule = PDPScheduleCallback(ramp_epochs=1)
    schedule.start(pruned, epochs=1)
    schedule.start_epoch(0)
    small = strip_pruning(pruned)
    expected = pruned(words, training=False)
    np.testing.assert_allclose(small(words), expected, rtol=1e-5, atol=1e-7)
