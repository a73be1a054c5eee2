"""strip_pruning: plain models with exact zeros that need nothing of this package."""

import subprocess
import sys

import keras
import models
import numpy as np
import pytest
from keras import layers
from test_prune import MODELS, Unconfigurable, flat, inputs_for

from pdp_keras import PDPWrapper, prune_model, state, strip_pruning


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
    assert state.pruned_weights(pruned)  # the pruned model is still one


def plain_layers(model):
    return list(model._flatten_layers())


@pytest.mark.parametrize("sparsity", [0.0, 0.123, 0.5, 0.9, 0.999])
def test_sparsity_is_exactly_the_rounded_target(sparsity):
    pruned = prune_model(models.cnn(), sparsity, allocation="uniform")
    models.set_zeros(pruned)
    stripped = strip_pruning(pruned)
    for weight in state.pruned_weights(pruned):
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
    [models.mlp, models.cnn, MODELS["recurrent layers"]],
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
    assert state.pruned_weights(prune_model(stripped, 0.9))


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
    state.pruned_weights(pruned)[0].variable.assign(np.full((6, 20), np.nan))
    with pytest.raises(ValueError, match=r"finite.*Received: NaN.*'first/kernel'"):
        strip_pruning(pruned)
