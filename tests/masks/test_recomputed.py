"""Layers whose masked kernel is made again for the backward pass."""

from __future__ import annotations

from typing import Any

import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from pdp_keras import PDPScheduleCallback, PDPWrapper, prune_model
from pdp_keras.masks import recomputed

layers = keras.layers

LAYERS = {
    "dense": (lambda: layers.Dense(6), (8,)),
    "dense-relu": (lambda: layers.Dense(6, activation="relu"), (8,)),
    "dense-no-bias": (lambda: layers.Dense(6, activation="tanh", use_bias=False), (8,)),
    "dense-of-a-sequence": (lambda: layers.Dense(6), (3, 8)),
    "einsum": (
        lambda: layers.EinsumDense("abc,cd->abd", (3, 6), bias_axes="d"),
        (3, 8),
    ),
    "conv2d": (lambda: layers.Conv2D(6, 3, strides=2, activation="relu"), (7, 7, 4)),
    "conv3d": (lambda: layers.Conv3D(6, 2), (3, 3, 3, 4)),
    "conv2d-transpose": (lambda: layers.Conv2DTranspose(6, 3, strides=2), (4, 4, 4)),
}
MODES: dict[str, dict[str, Any]] = {"unstructured": {"sparsity": 0.6}, "2:4": {}}

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's graphs alone do it"
)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small layers too."""
    monkeypatch.setattr(recomputed, "LEAST_WEIGHTS", 1)


def wrapped(layer: Any, shape: tuple[int, ...], mode: str = "unstructured") -> Any:
    """A pruned layer at its full sparsity, with random weights and bias."""
    wrapper = PDPWrapper(layer, mode=mode, **MODES[mode])
    model = keras.Sequential([keras.Input(shape), wrapper])
    random = np.random.default_rng(0)
    for variable in wrapper.trainable_variables:
        variable.assign(random.standard_normal(tuple(variable.shape)))
    models.set_zeros(model)
    return wrapper


def inputs_of(shape: tuple[int, ...], dtype: str = "float32") -> tf.Tensor:
    values = np.random.default_rng(1).standard_normal((5, *shape))
    return tf.constant(values.astype(dtype))


def traced(wrapper: Any, inputs: tf.Tensor, **options: Any) -> Any:
    """A graph of outputs, and gradients of the inputs and all trainable variables."""

    def compute(inputs: tf.Tensor) -> Any:
        variables = [variable.value for variable in wrapper.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = wrapper(inputs, training=True)
            loss = tf.reduce_sum(tf.square(outputs))
        return outputs, tape.gradient(loss, [inputs, *variables])

    return tf.function(compute, **options).get_concrete_function(inputs)


def keeps_its_kernel(graph: Any) -> bool:
    """Whether a product of the backward pass takes a kernel of the forward pass."""
    first, *others = (
        operation.inputs[1]
        for operation in graph.graph.get_operations()
        if operation.type.startswith(("MatMul", "Conv2D"))
    )
    return any(first is kernel for kernel in others)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_are_those_of_a_kernel_that_is_kept(
    name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, shape = LAYERS[name]
    inputs = inputs_of(shape)
    kept = traced(wrapped(make(), shape, mode), inputs)(inputs)

    monkeypatch.setattr(recomputed, "LEAST_WEIGHTS", 1)
    graph = traced(wrapped(make(), shape, mode), inputs)
    made_again = graph(inputs)

    assert any(np.any(gradient) for gradient in made_again[1])
    for expected, got in zip(
        tf.nest.flatten(kept), tf.nest.flatten(made_again), strict=True
    ):
        # Equal but for rounding: TensorFlow fuses the two graphs differently.
        scale = float(np.max(np.abs(expected)))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6 * scale)


def pruned_by_channels() -> Any:
    """Convolutions that read and make pruned channels, with a sum and a Dense head."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    y = layers.Conv2D(6, 3, padding="same")(x)
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Flatten()(layers.Conv2D(4, 3, strides=2, use_bias=False)(x))
    model = keras.Model(inputs, layers.Dense(5)(x))
    pruned = prune_model(model, sparsity=0.5, mode="channel")
    models.set_zeros(pruned)
    return pruned


