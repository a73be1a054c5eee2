"""The table of prunable kernels: complete, and right about every axis."""

import re
import types

import keras
import pytest
from keras import layers

from pdp_keras import layer_table
from pdp_keras.kernels import find_kernels
from pdp_keras.layer_table import (
    Container,
    KernelAxes,
    NotPruned,
    Prunable,
    find_row,
    register_prunable_layer,
)

IMAGE = (2, 8, 9, 3)
SEQUENCE = (2, 5, 6)


@pytest.fixture(autouse=True)
def seeded_session():
    """In place of the common one: clearing costs more than these tests."""


@pytest.fixture(autouse=True)
def unchanged_table():
    """Registrations of one test are none of another's business."""
    rows = dict(layer_table._ROWS)
    yield
    layer_table._ROWS.clear()
    layer_table._ROWS.update(rows)


# How to make the layers of Keras: class name to (positional arguments, input shape).
# Those that are not here need no arguments, and build on IMAGE. Sizes differ wherever
# they can, so that no axis can be taken for another.
BUILD = {
    "Activation": (("relu",), IMAGE),
    "AdaptiveAveragePooling1D": ((2,), SEQUENCE),
    "AdaptiveAveragePooling2D": ((2,), IMAGE),
    "AdaptiveAveragePooling3D": ((2,), (2, 4, 5, 6, 3)),
    "AdaptiveMaxPooling1D": ((2,), SEQUENCE),
    "AdaptiveMaxPooling2D": ((2,), IMAGE),
    "AdaptiveMaxPooling3D": ((2,), (2, 4, 5, 6, 3)),
    "Add": ((), [IMAGE, IMAGE]),
    "AdditiveAttention": ((), [SEQUENCE, SEQUENCE]),
    "AlphaDropout": ((0.5,), IMAGE),
    "Attention": (lambda: layers.Attention(use_scale=True), [SEQUENCE, SEQUENCE]),
    "Average": ((), [IMAGE, IMAGE]),
    "AveragePooling1D": ((2,), SEQUENCE),
    "AveragePooling2D": ((2,), IMAGE),
    "AveragePooling3D": ((2,), (2, 4, 5, 6, 3)),
    "Bidirectional": (lambda: layers.Bidirectional(layers.LSTM(4)), SEQUENCE),
    "CategoryEncoding": ((4,), (2, 3)),
    "CenterCrop": ((2, 2), IMAGE),
    "Concatenate": ((), [IMAGE, IMAGE]),
    "Conv1D": ((7, 2), SEQUENCE),
    "Conv1DTranspose": ((7, 2), SEQUENCE),
    "Conv2D": ((7, (2, 5)), IMAGE),
    "Conv2DTranspose": ((7, (2, 5)), IMAGE),
    "Conv3D": ((7, (2, 4, 5)), (2, 8, 9, 10, 3)),
    "Conv3DTranspose": ((7, (2, 4, 5)), (2, 8, 9, 10, 3)),
    "ConvLSTM1D": ((7, 2), (2, 5, 8, 3)),
    "ConvLSTM2D": ((7, (2, 5)), (2, 5, 8, 9, 3)),
    "ConvLSTM3D": ((7, (2, 4, 5)), (2, 5, 8, 9, 10, 3)),
    "Dense": ((7,), IMAGE),
    "DepthwiseConv1D": (
        lambda: layers.DepthwiseConv1D(2, depth_multiplier=4),
        SEQUENCE,
    ),
    "DepthwiseConv2D": (
        lambda: layers.DepthwiseConv2D((2, 5), depth_multiplier=4),
        IMAGE,
    ),
    "Discretization": ((None, 3), (2, 3)),
    "Dot": ((1,), [SEQUENCE, SEQUENCE]),
    "Dropout": ((0.5,), IMAGE),
    "EinsumDense": (("abc,cde->abde", (None, 4, 7)), SEQUENCE),
    "Embedding": ((11, 7), (2, 5)),
    "GRU": ((4,), SEQUENCE),
    "GRUCell": ((4,), (2, 6)),
    "GaussianDropout": ((0.5,), IMAGE),
    "GaussianNoise": ((0.5,), IMAGE),
    "GroupNormalization": ((3,), IMAGE),
    "GroupedQueryAttention": ((3, 4, 2), [SEQUENCE, (2, 8, 7)]),
    "HashedCrossing": ((4,), [(2,), (2,)]),
    "Hashing": ((4,), (2, 3)),
    "InputLayer": ((IMAGE[1:],), IMAGE),
    "LSTM": ((4,), SEQUENCE),
    "LSTMCell": ((4,), (2, 6)),
    "Lambda": ((abs,), IMAGE),
    "MaxNumBoundingBoxes": ((4,), IMAGE),
    "Maximum": ((), [IMAGE, IMAGE]),
    "Minimum": ((), [IMAGE, IMAGE]),
    "MultiHeadAttention": (
        lambda: layers.MultiHeadAttention(2, 3, value_dim=4, output_shape=9),
        [SEQUENCE, (2, 8, 7)],
    ),
    "Multiply": ((), [IMAGE, IMAGE]),
    "Permute": (((3, 1, 2),), IMAGE),
    "Pipeline": (([],), IMAGE),
    "RNN": (lambda: layers.RNN(layers.GRUCell(4)), SEQUENCE),
    "RandomBrightness": ((0.5,), IMAGE),
    "RandomColorDegeneration": ((0.5,), IMAGE),
    "RandomContrast": ((0.5,), IMAGE),
    "RandomCrop": ((2, 2), IMAGE),
    "RandomHue": ((0.5,), IMAGE),
    "RandomPosterization": ((4,), IMAGE),
    "RandomRotation": ((0.5,), IMAGE),
    "RandomSaturation": ((0.5,), IMAGE),
    "RandomSharpness": ((0.5,), IMAGE),
    "RandomTranslation": ((0.5, 0.5), IMAGE),
    "RandomZoom": ((0.5,), IMAGE),
    "RepeatVector": ((4,), (2, 3)),
    "Rescaling": ((0.5,), IMAGE),
    "Reshape": (((-1,),), IMAGE),
    "Resizing": ((2, 2), IMAGE),
    "ReversibleEmbedding": ((11, 7), (2, 5)),
    "SeparableConv1D": (
        lambda: layers.SeparableConv1D(7, 2, depth_multiplier=4),
        SEQUENCE,
    ),
    "SeparableConv2D": (
        lambda: layers.SeparableConv2D(7, (2, 5), depth_multiplier=4),
        IMAGE,
    ),
    "SimpleRNN": ((4,), SEQUENCE),
    "SimpleRNNCell": ((4,), (2, 6)),
    "SpatialDropout1D": ((0.5,), SEQUENCE),
    "SpatialDropout2D": ((0.5,), IMAGE),
    "SpatialDropout3D": ((0.5,), (2, 4, 5, 6, 3)),
    "SpectralNormalization": (
        lambda: layers.SpectralNormalization(layers.Dense(7)),
        (2, 6),
    ),
    "StackedRNNCells": (
        lambda: layers.StackedRNNCells([layers.LSTMCell(4), layers.GRUCell(3)]),
        (2, 6),
    ),
    "Subtract": ((), [IMAGE, IMAGE]),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Dense(7)), SEQUENCE),
    "Wrapper": (lambda: layers.Wrapper(layers.Dense(7)), (2, 6)),
}

