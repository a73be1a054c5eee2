"""Copies of layers whose functions and objects no name leads to."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import pdp_keras
from pdp_keras.models import make_anew


def mine(x):
    return ops.tanh(x) * 2


class Ones(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return ops.ones(shape, dtype) * 0.1

    def get_config(self):
        return {}


class Nothing(keras.regularizers.Regularizer):
    def __call__(self, weights):
        return 0.0 * ops.sum(weights)

    def get_config(self):
        return {}


class MyDense(layers.Dense):
    pass


def bidirectional():
    with keras.saving.custom_object_scope({"mine": mine}):
        return layers.Bidirectional(layers.LSTM(3, activation=mine))


def sequences(layer):
    return [layers.Reshape((2, 4)), layer, layers.Flatten()]


CASES = {
    "function": lambda: [layers.Dense(5, activation=mine)],
    "lambda": lambda: [layers.Dense(5, activation=lambda x: x * 2)],
    "keras.ops": lambda: [layers.Dense(5, activation=ops.sin)],
    "Lambda of a function": lambda: [layers.Lambda(mine)],
    "Lambda with a global": lambda: [layers.Lambda(lambda x: ops.sin(x) + len(CASES))],
    "objects": lambda: [
        layers.Dense(4, kernel_regularizer=Nothing(), kernel_initializer=Ones())
    ],
    "nested": lambda: [keras.Sequential([MyDense(3, activation=mine)])],
    "TimeDistributed": lambda: sequences(layers.TimeDistributed(MyDense(3))),
    "TimeDistributed model": lambda: sequences(
        layers.TimeDistributed(keras.Sequential([layers.Dense(3, activation=mine)]))
    ),
    "Bidirectional": lambda: sequences(bidirectional()),
    "LSTM": lambda: sequences(
        layers.LSTM(3, activation=mine, recurrent_initializer=Ones())
    ),
}


@pytest.mark.parametrize("mode", ["unstructured", "channel"])
@pytest.mark.parametrize("case", CASES)
def test_what_has_no_name_is_copied(case, mode):
    model = keras.Sequential(
        [keras.Input((8,)), *CASES[case](), layers.Dense(6), layers.Dense(2)]
    )
    x = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
    pruned = pdp_keras.prune_model(model, 0.5, mode=mode)
    np.testing.assert_allclose(model(x), pruned(x), rtol=1e-5, atol=1e-6)
    pruned.compile("sgd", "mse")
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=0, ramp_epochs=1)
    pruned.fit(x, np.zeros((4, 2)), epochs=1, verbose=0, callbacks=[schedule])
    stripped = pdp_keras.strip_pruning(pruned)
    np.testing.assert_allclose(pruned(x), stripped(x), rtol=1e-5, atol=1e-6)


def test_two_functions_of_one_name_stay_apart():
    def named(factor):
        def activation(x):
            return x * factor

        return activation

    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, activation=named(2.0)),
            layers.Dense(2, activation=named(-5.0)),
        ]
    )
    x = np.ones((1, 3), "float32")
    pruned = pdp_keras.prune_model(model, 0.5)
    np.testing.assert_allclose(model(x), pruned(x), rtol=1e-6)


def test_the_copy_has_the_very_function():
    layer = layers.LSTM(3, activation=mine)
    assert make_anew(layer).cell.activation is mine
    assert layer.cell.activation is mine


def test_a_config_that_holds_objects_is_given_the_objects():
    class Holding(layers.Layer):
        def __init__(self, function, **kwargs):
            super().__init__(**kwargs)
            self.function = function

        def get_config(self):
            return {**super().get_config(), "function": self.function}

    assert make_anew(Holding(mine)).function is mine


def test_what_fails_is_said_without_a_page_of_config():
    class Refusing(layers.Dense):
        @classmethod
        def from_config(cls, config):
            raise ValueError(f"no: {config}" + "x" * 5000)

    model = keras.Sequential([keras.Input((3,)), Refusing(4)])
    with pytest.raises(ValueError, match=r"copy of itself.*Refusing") as error:
        pdp_keras.prune_model(model, 0.5)
    assert len(str(error.value)) < 1000