def test_gradients_of_channels_are_those_of_kernels_that_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = inputs_of((8, 8, 3))
    kept = traced(pruned_by_channels(), inputs)(inputs)
    calls = []
    call = recomputed.call
    monkeypatch.setattr(recomputed, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(recomputed, "call", lambda *a: (calls.append(a), call(*a))[1])
    made_again = traced(pruned_by_channels(), inputs)(inputs)

    # All but the first layer, which reads no channels that are pruned.
    kernels = [tuple(kernel.shape) for _, _, kernel, *_ in calls]
    assert kernels == [(3, 3, 6, 6), (3, 3, 6, 4), (36, 5)]
    for expected, got in zip(
        tf.nest.flatten(kept), tf.nest.flatten(made_again), strict=True
    ):
        scale = float(np.max(np.abs(expected)))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("name", ["dense-relu", "conv2d"])
def test_backward_pass_does_not_take_the_kernel_of_the_forward_pass(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, shape = LAYERS[name]
    inputs = inputs_of(shape)
    assert keeps_its_kernel(traced(wrapped(make(), shape), inputs))
    monkeypatch.setattr(recomputed, "LEAST_WEIGHTS", 1)
    assert not keeps_its_kernel(traced(wrapped(make(), shape), inputs))


@pytest.mark.parametrize("name", LAYERS)
def test_no_product_is_computed_twice(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, shape = LAYERS[name]

    def products() -> list[str]:
        model = wrapped(make(), shape)

        @tf.function(input_signature=[tf.TensorSpec((None, *shape))])
        def step(inputs: tf.Tensor) -> Any:
            variables = [variable.value for variable in model.trainable_variables]
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(model(inputs, training=True)))
            return tape.gradient(loss, variables)

        context.enable_run_metadata()
        try:
            step(inputs_of(shape))
            metadata = context.export_run_metadata()
        finally:
            context.disable_run_metadata()
        kinds = [
            node.op
            for graph in metadata.function_graphs
            for node in graph.post_optimization_graph.node
        ]
        found = ("MatMul", "Conv2D", "Conv3D", "Einsum", "BatchMatMul", "_Fused")
        return sorted(kind for kind in kinds if kind.startswith(found))

    kept = products()
    monkeypatch.setattr(recomputed, "LEAST_WEIGHTS", 1)
    made_again = products()
    assert kept
    assert len(made_again) == len(kept)


class OwnDense(layers.Dense):
    """A layer whose call nobody knows."""

    def call(self, inputs: Any, training: Any = None) -> Any:
        return super().call(2.0 * inputs, training=training)


KEPT = {
    "own-call": (lambda: OwnDense(6), (3, 8), {}),
    "mixed": (lambda: layers.Dense(6, dtype="mixed_bfloat16"), (3, 8), {}),
    "activity": (lambda: layers.Dense(6, activity_regularizer="l2"), (3, 8), {}),
    # The gradient of its reshape asks for the shape of what it computed.
    "conv1d": (lambda: layers.Conv1D(6, 1), (3, 8), {}),
    # Keras compiles these by themselves.
    "groups": (lambda: layers.Conv2D(6, 1, groups=2), (3, 3, 8), {}),
    "xla": (lambda: layers.Dense(6), (3, 8), {"jit_compile": True}),
}


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", KEPT)
def test_kernel_is_kept_where_the_call_is_not_known_to_be_one_product(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any) -> Any:
        raise AssertionError("made again")

    monkeypatch.setattr(recomputed, "call", forbidden)
    make, shape, options = KEPT[name]
    inputs = inputs_of(shape)
    outputs, _ = traced(wrapped(make(), shape), inputs, **options)(inputs)
    assert outputs.shape == (5, *shape[:-1], 6)


@pytest.mark.usefixtures("always")
def test_integers_are_cast_as_the_layer_would() -> None:
    wrapper = wrapped(layers.Dense(6), (8,))
    graph = tf.function(lambda x: wrapper(x, training=True))
    whole = inputs_of((8,), "int32")
    np.testing.assert_array_equal(graph(whole), graph(tf.cast(whole, "float32")))


@pytest.mark.usefixtures("always")
def test_what_is_no_tensor_yet_is_left_to_the_layer() -> None:
    wrapper = wrapped(layers.Dense(6), (3,))
    array = np.array([[1.0, 2.0, 3.0]], "float32")
    graph = tf.function(lambda: wrapper(array, training=True))
    tensor = tf.function(lambda x: wrapper(x, training=True))
    np.testing.assert_allclose(graph(), tensor(tf.constant(array)))


@pytest.mark.usefixtures("always")
def test_mask_of_a_sequence_goes_on() -> None:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Embedding(9, 8, mask_zero=True),
            PDPWrapper(layers.Dense(6), sparsity=0.5),
            layers.GlobalAveragePooling1D(),
        ]
    )
    model.layers[1].is_scheduled = True
    graph = tf.function(lambda x: model(x, training=True))
    short, long = tf.constant([[1, 2, 0, 0]]), tf.constant([[1, 2, 1, 2]])
    np.testing.assert_allclose(graph(short), graph(long), rtol=1e-6)


def test_fit_trains_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((64, 8)), random.standard_normal((64, 6))

    def fitted() -> Any:
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((8,)), PDPWrapper(layers.Dense(6), sparsity=0.5)]
        )
        model.compile("sgd", "mse")
        schedule = PDPScheduleCallback(ramp_epochs=2)
        model.fit(x, y, epochs=5, verbose=0, callbacks=[schedule])
        return model.layers[0].pruned_weights[0]

    kept = fitted()
    monkeypatch.setattr(recomputed, "LEAST_WEIGHTS", 1)
    made_again = fitted()
    expected, got = np.asarray(kept.variable.value), np.asarray(made_again.variable)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    assert np.all(np.asarray(made_again.bracket.value) > 0)
    assert np.count_nonzero(np.asarray(made_again.hard_masked())) == 24