# Classes that this test cannot build, and why that is no gap.
NOT_BUILT = {
    "FlaxLayer": "needs flax and JAX; NotPruned",
    "JaxLayer": "needs JAX; NotPruned",
    "TFSMLayer": "needs a SavedModel on disk; NotPruned",
    "TorchModuleWrapper": "needs PyTorch; NotPruned",
}

CLASSES = {
    value.__name__: value
    for value in vars(layers).values()
    if isinstance(value, type) and issubclass(value, layers.Layer)
}
BUILDABLE = sorted(CLASSES.keys() - NOT_BUILT.keys())


def build(name):
    """A built layer of this class."""
    make, shape = BUILD.get(name, ((), IMAGE))
    layer = make() if callable(make) else CLASSES[name](*make)
    if name in ("MultiHeadAttention", "GroupedQueryAttention"):
        layer.build(*shape)
    else:
        layer.build(shape)
    return layer


def float_variables(layer):
    return [
        variable
        for variable in layer.variables
        if "float" in keras.backend.standardize_dtype(variable.dtype)
    ]


def test_keras_has_the_classes_that_are_known_here():
    """An older Keras lacks some; but a misspelt name would test nothing."""
    known = BUILD.keys() | NOT_BUILT.keys()
    assert len(known & CLASSES.keys()) > 80
    for name in NOT_BUILT.keys() & CLASSES.keys():
        assert isinstance(find_row(CLASSES[name]), NotPruned)


