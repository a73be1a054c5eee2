"""The rules of XNNPACK's sparse path, one broken at a time, on converted models."""

import keras
import pytest
from image_models import gated, inverted, mobile, randomized, zero_pointwise
from keras import Input, Model, layers, ops

from pdp_keras.models import inputs as tflite_inputs
from pdp_keras.targets.xnnpack_rules import check_sparse
from pdp_keras.tflite import conversion
from pdp_keras.tflite.graph import read_graph
from pdp_keras.tflite.padding import with_explicit_padding


def converted(model, sparse=False):
    inputs = tflite_inputs.model_inputs(model)
    trace = conversion.traced(model, inputs, 1)
    kind = conversion.QUANTIZATIONS[None]
    data = conversion.tflite_bytes(trace, kind, [], sparse=sparse)
    return with_explicit_padding(data)


def checked(model, sparse=False):
    graph = read_graph(converted(model, sparse))
    return graph, check_sparse(graph)


def network(*middle, size=17, stem=None, pool=None, channels=3):
    """A stem, a pair of 1x1 convolutions with something between, and a pooling.

    The size is odd, so that "same" padding of 3x3 windows is the same on all sides.
    """
    inputs = Input((size, size, channels))
    x = stem(inputs) if stem else explicit(inputs)
    x = layers.Conv2D(8, 1, activation="relu", name="first")(x)
    for layer in middle:
        x = layer(x)
    x = layers.Conv2D(6, 1, name="second")(x)
    x = (pool or layers.GlobalAveragePooling2D())(x)
    return randomized(Model(inputs, layers.Dense(5)(x) if len(x.shape) == 2 else x))


