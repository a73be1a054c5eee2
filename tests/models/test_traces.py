"""Models whose methods are compiled, and stateful layers, inside of wrappers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import pdp_keras
from pdp_keras.models import compiled_functions, untraced


class CompiledCall(keras.Model):
    def __init__(self):
        super().__init__()
        self.a = layers.Dense(16, activation="relu")
        self.b = layers.Dense(3)

    @tf.function
    def call(self, x):
        return self.b(self.a(x))


class CompiledInConstructor(keras.Model):
    def __init__(self):
        super().__init__()
        self.a = layers.Dense(16)
        self.b = layers.Dense(3)
        self.fast = tf.function(self.slow)

    def slow(self, x):
        return self.b(self.a(x))

    def call(self, x):
        return self.fast(x)


class CompiledDense(layers.Dense):
    @tf.function
    def call(self, x):
        return ops.matmul(x, self.kernel) * 3.0


class HoldsCompiled(keras.Model):
    def __init__(self):
        super().__init__()
        self.a = CompiledDense(16, use_bias=False)
        self.b = layers.Dense(3)

    def call(self, x):
        return self.b(self.a(x))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    "cls",
    [
        CompiledCall,
        pytest.param(CompiledInConstructor, marks=pytest.mark.slow),
        pytest.param(HoldsCompiled, marks=pytest.mark.slow),
    ],
)
def test_a_compiled_call_reaches_the_wrappers(cls, inplace):
    x = np.random.default_rng(0).normal(size=(6, 8)).astype("float32") * 3
    model = cls()
    model(x)
    pruned = pdp_keras.prune_model(model, 0.8, inplace=inplace)
    pruned(x)  # traced while nothing is pruned
    pruned.compile("sgd", "mse")
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=1, ramp_epochs=1)
    pruned.fit(x, np.zeros((6, 3)), epochs=2, verbose=0, callbacks=[schedule])
    expected = ops.convert_to_numpy(pruned.a(x))
    expected = ops.convert_to_numpy(pruned.b(expected))
    np.testing.assert_allclose(pruned(x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        pruned.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6
    )
    stripped = pdp_keras.strip_pruning(pruned)
    assert pdp_keras.sparsity_report(stripped).sparsity == pytest.approx(0.8, abs=0.01)
    np.testing.assert_allclose(stripped(x), expected, rtol=1e-5, atol=1e-6)


def test_compiled_functions_are_found():
    layer = CompiledDense(3)
    assert compiled_functions(layer) == [vars(CompiledDense)["call"]]
    assert compiled_functions(layers.Dense(3)) == []


def test_untraced_puts_the_setting_back():
    with pytest.raises(ZeroDivisionError), untraced():
        assert tf.config.functions_run_eagerly()
        raise ZeroDivisionError
    assert not tf.config.functions_run_eagerly()


STATEFUL = {
    "LSTM": lambda: layers.LSTM(4, stateful=True),
    "GRU": lambda: layers.GRU(4, stateful=True),
    "SimpleRNN": lambda: layers.SimpleRNN(4, stateful=True),
    "RNN": lambda: layers.RNN(layers.LSTMCell(4), stateful=True),
    "Bidirectional": lambda: layers.Bidirectional(layers.GRU(4, stateful=True)),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_recurrent_states_go_on_from_call_to_call(name):
    model = keras.Sequential(
        [keras.Input((5, 3), batch_size=2), STATEFUL[name](), layers.Dense(2)]
    )
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    pruned = pdp_keras.prune_model(model, 0.5)
    first = ops.convert_to_numpy(pruned(x))
    np.testing.assert_allclose(model(x), first, rtol=1e-5, atol=1e-6)
    with pytest.warns(UserWarning, match="before they have reached"):
        stripped = pdp_keras.strip_pruning(pruned)
    for _ in range(2):
        expected = ops.convert_to_numpy(model(x))
        assert np.abs(expected - first).max() > 1e-4
        np.testing.assert_allclose(pruned(x), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(stripped(x), expected, rtol=1e-5, atol=1e-6)
    pruned.layers[0].reset_state()
    np.testing.assert_allclose(pruned(x), first, rtol=1e-5, atol=1e-6)