@pytest.mark.parametrize("name", BUILDABLE)
def test_every_weighted_class_of_keras_has_a_row(name):
    """A new weighted layer in Keras fails here until somebody decides about it."""
    row = find_row(CLASSES[name])
    variables = float_variables(build(name))
    if name == "Wrapper":
        assert row is None  # abstract; what it wraps is looked up
    elif variables:
        assert row is not None, f"{name} has {[v.path for v in variables]}, but no row"
    else:
        assert row is None, f"{name} has a row, but no weights"


@pytest.mark.parametrize("name", BUILDABLE)
def test_no_weight_is_missed(name):
    """Each float variable is a kernel or is skipped with a reason; never both."""
    layer = build(name)
    kernels, skipped = find_kernels(layer)
    assert all(isinstance(k.variable, keras.Variable) for k in kernels)
    assert all(entry.reason for entry in skipped)
    assert not any("no row" in entry.reason for entry in skipped)
    found = [k.variable.path for k in kernels]
    assert len(set(found)) == len(found)
    variables = float_variables(layer)
    assert len(kernels) + len(skipped) == len(variables)
    assert sum(k.size for k in kernels) + sum(s.size for s in skipped) == sum(
        int(keras.ops.size(v)) for v in variables
    )


PRUNABLE = [
    name
    for name in BUILDABLE
    if isinstance(find_row(CLASSES[name]), Prunable | Container)
]


@pytest.mark.parametrize("name", PRUNABLE)
def test_what_is_skipped_in_a_prunable_class_are_biases(name):
    """Some of them have two axes: one bias for each head, or for each use in a GRU."""
    _, skipped = find_kernels(build(name))
    assert {entry.weight for entry in skipped} <= {"bias"}
    assert {entry.reason for entry in skipped} <= {"not a kernel"}


# Class name: {attribute path: (shape, input axes, output axes)}
KERNELS = {
    "Dense": {"kernel": ((3, 7), (0,), (1,))},
    "EinsumDense": {"kernel": ((6, 4, 7), (0,), (1, 2))},
    "Embedding": {"embeddings": ((11, 7), (), (1,))},
    "ReversibleEmbedding": {"embeddings": ((11, 7), (), (1,))},
    "Conv1D": {"kernel": ((2, 6, 7), (1,), (2,))},
    "Conv2D": {"kernel": ((2, 5, 3, 7), (2,), (3,))},
    "Conv3D": {"kernel": ((2, 4, 5, 3, 7), (3,), (4,))},
    "Conv1DTranspose": {"kernel": ((2, 7, 6), (2,), (1,))},
    "Conv2DTranspose": {"kernel": ((2, 5, 7, 3), (3,), (2,))},
    "Conv3DTranspose": {"kernel": ((2, 4, 5, 7, 3), (4,), (3,))},
    # Three channels, four filters each: nothing is summed but the window.
    "DepthwiseConv1D": {"kernel": ((2, 6, 4), (), (1, 2))},
    "DepthwiseConv2D": {"kernel": ((2, 5, 3, 4), (), (2, 3))},
    "SeparableConv1D": {
        "depthwise_kernel": ((2, 6, 4), (), (1, 2)),
        "pointwise_kernel": ((1, 24, 7), (1,), (2,)),
    },
    "SeparableConv2D": {
        "depthwise_kernel": ((2, 5, 3, 4), (), (2, 3)),
        "pointwise_kernel": ((1, 1, 12, 7), (2,), (3,)),
    },
    "LSTM": {
        "cell.kernel": ((6, 16), (0,), (1,)),
        "cell.recurrent_kernel": ((4, 16), (0,), (1,)),
    },
    "GRU": {
        "cell.kernel": ((6, 12), (0,), (1,)),
        "cell.recurrent_kernel": ((4, 12), (0,), (1,)),
    },
    "SimpleRNN": {
        "cell.kernel": ((6, 4), (0,), (1,)),
        "cell.recurrent_kernel": ((4, 4), (0,), (1,)),
    },
    "LSTMCell": {
        "kernel": ((6, 16), (0,), (1,)),
        "recurrent_kernel": ((4, 16), (0,), (1,)),
    },
    "GRUCell": {
        "kernel": ((6, 12), (0,), (1,)),
        "recurrent_kernel": ((4, 12), (0,), (1,)),
    },
    "SimpleRNNCell": {
        "kernel": ((6, 4), (0,), (1,)),
        "recurrent_kernel": ((4, 4), (0,), (1,)),
    },
    "ConvLSTM1D": {
        "cell.kernel": ((2, 3, 28), (1,), (2,)),
        "cell.recurrent_kernel": ((2, 7, 28), (1,), (2,)),
    },
    "ConvLSTM2D": {
        "cell.kernel": ((2, 5, 3, 28), (2,), (3,)),
        "cell.recurrent_kernel": ((2, 5, 7, 28), (2,), (3,)),
    },
    "ConvLSTM3D": {
        "cell.kernel": ((2, 4, 5, 3, 28), (3,), (4,)),
        "cell.recurrent_kernel": ((2, 4, 5, 7, 28), (3,), (4,)),
    },
    # Two heads; queries of 6, values (and so keys) of 7 features; 9 outputs.
    "MultiHeadAttention": {
        "_query_dense.kernel": ((6, 2, 3), (0,), (1, 2)),
        "_key_dense.kernel": ((7, 2, 3), (0,), (1, 2)),
        "_value_dense.kernel": ((7, 2, 4), (0,), (1, 2)),
        "_output_dense.kernel": ((2, 4, 9), (0, 1), (2,)),
    },
    "GroupedQueryAttention": {
        "_query_dense.kernel": ((6, 4, 3), (0,), (1, 2)),
        "_key_dense.kernel": ((7, 2, 3), (0,), (1, 2)),
        "_value_dense.kernel": ((7, 2, 3), (0,), (1, 2)),
        "_output_dense.kernel": ((4, 3, 6), (0, 1), (2,)),
    },
}