def explicit(x, filters=8, size=3, strides=2):
    x = layers.ZeroPadding2D(size // 2)(x)
    return layers.Conv2D(filters, size, strides=strides, activation="relu")(x)


def depthwise(size, strides=1, **arguments):
    return keras.Sequential(
        [
            layers.ZeroPadding2D(size // 2),
            layers.DepthwiseConv2D(size, strides, **arguments),
        ]
    )


@pytest.mark.parametrize(
    "middle",
    [
        lambda: [],
        lambda: [layers.DepthwiseConv2D(3, padding="same")],
        lambda: [layers.DepthwiseConv2D(5, padding="same", activation="relu6")],
        lambda: [depthwise(3, 2), depthwise(5, 2)],
        lambda: [layers.Activation("hard_swish")],
        lambda: [layers.Activation("sigmoid"), layers.LeakyReLU(), layers.ELU()],
        lambda: [lambda x: layers.Add()([x, layers.Conv2D(8, 1)(x)])],
        lambda: [lambda x: layers.Multiply()([x, ops.sigmoid(x)])],
        lambda: [lambda x: gate(x)],
        lambda: [layers.UpSampling2D(2, interpolation="bilinear")],
    ],
)
def test_what_fits_is_one_part(middle):
    graph, found = checked(zero_pointwise(network(*middle()), 0.7))
    (part,) = found.parts
    pointwise = [
        op
        for op in graph.operators
        if op.kind == "CONV_2D" and op.inputs[1].shape[1:3] == (1, 1)
    ]
    assert part.weights == sum(op.inputs[1].values.size for op in pointwise)
    assert part.runs_sparse
    assert found.blockers == {}


def gate(x):
    """Squeeze-and-excitation with a sigmoid."""
    s = layers.GlobalAveragePooling2D(keepdims=True)(x)
    s = layers.Conv2D(4, 1, activation="relu")(s)
    return layers.Multiply()([x, layers.Conv2D(8, 1, activation="sigmoid")(s)])


@pytest.mark.parametrize(
    ("build", "kind", "reason"),
    [
        (
            lambda: network(size=16, stem=layers.Conv2D(8, 3, 2, padding="same")),
            "CONV_2D",
            "does not have padding 1 on every side",
        ),
        (
            lambda: network(stem=lambda x: explicit(x, size=7)),
            "CONV_2D",
            "it is a 7x7 convolution with strides (2, 2) on 3 channels",
        ),
        (
            lambda: network(stem=lambda x: explicit(x, strides=1)),
            "CONV_2D",
            "it is a 3x3 convolution with strides (1, 1)",
        ),
        (lambda: network(channels=1), "CONV_2D", "on 1 channels"),
        (
            lambda: network(layers.Conv2D(8, 3, padding="same")),
            "CONV_2D",
            "it is a 3x3 convolution with strides (1, 1) on 8 channels",
        ),
        (
            lambda: network(layers.Conv2D(8, 1, strides=2)),
            "CONV_2D",
            "it is a 1x1 convolution with strides (2, 2)",
        ),
        (
            lambda: network(layers.Conv2D(8, 1, groups=2)),
            "CONV_2D",
            "it is a grouped convolution",
        ),
        (
            lambda: network(layers.DepthwiseConv2D(3)),
            "DEPTHWISE_CONV_2D",
            "does not have padding 1 on every side",
        ),
        (
            lambda: network(layers.DepthwiseConv2D(7, padding="same")),
            "DEPTHWISE_CONV_2D",
            "it is a 7x7 depthwise convolution",
        ),
        (
            lambda: network(layers.DepthwiseConv2D(3, 2, padding="same"), size=15),
            "DEPTHWISE_CONV_2D",
            "does not have padding 1 on every side",
        ),
        (
            lambda: network(
                layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)
            ),
            "DEPTHWISE_CONV_2D",
            "its depth multiplier is 2",
        ),
        (
            lambda: network(layers.DepthwiseConv2D(3, padding="same", dilation_rate=2)),
            "DEPTHWISE_CONV_2D",
            "dilated",
        ),
        (lambda: network(lambda x: gated(x)), "MUL", "an operand of shape ()"),
        (lambda: network(layers.MaxPooling2D()), "MAX_POOL_2D", "is no operator"),
        (lambda: network(layers.Softmax()), "SOFTMAX", "is no operator"),
    ],
)
def test_one_broken_rule_makes_everything_dense(build, kind, reason):
    graph, found = checked(zero_pointwise(build()))
    assert found.parts == ()
    blocked = {
        (graph.operators[i].kind, found.roles[i].reason)
        for i in set(found.blockers.values())
    } or {
        (op.kind, r.reason) for op, r in zip(graph.operators, found.roles, strict=True)
    }
    assert any(k == kind and reason in r for k, r in blocked), blocked


@pytest.mark.parametrize(
    ("sparsity", "sparse"), [(0.5, False), (0.66, False), (0.68, True), (0.9, True)]
)
def test_more_than_two_thirds_must_be_zero(sparsity, sparse):
    (part,) = checked(zero_pointwise(network(), sparsity))[1].parts
    assert part.sparsity == pytest.approx(sparsity, abs=0.02)
    assert part.runs_sparse is sparse


def test_an_output_from_inside_spoils_the_part():
    model = network()
    inside = model.get_layer("first").output
    assert checked(Model(model.input, [model.output, inside]))[1].parts == ()


def test_no_pooling_no_part():
    assert checked(network(pool=layers.Flatten()))[1].parts == ()


def test_sparse_encoded_weights_are_read():
    model = zero_pointwise(randomized(mobile(size=33)), 0.9)
    dense, sparse = (checked(model, sparse)[1] for sparse in (False, True))
    assert [part.sparsity for part in sparse.parts] == [
        part.sparsity for part in dense.parts
    ]
    assert len(sparse.roles) == len(dense.roles)


def test_two_parts_are_judged_one_by_one():
    inputs = Input((17, 17, 3))
    heads = []
    for _ in range(2):
        x = inverted(explicit(inputs), 8)
        heads.append(layers.GlobalAveragePooling2D()(x))
    model = zero_pointwise(randomized(Model(inputs, heads)), 0.9)
    expand = next(x for x in model.layers if getattr(x, "kernel_size", 0) == (1, 1))
    expand.kernel.assign(expand.kernel + 1.0)
    assert sorted(p.runs_sparse for p in checked(model)[1].parts) == [False, True]
