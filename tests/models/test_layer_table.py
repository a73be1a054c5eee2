"""The table of prunable kernels: complete, and right about every axis."""

import re
import types

import keras
import pytest
from keras import layers
from keras_layers import BUILD, CLASSES, IMAGE, KERNELS, SEQUENCE

from pdp_keras.models.axes import KernelAxes
from pdp_keras.models.kernels import find_kernels
from pdp_keras.models.layer_table import (
    _ROWS,
    Container,
    NotPruned,
    Prunable,
    einsum_axes,
    find_row,
    register_prunable_layer,
)


@pytest.fixture(autouse=True)
def seeded_session():
    """In place of the common one: clearing costs more than these tests."""


@pytest.fixture(autouse=True)
def unchanged_table():
    """Registrations of one test are none of another's business."""
    rows = dict(_ROWS)
    yield
    _ROWS.clear()
    _ROWS.update(rows)


# Classes that this test cannot build, and why that is no gap.
NOT_BUILT = {
    "FlaxLayer": "needs flax and JAX; NotPruned",
    "JaxLayer": "needs JAX; NotPruned",
    "TFSMLayer": "needs a SavedModel on disk; NotPruned",
    "TorchModuleWrapper": "needs PyTorch; NotPruned",
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
    assert einsum_axes(layer) == KernelAxes(inputs, outputs)


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