@pytest.mark.parametrize("name", sorted(KERNELS.keys() & CLASSES.keys()))
def test_kernels_and_their_axes(name):
    kernels, _ = find_kernels(build(name))
    assert {
        k.name: (k.shape, k.axes.inputs, k.axes.outputs) for k in kernels
    } == KERNELS[name]


def test_every_prunable_class_is_in_that_table():
    prunable = {n for n, c in CLASSES.items() if isinstance(find_row(c), Prunable)}
    assert prunable <= KERNELS.keys()


def attention_with_gate(name):
    arguments = (2, 3) if name == "MultiHeadAttention" else (3, 4, 2)
    layer = CLASSES[name](*arguments, use_gate=True)
    layer.build(SEQUENCE, (2, 8, 7))
    return layer


@pytest.mark.parametrize("name", ("MultiHeadAttention", "GroupedQueryAttention"))
def test_the_gate_of_an_attention_is_a_kernel(name):
    """No path in the table, since older attentions have none: an EinsumDense."""
    try:
        layer = attention_with_gate(name)
    except (TypeError, ValueError):
        pytest.skip("this Keras has no gated attention")
    kernels, skipped = find_kernels(layer)
    assert {k.full_name.partition("/")[2]: k.axes for k in kernels}[
        "gate/kernel"
    ] == KernelAxes(inputs=(0,), outputs=(1, 2))
    assert len(kernels) == 5
    assert {s.weight for s in skipped} <= {"bias"}


@pytest.mark.parametrize(
    ("equation", "inputs", "outputs"),
    (
        ("ab,bc->ac", (0,), (1,)),
        ("abc,cde->abde", (0,), (1, 2)),
        ("abcd,cde->abe", (0, 1), (2,)),
        ("...x,xy->...y", (0,), (1,)),
        ("ab...,bc->ac...", (0,), (1,)),
        ("abc,dc->abd", (1,), (0,)),
        # b is a group: each has its own matrix, and nothing is summed over it.
        ("abc,bcd->abd", (1,), (2,)),
        # A scale for each feature: neither summed nor new.
        ("ab,b->ab", (), ()),
        (" abc , cd -> abd ", (0,), (1,)),
    ),
)
def test_einsum_axes(equation, inputs, outputs):
    layer = types.SimpleNamespace(equation=equation)
    assert layer_table.einsum_axes(layer) == KernelAxes(inputs, outputs)


