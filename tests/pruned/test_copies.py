"""Copies of pruned models that Keras and Python make."""

import copy
import pickle

import keras
import models
import numpy as np
import pytest

import pdp_keras


def cloned(model):
    new = keras.models.clone_model(model)
    new.set_weights(model.get_weights())
    return new


def from_config(model):
    new = type(model).from_config(model.get_config())
    new.set_weights(model.get_weights())
    return new


def pickled(model):
    return pickle.loads(pickle.dumps(model))


MODELS = {"functional": models.cnn, "sequential": models.mlp}
COPIES = [cloned, from_config, copy.deepcopy, pickled]


@pytest.mark.parametrize("mode", ["unstructured", "2:4", "channel"])
@pytest.mark.parametrize("make_copy", COPIES)
@pytest.mark.parametrize("kind", MODELS)
def test_a_copy_is_a_pruned_model_of_its_own(kind, make_copy, mode):
    pruned = pdp_keras.prune_model(MODELS[kind](), mode=mode, allocation="uniform")
    models.set_zeros(pruned)
    x = models.random_inputs(pruned)
    expected = keras.ops.convert_to_numpy(pruned(x))
    # Twice, and a copy of a copy: each has its own state.
    first, second = make_copy(pruned), make_copy(pruned)
    for new in (first, second, make_copy(first)):
        np.testing.assert_allclose(new(x), expected, rtol=1e-5, atol=1e-6)
    models.set_zeros(first, 0.0)
    assert np.abs(keras.ops.convert_to_numpy(first(x)) - expected).max() > 1e-4
    for other in (pruned, second):
        np.testing.assert_allclose(other(x), expected, rtol=1e-5, atol=1e-6)
        stripped = pdp_keras.strip_pruning(other)
        np.testing.assert_allclose(stripped(x), expected, rtol=1e-4, atol=1e-5)


def test_a_subclassed_model_can_be_pickled():
    model = models.Encoder()
    x = np.random.default_rng(0).normal(size=(4, 5, 8)).astype("float32")
    model(x)
    pruned = pdp_keras.prune_model(model, 0.5)
    models.set_zeros(pruned)
    new = pickled(pruned)
    assert isinstance(new, models.Encoder)
    np.testing.assert_allclose(new(x), pruned(x), rtol=1e-5, atol=1e-6)
