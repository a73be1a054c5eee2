"""A call of a pruned model goes through its wrappers, or the model is refused."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import pdp_keras

X = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")


class TwoLayers(keras.Model):
    """Keeps its first layer in ways that differ."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(6, name="first"), layers.Dense(6)
        self.keep()

    def keep(self):
        self.held = self.first

    def call(self, x):
        return self.second(self.held(x))


class BoundMethod(TwoLayers):
    def keep(self):
        self.held = self.first.__call__


class Compiled(TwoLayers):
    def keep(self):
        self.held = tf.function(self.first)


class Closure(TwoLayers):
    def keep(self):
        first = self.first
        self.held = lambda x: first(x)


class Partial(TwoLayers):
    def keep(self):
        self.held = functools.partial(self.first)


class ObjectOfOnesOwn(TwoLayers):
    class Held:
        def __init__(self, layer):
            self.layer = layer

        def __call__(self, x):
            return self.layer(x)

    def keep(self):
        self.held = self.Held(self.first)


class Unused(TwoLayers):
    """Has a layer that no call reaches in any way."""

    def keep(self):
        self.held = lambda x: x

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)


class InATable(TwoLayers):
    def keep(self):
        self.table = {"a": [self.first]}

    def call(self, x):
        return self.second(self.table["a"][0](x))


class OfTokens(keras.Model):
    """Takes whole numbers, which a recorded shape does not tell."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding, self.dense = layers.Embedding(9, 6), layers.Dense(6)

    def build(self, shape):
        self.embedding.build(shape)
        self.dense.build((*shape, 6))

    def call(self, tokens):
        if tokens.dtype != "int32":
            raise TypeError("tokens must be int32")
        return self.dense(self.embedding(tokens))


class OfTwo(TwoLayers):
    def keep(self):
        self.held = functools.partial(self.first)

    def build(self, x_shape, context_shape):
        self.first.build(x_shape)
        self.second.build(x_shape)

    def call(self, x, context, training=None):
        return self.second(self.held(x)) + context


def called(cls, *inputs):
    model = cls()
    model(*inputs)
    return model


PAST = [BoundMethod, Compiled, Closure, Partial, ObjectOfOnesOwn]


@pytest.mark.parametrize("cls", PAST, ids=[cls.__name__ for cls in PAST])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(("mode", "sparsity"), [("unstructured", 0.5), ("2:4", None)])
def test_a_call_that_goes_past_a_wrapper_is_refused(cls, inplace, mode, sparsity):
    model = called(cls, X)
    before = model(X)
    with pytest.raises(ValueError, match="past the wrappers of ") as error:
        pdp_keras.prune_model(model, sparsity, mode, inplace=inplace)
    assert f"of class Pruned{cls.__name__}" in str(error.value)
    assert "'first'" in str(error.value) or "'dense'" in str(error.value)
    assert type(model) is cls
    assert type(model.first) is layers.Dense
    np.testing.assert_array_equal(model(X), before)


def test_of_several_arguments_too():
    model = called(OfTwo, X, X)
    with pytest.raises(ValueError, match="past the wrappers of"):
        pdp_keras.prune_model(model, 0.5)


@pytest.mark.parametrize("cls", [TwoLayers, Unused, InATable])
def test_a_call_that_reaches_them_is_not(cls):
    pruned = pdp_keras.prune_model(called(cls, X), 0.5)
    assert isinstance(pruned.second, pdp_keras.PDPWrapper)


def test_tokens():
    tokens = np.ones((2, 3), "int32")
    pruned = pdp_keras.prune_model(called(OfTokens, tokens), 0.5)
    assert isinstance(pruned.dense, pdp_keras.PDPWrapper)