@pytest.mark.parametrize("data_format", ("channels_first", "channels_last"))
def test_the_data_format_does_not_move_the_kernel_axes(data_format):
    layer = layers.Conv2D(7, (2, 5), data_format=data_format)
    layer.build((2, 3, 8, 9) if data_format == "channels_first" else IMAGE)
    (kernel,), _ = find_kernels(layer)
    assert (kernel.shape, kernel.axes) == ((2, 5, 3, 7), KernelAxes((2,), (3,)))


def test_a_subclass_inherits_the_row():
    class MyDense(layers.Dense):
        pass

    class MyNorm(layers.BatchNormalization):
        pass

    class MyModel(keras.Model):
        pass

    assert find_row(MyDense) is find_row(layers.Dense)
    assert isinstance(find_row(MyNorm), NotPruned)
    assert isinstance(find_row(MyModel), Container)
    assert isinstance(find_row(keras.Sequential), Container)


def test_a_custom_layer_has_no_row():
    class Custom(layers.Layer):
        pass

    assert find_row(Custom) is None
    assert find_row(object) is None


class Mixing(layers.Layer):
    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], 8), name="matrix")
        self.built = True


def test_register_prunable_layer():
    register_prunable_layer(Mixing, {"matrix": KernelAxes((0,), (1,))})
    layer = Mixing(name="mixing")
    layer.build((2, 3))
    (kernel,), skipped = find_kernels(layer)
    assert (kernel.full_name, kernel.axes) == (
        "mixing/matrix",
        KernelAxes((0,), (1,)),
    )
    assert kernel.variable is layer.matrix and skipped == []


def test_register_with_a_function_of_the_layer():
    register_prunable_layer(
        Mixing, {"matrix": lambda layer: KernelAxes((-layer.matrix.ndim,), (-1,))}
    )
    layer = Mixing()
    layer.build((2, 3))
    (kernel,), _ = find_kernels(layer)
    assert kernel.axes == KernelAxes((0,), (1,))


def test_register_a_reason():
    register_prunable_layer(Mixing, reason="it is orthogonal")
    layer = Mixing(name="mixing")
    layer.build((2, 3))
    kernels, (entry,) = find_kernels(layer)
    assert kernels == []
    assert (entry.layer, entry.weight, entry.reason) == (
        "mixing",
        "matrix",
        "it is orthogonal",
    )


def test_a_registration_is_inherited_and_can_be_overridden():
    class Special(Mixing):
        pass

    register_prunable_layer(Mixing, {"matrix": KernelAxes((0,), (1,))})
    assert find_row(Special) is find_row(Mixing)
    register_prunable_layer(Special, reason="special")
    assert find_row(Special) == NotPruned("special")
    assert isinstance(find_row(Mixing), Prunable)


def test_a_later_change_of_the_mapping_changes_nothing():
    kernels = {"matrix": KernelAxes((0,), (1,))}
    register_prunable_layer(Mixing, kernels)
    kernels.clear()
    assert list(find_row(Mixing).kernels) == ["matrix"]


AXES = {"matrix": KernelAxes((0,), (1,))}
# id: class, kernels, reason, error, message
ERRORS = {
    "an-instance": (layers.ReLU(), AXES, "", TypeError, "layer_class=<ReLU"),
    "no-layer": (dict, AXES, "", TypeError, "layer_class=<class 'dict'>"),
    "a-name": ("Dense", AXES, "", TypeError, "layer_class='Dense'"),
    "neither": (Mixing, None, "", ValueError, "kernels=None, reason=''"),
    "no-kernel": (Mixing, {}, "", ValueError, "kernels={}, reason=''"),
    "both": (Mixing, AXES, "why", ValueError, "kernels={'matrix': KernelAxes"),
}


@pytest.mark.parametrize(
    ("layer_class", "kernels", "reason", "error", "received"),
    ERRORS.values(),
    ids=ERRORS,
)
def test_register_errors(layer_class, kernels, reason, error, received):
    with pytest.raises(error, match=f"must be .*Received: {re.escape(received)}"):
        register_prunable_layer(layer_class, kernels, reason=reason)
    assert find_row(Mixing) is None
