"""PDPWrapper: masked calls of any layer, exact gradients, and no trace left behind."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import layers
from models import TransformerBlock

from pdp_keras import (
    AbsoluteTemperature,
    PDPWrapper,
    RelativeTemperature,
    register_prunable_layer,
)
from pdp_keras.pruned.parts import find_wrappers

RNG = np.random.default_rng(0)


def prune_half(wrapper):
    wrapper.is_scheduled = True
    for weight in wrapper.pruned_weights:
        weight.zeros.assign(weight.target_zeros)
    return wrapper


def dense_wrapper(kernel, sparsity=0.5, **arguments):
    """A wrapped Dense without a bias, with this kernel, pruned to its target."""
    kernel = np.asarray(kernel, "float32")
    layer = layers.Dense(kernel.shape[1], use_bias=False)
    wrapper = PDPWrapper(layer, sparsity=sparsity, **arguments)
    wrapper(np.zeros((1, kernel.shape[0]), "float32"))
    layer.kernel.assign(kernel)
    return prune_half(wrapper)


def random_pixels(*shape):
    return RNG.normal(size=shape).astype("float32")


IDENTITY = np.eye(4, dtype="float32")

# name: (layer, one or more inputs)
LAYERS = {
    "dense": (lambda: layers.Dense(5), [random_pixels(3, 4)]),
    "einsum": (
        lambda: layers.EinsumDense("abc,cd->abd", (None, 6)),
        [random_pixels(2, 3, 4)],
    ),
    "conv1d": (lambda: layers.Conv1D(5, 3), [random_pixels(2, 8, 4)]),
    "conv2d": (lambda: layers.Conv2D(5, 3, strides=2), [random_pixels(2, 8, 8, 3)]),
    "conv3d": (lambda: layers.Conv3D(2, 2), [random_pixels(1, 4, 4, 4, 2)]),
    "transpose": (lambda: layers.Conv2DTranspose(4, 3), [random_pixels(2, 5, 5, 3)]),
    "depthwise": (lambda: layers.DepthwiseConv2D(3), [random_pixels(2, 6, 6, 4)]),
    "separable": (lambda: layers.SeparableConv2D(4, 3), [random_pixels(2, 6, 6, 3)]),
    "lstm": (lambda: layers.LSTM(4, dropout=0.2), [random_pixels(2, 5, 3)]),
    "gru": (lambda: layers.GRU(4, return_sequences=True), [random_pixels(2, 5, 3)]),
    "rnn": (lambda: layers.RNN(layers.SimpleRNNCell(4)), [random_pixels(2, 5, 3)]),
    "stacked": (
        lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)]),
        [random_pixels(2, 5, 3)],
    ),
    "conv_lstm": (lambda: layers.ConvLSTM2D(2, 3), [random_pixels(1, 3, 5, 5, 2)]),
    "bidirectional": (
        lambda: layers.Bidirectional(layers.LSTM(3)),
        [random_pixels(2, 5, 3)],
    ),
    "time_distributed": (
        lambda: layers.TimeDistributed(layers.Dense(3)),
        [random_pixels(2, 5, 3)],
    ),
    "attention": (
        lambda: layers.MultiHeadAttention(2, 3),
        [random_pixels(2, 4, 6), random_pixels(2, 5, 6)],
    ),
    "grouped_attention": (
        lambda: layers.GroupQueryAttention(4, 4, 2),
        [random_pixels(2, 4, 6), random_pixels(2, 5, 6)],
    ),
    "block": (lambda: TransformerBlock(), [random_pixels(2, 4, 8)]),
    "nested": (
        lambda: keras.Sequential([layers.Dense(4), layers.BatchNormalization()]),
        [random_pixels(3, 4)],
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_computes_what_the_layer_computes_while_nothing_is_pruned(name):
    make, inputs = LAYERS[name]
    layer = make()
    wrapper = PDPWrapper(layer, 0.5)
    masked = wrapper(*inputs)
    np.testing.assert_array_equal(masked, layer(*inputs))


@pytest.mark.parametrize("name", LAYERS)
def test_inference_equals_the_layer_with_the_smallest_weights_set_to_zero(name):
    make, inputs = LAYERS[name]
    layer = make()
    wrapper = PDPWrapper(layer, 0.5)
    dense = np.asarray(wrapper(*inputs))
    masked = np.asarray(prune_half(wrapper)(*inputs))
    for weight in wrapper.pruned_weights:
        values = weight.variable.numpy()
        order = np.argsort(np.abs(values), axis=None, kind="stable")
        np.put(values, order[: round(0.5 * values.size)], 0)
        weight.variable.assign(values)
    assert not np.array_equal(masked, dense)
    np.testing.assert_array_equal(masked, layer(*inputs))


@pytest.mark.parametrize("name", LAYERS)
def test_every_kernel_gets_a_gradient(name):
    make, inputs = LAYERS[name]
    wrapper = PDPWrapper(make(), 0.5)
    wrapper(*inputs)
    prune_half(wrapper)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(wrapper(*inputs, training=True)))
    variables = wrapper.trainable_variables
    gradients = tape.gradient(loss, [v.value for v in variables])
    missing = [v.path for v, g in zip(variables, gradients, strict=True) if g is None]
    assert not missing
    pruned = {id(weight.variable) for weight in wrapper.pruned_weights}
    for variable, gradient in zip(variables, gradients, strict=True):
        if id(variable) in pruned:
            assert np.isfinite(gradient).all() and np.any(gradient)


def test_soft_mask_in_training_and_hard_mask_at_inference():
    wrapper = dense_wrapper(
        [[0.1, 0.2], [0.4, -0.8]], temperature=AbsoluteTemperature(0.01)
    )
    threshold = 0.3  # midway between 0.2 and 0.4
    w = np.array([[0.1, 0.2], [0.4, -0.8]])
    soft = w / (1 + np.exp(-(w**2 - threshold**2) / 0.01))
    inputs = np.eye(2, dtype="float32")
    np.testing.assert_allclose(wrapper(inputs, training=True), soft, rtol=1e-5)
    np.testing.assert_array_equal(
        wrapper(inputs), np.array([[0, 0], [0.4, -0.8]], "float32")
    )
    np.testing.assert_array_equal(wrapper(inputs, training=False), wrapper(inputs))


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_gradient_is_the_closed_form(mode):
    kernel = RNG.normal(size=(6, 5)).astype("float32")
    tau = 0.3
    wrapper = dense_wrapper(kernel, 0.6, temperature=tau)

    def gradient(inputs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(wrapper(inputs, training=True) * upstream)
        return tape.gradient(loss, wrapper.layer.kernel.value)

    upstream = RNG.normal(size=(6, 5)).astype("float32")
    if mode != "eager":
        gradient = tf.function(gradient, jit_compile=mode == "xla")
    w = kernel.astype("float64")
    ordered = np.sort(np.abs(w), axis=None)
    threshold = (ordered[17] + ordered[18]) / 2
    m = 1 / (1 + np.exp(-(w**2 - threshold**2) / tau))
    slope = m + 2 * w**2 / tau * m * (1 - m)
    assert slope.max() > 1.2  # so that the bound matters
    expected = upstream * np.minimum(slope, 1)
    np.testing.assert_allclose(gradient(np.eye(6, dtype="float32")), expected, 2e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
@pytest.mark.parametrize("tau", [1e-4, 1e-9])
def test_half_precision_is_finite_and_right(policy, tau):
    # w**2 / tau is beyond float16's 65504 for every weight here.
    kernel = np.array([[3.0, -2.0], [1.0, 4.0]], "float32")
    layer = layers.Dense(2, use_bias=False, dtype=policy)
    wrapper = PDPWrapper(layer, 0.5, temperature=tau)
    wrapper(np.zeros((1, 2)))
    layer.kernel.assign(kernel)
    prune_half(wrapper)
    with tf.GradientTape() as tape:
        outputs = wrapper(np.eye(2), training=True)
        loss = tf.reduce_sum(outputs)
    assert outputs.dtype == layer.compute_dtype
    np.testing.assert_array_equal(
        np.asarray(outputs, "float32"), [[3.0, 0.0], [0.0, 4.0]]
    )
    gradient = tape.gradient(loss, layer.kernel.value)
    np.testing.assert_array_equal(np.asarray(gradient, "float32"), [[1, 0], [0, 1]])


def test_mask_is_computed_in_float32_under_mixed_precision():
    # The two weights differ by less than float16 can hold.
    kernel = np.array([[1.0, 1.0001]], "float32")
    layer = layers.Dense(2, use_bias=False, dtype="mixed_float16")
    wrapper = PDPWrapper(layer, 0.5)
    wrapper(np.zeros((1, 1)))
    layer.kernel.assign(kernel)
    prune_half(wrapper)
    np.testing.assert_array_equal(wrapper(np.ones((1, 1))), [[0, 1]])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_changing_the_sparsity_does_not_trace_again(jit_compile):
    wrapper = dense_wrapper(RNG.normal(size=(4, 4)))
    traces = []

    @tf.function(jit_compile=jit_compile)
    def run(inputs):
        traces.append(1)
        return wrapper(inputs, training=True), wrapper(inputs, training=False)

    outputs = []
    for zeros in (0, 3, 8, 16):
        wrapper.pruned_weights[0].zeros.assign(zeros)
        soft, hard = run(IDENTITY)
        outputs.append(np.asarray(soft))
        assert np.count_nonzero(np.asarray(hard) == 0) == zeros
    assert len(traces) == 1
    assert len({array.tobytes() for array in outputs}) == 4


BRACKETS = {
    "unknown": (0, 0, 0),
    "of-other-weights": (30, 31, 30.5),
    "reversed": (2, 1, 1.5),
    "nan": (np.nan, np.nan, np.nan),
    "denormal": (0, 1e-45, 0),
}


@pytest.mark.parametrize(
    "jit_compile", (None, False, True), ids=("eager", "graph", "xla")
)
@pytest.mark.parametrize("bracket", BRACKETS.values(), ids=BRACKETS)
def test_no_bracket_changes_a_result(bracket, jit_compile):
    """Wherever it comes from: a checkpoint of other weights, a broken file."""
    kernel = RNG.normal(size=(300, 300)).astype("float32")
    wrapper = dense_wrapper(kernel, sparsity=0.85)
    wrapper.pruned_weights[0].bracket.assign(np.float32(bracket))

    def call(training):
        return wrapper(np.eye(300, dtype="float32"), training=training)

    if jit_compile is not None:
        call = tf.function(call, jit_compile=jit_compile, autograph=False)
    hard, soft = call(False), call(True)
    ordered = np.sort(np.abs(kernel), axis=None)
    t = ordered[76499:76501].mean()
    np.testing.assert_array_equal(hard, np.where(np.abs(kernel) > t, kernel, 0))
    mask = 1 / (1 + np.exp(1 - (kernel / t) ** 2))
    np.testing.assert_allclose(soft, kernel * mask, rtol=1e-4, atol=1e-7)


def test_training_and_inference_keep_a_bracket():
    wrapper = dense_wrapper(RNG.normal(size=(300, 300)), sparsity=0.85)
    (weight,) = wrapper.pruned_weights
    call = tf.function(wrapper)
    inputs = np.zeros((1, 300), "float32")
    for training in (False, True):
        weight.bracket.assign([0, 0, 0])
        call(inputs, training=training)
        low, high, last = np.array(weight.bracket)
        ordered = np.sort(np.abs(wrapper.layer.kernel.numpy()), axis=None)
        assert last == ordered[76499]
        assert low < last < high < low * 1.01


@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
def test_inference_cuts_what_the_weights_are_now(in_graph):
    """One pass shows that they are cut where they were; and when they are not."""
    wrapper = dense_wrapper(RNG.normal(size=(300, 300)), sparsity=0.85)
    (weight,) = wrapper.pruned_weights
    kernel, inputs = wrapper.layer.kernel, np.eye(300, dtype="float32")
    call = tf.function(wrapper) if in_graph else wrapper
    moved = RNG.normal(size=(300, 300))
    tied = np.repeat(moved[:150], 2, axis=0)
    for values in (kernel.numpy(), kernel.numpy(), moved, -2 * moved, tied, tied):
        kernel.assign(values)
        found = call(inputs, training=False)
        assert int(np.sum(np.asarray(found) == 0)) == 76500
        pruned = reference.smallest(np.abs(kernel.numpy()), 76500)
        np.testing.assert_array_equal(found, np.where(pruned, 0, kernel.numpy()))
    weight.zeros.assign(0)
    found = call(inputs, training=False)
    np.testing.assert_allclose(found, kernel, atol=1e-6)


def test_inference_has_the_gradient_of_what_is_left():
    wrapper = dense_wrapper([[0, -4], [3, 0], [0, 1]], sparsity=1 / 3)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(wrapper(np.eye(3, dtype="float32"), training=False))
    gradient = tape.gradient(loss, wrapper.layer.kernel)
    # A kept 0 has its gradient, and a pruned one has none.
    np.testing.assert_array_equal(gradient, [[0, 1], [1, 0], [1, 1]])


def test_a_cell_keeps_no_bracket():
    """JAX lets nothing be updated within the loop over time."""
    cell = PDPWrapper(layers.LSTMCell(3), 0.5)
    layer = PDPWrapper(layers.LSTM(3), 0.5)
    for wrapper in (cell, layer):
        wrapper.layer.build((2, 4) if wrapper is cell else (2, 5, 4))
        wrapper.build()
    assert {weight.bracket for weight in cell.pruned_weights} == {None}
    assert all(weight.bracket is not None for weight in layer.pruned_weights)


def test_inner_state_is_updated_as_without_the_wrapper():
    layer = keras.Sequential([layers.Dense(4), layers.BatchNormalization()])
    plain = keras.models.clone_model(layer)
    wrapper = PDPWrapper(layer, 0.5)
    inputs = random_pixels(16, 3)
    wrapper(inputs)
    plain.build((None, 3))
    plain.set_weights(layer.get_weights())
    wrapper.is_scheduled = True
    wrapper(inputs, training=True)
    plain(inputs, training=True)
    norm, plain_norm = layer.layers[1], plain.layers[1]
    assert np.any(norm.moving_mean.numpy())
    np.testing.assert_allclose(norm.moving_mean, plain_norm.moving_mean, rtol=1e-6)


def test_dropout_inside_draws_anew_in_every_call():
    wrapper = PDPWrapper(TransformerBlock(rate=0.5), 0.5)
    inputs = random_pixels(2, 4, 8)
    wrapper(inputs)
    prune_half(wrapper)
    first, second = wrapper(inputs, training=True), wrapper(inputs, training=True)
    assert not np.array_equal(first, second)


def test_losses_of_the_layer_are_the_wrappers():
    def make():
        return layers.Dense(
            2, kernel_regularizer=keras.regularizers.L2(0.5), activity_regularizer="l1"
        )

    layer, plain = make(), make()
    wrapper = PDPWrapper(layer, 0.5)
    inputs = random_pixels(3, 4)
    wrapper(inputs)
    plain.build((3, 4))
    plain.set_weights(layer.get_weights())
    plain(inputs)
    losses = sorted(float(loss) for loss in wrapper.losses)
    assert losses == sorted(float(loss) for loss in plain.losses)
    assert len(losses) == 2 and min(losses) > 0


def test_masks_pass_through():
    inputs = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    embedding = layers.Embedding(5, 3, mask_zero=True)
    lstm = layers.LSTM(2, return_sequences=True)
    expected = lstm(embedding(inputs))
    outputs = PDPWrapper(lstm, 0.5)(PDPWrapper(embedding, 0.5)(inputs))
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(outputs._keras_mask, inputs != 0)


def test_keyword_arguments_and_several_outputs():
    attention = layers.MultiHeadAttention(2, 3)
    wrapper = PDPWrapper(attention, 0.5)
    query = random_pixels(1, 4, 6)
    causal = {"use_causal_mask": True, "return_attention_scores": True}
    outputs, scores = wrapper(query, query, **causal)
    np.testing.assert_array_equal(outputs, attention(query, query, **causal)[0])
    assert scores.shape == (1, 2, 4, 4)
    assert np.asarray(scores)[0, 0, 0, 1] == 0


def test_symbolic_call_has_the_layers_output_shape():
    query = keras.Input((4, 6))
    outputs, scores = PDPWrapper(layers.MultiHeadAttention(2, 3), 0.5)(
        query, query, return_attention_scores=True
    )
    assert outputs.shape == (None, 4, 6) and scores.shape == (None, 2, 4, 4)


def test_a_wrapped_cell_works_inside_an_rnn():
    cell = PDPWrapper(layers.LSTMCell(3), 0.5)
    rnn = layers.RNN(cell)
    inputs = random_pixels(2, 5, 4)
    dense = rnn(inputs)
    prune_half(cell)
    assert not np.allclose(rnn(inputs), dense)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.function(rnn)(inputs, training=True))
    assert np.any(tape.gradient(loss, cell.layer.kernel.value))


def test_reading_through_to_the_layer():
    wrapper = PDPWrapper(layers.LSTMCell(3), 0.5)
    assert wrapper.units == 3 and wrapper.state_size == [3, 3]
    with pytest.raises(AttributeError, match="no_such_thing"):
        wrapper.no_such_thing  # noqa: B018
    wrapper = dense_wrapper(IDENTITY)
    with pytest.raises(AttributeError, match=r"wrapper\.layer\.kernel"):
        wrapper.kernel  # noqa: B018


def test_config_round_trip_rebuilds_and_restores_the_state(tmp_path):
    inputs = keras.Input((4, 8))
    outputs = PDPWrapper(
        TransformerBlock(name="block"),
        [0.5, 0.25],
        temperature=RelativeTemperature(0.7),
        weights=[4, 0],
    )(inputs)
    model = keras.Model(inputs, outputs)
    wrapper = prune_half(find_wrappers(model)[0])
    model.save(tmp_path / "model.keras")
    loaded_model = keras.models.load_model(tmp_path / "model.keras")
    loaded = find_wrappers(loaded_model)[0]
    assert loaded.get_config() == wrapper.get_config()
    assert [int(w.zeros.numpy()) for w in loaded.pruned_weights] == [64, 16]
    assert [w.kernel.shape for w in loaded.pruned_weights] == [(8, 16), (8, 2, 4)]
    sample = random_pixels(2, 4, 8)
    np.testing.assert_array_equal(loaded_model(sample), model(sample))
    with_no_warning = loaded_model(sample, training=True)
    assert np.isfinite(with_no_warning).all()


@pytest.mark.parametrize(
    ("inputs", "units", "sparsity", "zeros"),
    [
        (1, 1, 0.4, 0),  # round(0.4 * 1)
        (1, 1, 0.9, 1),
        (1, 3, 0.5, 2),  # round(1.5)
        (0, 2, 0.5, 2),  # no weights at all: the outputs are 0
    ],
)
def test_tiny_layers(inputs, units, sparsity, zeros):
    wrapper = PDPWrapper(layers.Dense(units, use_bias=False), sparsity)
    inputs = np.ones((1, inputs), "float32")
    wrapper(inputs)
    prune_half(wrapper)
    assert np.count_nonzero(np.asarray(wrapper(inputs)) == 0) == zeros
    assert np.isfinite(np.asarray(wrapper(inputs, training=True))).all()


def test_constant_weights_reach_the_target_and_keep_a_gradient():
    wrapper = dense_wrapper(np.full((4, 4), 0.5), 0.75)
    hard = np.asarray(wrapper(IDENTITY))
    np.testing.assert_array_equal(
        hard, [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]]
    )
    soft = np.asarray(wrapper(IDENTITY, training=True))
    np.testing.assert_allclose(soft, np.full((4, 4), 0.25))


def test_nan_in_the_weights_shows_in_the_outputs():
    kernel = IDENTITY.copy()
    kernel[1, 2] = np.nan
    wrapper = dense_wrapper(kernel)
    assert np.isnan(np.asarray(wrapper(IDENTITY, training=True))[1, 2])
    assert np.isnan(np.asarray(wrapper(IDENTITY))[1, 2])


def test_training_without_a_schedule_warns_once():
    wrapper = PDPWrapper(layers.Dense(2), 0.5)
    with pytest.warns(UserWarning, match="PDPScheduleCallback"):
        wrapper(IDENTITY, training=True)
    wrapper(IDENTITY, training=True)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PDPWrapper("dense"), ValueError, "Received: layer='dense'"),
        (
            lambda: PDPWrapper(PDPWrapper(layers.Dense(2))),
            ValueError,
            "only once.*Received",
        ),
        (
            lambda: PDPWrapper(layers.Dense(2), 1.0),
            ValueError,
            r"in \[0, 1\).*Received: sparsity=1.0",
        ),
        (
            lambda: PDPWrapper(layers.Dense(2), mode="diagonal"),
            ValueError,
            "Received: mode='diagonal'",
        ),
        (
            lambda: PDPWrapper(layers.Dense(2), temperature=0.0),
            ValueError,
            "Received: temperature=0.0",
        ),
        (
            lambda: PDPWrapper(layers.Dense(2), allocation="erk"),
            ValueError,
            "Received: allocation='erk'",
        ),
        (
            lambda: PDPWrapper(layers.Dense(2), weights=[1])(IDENTITY),
            ValueError,
            r"1 kernels.*Received: weights=\[1\]",
        ),
        (
            lambda: PDPWrapper(layers.Dense(2), [0.5, 0.5])(IDENTITY),
            ValueError,
            r"1 pruned kernels.*Received: sparsity=\[0.5, 0.5\]",
        ),
        (
            lambda: PDPWrapper(layers.BatchNormalization())(IDENTITY),
            ValueError,
            "prunable kernels.*normalization",
        ),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_registered_layer_is_pruned():
    class Matrix(layers.Layer):
        def build(self, shape):
            self.matrix = self.add_weight(shape=(shape[-1], 3), name="matrix")

        def call(self, inputs):
            return keras.ops.matmul(inputs, self.matrix)

    with pytest.raises(ValueError, match="no row for class Matrix"):
        PDPWrapper(Matrix(), 0.5)(IDENTITY)
    from pdp_keras import KernelAxes
    from pdp_keras.models.layer_table import _ROWS

    register_prunable_layer(Matrix, {"matrix": KernelAxes((0,), (1,))})
    try:
        wrapper = PDPWrapper(Matrix(), 0.5)
        wrapper(IDENTITY)
        assert np.count_nonzero(prune_half(wrapper)(IDENTITY)) == 6
    finally:
        del _ROWS[Matrix]


def test_what_is_computed_again_has_its_mask_and_its_gradient():
    """Keras ran the layer a second time with its own weights, and no gradient."""
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 6)).astype("float32"))

    def outputs_and_gradients(wrapper):
        with tf.GradientTape() as tape:
            outputs = wrapper(x, training=True)
            loss = tf.reduce_sum(tf.square(outputs))
        return outputs, *tape.gradient(loss, wrapper.trainable_variables)

    def wrapped(layer):
        wrapper = PDPWrapper(layer, 0.5)
        wrapper.build((None, 6))
        wrapper.is_scheduled = True
        wrapper.pruned_weights[0].zeros.assign(10)
        return wrapper

    plain = wrapped(layers.Dense(6, activation="tanh"))
    with keras.RematScope(mode="full"):
        layer = layers.Dense(6, activation="tanh")
    again = wrapped(layer)
    again.set_weights(plain.get_weights())
    expected, found = outputs_and_gradients(plain), outputs_and_gradients(again)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert again.layer._remat_mode.mode == "full"
