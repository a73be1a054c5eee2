"""Finding kernels in trees of layers, and choosing among them with filters."""

import re

import keras
import numpy as np
import pytest
from keras import layers

from pdp_keras.models.axes import KernelAxes
from pdp_keras.models.kernels import (
    child_layers,
    compile_filters,
    find_kernels,
    require_matches,
)
from pdp_keras.models.layer_table import _ROWS, register_prunable_layer


@pytest.fixture(autouse=True)
def unchanged_table():
    """Registrations of one test are none of another's business."""
    rows = dict(_ROWS)
    yield
    _ROWS.clear()
    _ROWS.update(rows)


def encoder(name):
    """A nested functional model: attention and a feed-forward layer."""
    inputs = keras.Input((5, 6))
    x = layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.Dense(6, name="feed_forward")(x)
    return keras.Model(inputs, x, name=name)


def network():
    """Nested models, a cell in an RNN in a Bidirectional, and a shared layer."""
    inputs = keras.Input((5, 6), name="inputs")
    shared = layers.Dense(6, name="shared")
    x = shared(inputs)
    x = encoder("first")(x)
    x = shared(x)
    x = encoder("second")(x)
    x = layers.Bidirectional(layers.LSTM(4, name="lstm"), name="both_ways")(x)
    x = layers.BatchNormalization(name="norm")(x)
    outputs = layers.Dense(3, name="head")(x)
    return keras.Model(inputs, outputs, name="network")


def encoder_kernels(name):
    projections = ("_query_dense", "_key_dense", "_value_dense", "_output_dense")
    return [f"{name}/attention/{p}.kernel" for p in projections] + [
        f"{name}/feed_forward/kernel"
    ]


NETWORK = [
    "shared/kernel",
    *encoder_kernels("first"),
    *encoder_kernels("second"),
    "both_ways/forward_lstm/cell.kernel",
    "both_ways/forward_lstm/cell.recurrent_kernel",
    "both_ways/backward_lstm/cell.kernel",
    "both_ways/backward_lstm/cell.recurrent_kernel",
    "head/kernel",
]


def full_names(root):
    return [kernel.full_name for kernel in find_kernels(root)[0]]


def test_paths_and_order():
    """Each kernel once, named from the root down; the root model has no part in it."""
    assert full_names(network()) == NETWORK


def test_every_float_variable_is_found_once():
    model = network()
    kernels, skipped = find_kernels(model)
    assert len(kernels) + len(skipped) == len(model.weights)
    assert len({id(kernel.variable) for kernel in kernels}) == len(kernels)
    sizes = sum(k.size for k in kernels) + sum(s.size for s in skipped)
    assert sizes == model.count_params()


def test_skipped_weights_state_their_reasons():
    _, skipped = find_kernels(network())
    reasons = {(entry.layer, entry.weight): entry.reason for entry in skipped}
    assert reasons["head", "bias"] == "not a kernel"
    assert reasons["first/attention/query", "bias"] == "not a kernel"
    assert reasons["norm", "gamma"].startswith("normalization: ")
    assert reasons["second/norm", "beta"].startswith("normalization: ")
    entry = next(entry for entry in skipped if entry.layer == "head")
    assert (entry.shape, entry.size) == ((3,), 3)


def test_a_kernel_knows_its_owner_and_its_variable():
    model = network()
    by_name = {kernel.full_name: kernel for kernel in find_kernels(model)[0]}
    head = by_name["head/kernel"]
    assert head.owner is model.get_layer("head")
    assert head.variable is model.get_layer("head").kernel
    assert (head.shape, head.size) == ((8, 3), 24)
    query = by_name["first/attention/_query_dense.kernel"]
    attention = model.get_layer("first").get_layer("attention")
    assert query.owner is attention
    assert query.variable is attention._query_dense.kernel


@pytest.mark.parametrize("suffix", (None, ".keras"), ids=("from_config", "saved"))
def test_the_order_survives_a_rebuild(suffix, tmp_path):
    """The wrapper refers to kernels by their position."""
    model = network()
    if suffix is None:
        again = keras.Model.from_config(model.get_config())
    else:
        model.save(tmp_path / f"model{suffix}")
        again = keras.models.load_model(tmp_path / f"model{suffix}")
    assert full_names(again) == NETWORK
    assert full_names(keras.models.clone_model(model)) == NETWORK


def test_sequential_and_a_layer_as_root():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="one"),
            keras.Sequential([layers.Dense(2, name="two")], name="inner"),
        ],
        name="outer",
    )
    assert full_names(model) == ["one/kernel", "inner/two/kernel"]
    # A layer is in its own paths, a model is not.
    assert full_names(model.layers[0]) == ["one/kernel"]
    assert full_names(model.layers[1]) == ["two/kernel"]


def test_subclassed_model_with_layers_in_lists_and_dicts():
    class Stack(keras.Model):
        def __init__(self):
            super().__init__(name="stack")
            self.blocks = [layers.Dense(4, name=f"block_{i}") for i in range(2)]
            self.heads = {"a": layers.Dense(1, name="head_a")}

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return self.heads["a"](x)

    model = Stack()
    model(np.ones((1, 4)))
    names = ["block_0/kernel", "block_1/kernel", "head_a/kernel"]
    assert sorted(full_names(model)) == names
    again = Stack()
    again(np.ones((1, 4)))
    assert full_names(again) == full_names(model)


def test_shared_layers_appear_where_they_come_first():
    shared = layers.Dense(4, name="shared")
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, shared(inner_input), name="inner")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, shared(inner(shared(inputs))))
    kernels, skipped = find_kernels(model)
    assert [kernel.full_name for kernel in kernels] == ["shared/kernel"]
    assert [entry.weight for entry in skipped] == ["bias"]


def test_a_model_used_twice():
    inner = encoder("inner")
    inputs = keras.Input((5, 6))
    model = keras.Model(inputs, inner(inner(inputs)))
    assert full_names(model) == encoder_kernels("inner")


def test_nothing_is_found_below_a_layer_that_is_not_pruned():
    layer = layers.SpectralNormalization(layers.Dense(3, name="dense"), name="sn")
    layer.build((2, 4))
    kernels, skipped = find_kernels(layer)
    assert kernels == []
    assert {entry.layer for entry in skipped} == {"sn"}
    assert {entry.weight for entry in skipped} == {"kernel", "bias", "vector_u"}
    assert all("overwrites the kernel" in entry.reason for entry in skipped)


class Custom(layers.Layer):
    """A weight of its own, and a Keras layer inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(2, name="inner")

    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], 5), name="matrix")
        self.steps = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", name="steps"
        )
        self.inner.build((None, 5))
        self.built = True


def test_a_class_without_a_row_is_looked_into_and_its_own_weights_are_named():
    layer = Custom(name="custom")
    layer.build((2, 3))
    kernels, skipped = find_kernels(layer)
    assert [kernel.full_name for kernel in kernels] == ["custom/inner/kernel"]
    reasons = {(entry.layer, entry.weight): entry.reason for entry in skipped}
    assert reasons == {
        ("custom", "matrix"): (
            "no row for class Custom: see pdp_keras.register_prunable_layer"
        ),
        ("custom/inner", "bias"): "not a kernel",
    }


class OwnRMSNorm(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")
        self.mixing = self.add_weight(shape=(shape[-1], 4), name="mixing")


def test_a_normalization_without_a_row_is_known_by_its_name():
    layer = OwnRMSNorm(name="norm")
    layer.build((2, 3))
    kernels, skipped = find_kernels(layer)
    assert kernels == []
    assert {entry.weight: entry.reason for entry in skipped} == {
        "scale": "normalization: its few weights scale and shift whole channels",
        "mixing": "no row for class OwnRMSNorm: see pdp_keras.register_prunable_layer",
    }


def test_a_registered_class_is_still_looked_into():
    register_prunable_layer(Custom, {"matrix": KernelAxes((0,), (1,))})
    layer = Custom(name="custom")
    layer.build((2, 3))
    assert full_names(layer) == ["custom/matrix", "custom/inner/kernel"]


def test_layers_without_weights():
    model = keras.Sequential([keras.Input((4,)), layers.ReLU(), layers.Dropout(0.5)])
    assert find_kernels(model) == ([], [])


@pytest.mark.parametrize(
    ("layer", "shape"),
    (
        (layers.Dense(3, name="d"), None),
        (layers.LSTM(3, name="d"), None),
        (layers.MultiHeadAttention(2, 3, name="d"), None),
        (layers.Bidirectional(layers.GRU(3, name="d"), name="both"), None),
    ),
    ids=("dense", "lstm", "attention", "bidirectional"),
)
def test_unbuilt_layers_are_an_error(layer, shape):
    message = r"must be built before .*Received: layer='(forward_)?d' of class \w+ with"
    with pytest.raises(ValueError, match=message):
        find_kernels(layer)


def stack_of_dense(count):
    model = keras.Sequential([keras.Input((5,))])
    for index in range(count):
        model.add(layers.Dense(5, name=f"dense_{index}"))
    return model


def test_a_kernel_with_lora_is_skipped_once():
    """Its value is a sum. The sums have no identity to go by: eight in a row."""
    model = stack_of_dense(8)
    for layer in model.layers:
        layer.enable_lora(2)
    kernels, skipped = find_kernels(model)
    assert kernels == []
    entries = [(s.layer, s.weight) for s in skipped]
    assert len(entries) == len(set(entries)) == len(model.weights)
    computed = [s for s in skipped if "computed" in s.reason]
    assert [(s.layer, s.weight) for s in computed] == [
        (f"dense_{index}", "kernel") for index in range(8)
    ]


@pytest.mark.parametrize("mode", ("int8", "int4"))
def test_a_quantized_kernel_is_skipped(mode):
    """Its integers are no weights: magnitudes of both signs differ in range."""
    model = stack_of_dense(2)
    for layer in model.layers:
        layer.quantize(mode)
    kernels, skipped = find_kernels(model)
    assert kernels == []
    reasons = {(s.layer, s.weight): s.reason for s in skipped}
    assert "quantization" in reasons["dense_0", "kernel"]
    assert "quantization" in reasons["dense_1", "kernel"]


def test_child_layers_are_the_direct_ones():
    model = network()
    names = [layer.name for layer in child_layers(model)]
    assert names == [
        "inputs",
        "shared",
        "first",
        "second",
        "both_ways",
        "norm",
        "head",
    ]


# id: filters, what of NETWORK they choose
FILTERS = {
    "none-is-all": (None, NETWORK),
    "name": ("head", ["head/kernel"]),
    "name-is-whole": ("hea", []),
    "name-without-kernel": ("norm", []),
    "expression": ("sha.*|head", ["shared/kernel", "head/kernel"]),
    "expression-is-whole": ("ed", []),
    "name-at-any-depth": (
        "feed_forward",
        ["first/feed_forward/kernel", "second/feed_forward/kernel"],
    ),
    "model-around": ("first", encoder_kernels("first")),
    "wrapper-around": ("both_ways", NETWORK[-5:-1]),
    "path": ("second/feed_forward", ["second/feed_forward/kernel"]),
    "path-expression": (".*/attention", NETWORK[1:5] + NETWORK[6:10]),
    "path-from-the-middle": ("attention/query", []),
    "compiled-is-searched": (re.compile("ed$"), ["shared/kernel"]),
    "compiled-in-the-path": (re.compile("st/feed"), ["first/feed_forward/kernel"]),
    "compiled-from-the-start": (re.compile("^feed"), []),
    "list": (["head", "shared"], ["shared/kernel", "head/kernel"]),
    "tuple": (("head", "shared"), ["shared/kernel", "head/kernel"]),
    "set": ({"head", "shared"}, ["shared/kernel", "head/kernel"]),
    "mixed-list": (
        ["head", re.compile("^shared$")],
        ["shared/kernel", "head/kernel"],
    ),
    "overlapping": (["head", ".*"], NETWORK),
    "empty-list": ([], []),
    "callable-gets-the-owner": (
        lambda layer: isinstance(layer, layers.LSTM),
        NETWORK[-5:-1],
    ),
    "callable-may-return-anything": (
        lambda layer: layer.name == "head" and 1,
        ["head/kernel"],
    ),
    "class-is-no-filter-but-a-callable": (bool, NETWORK),
}


@pytest.fixture(scope="module")
def kernels():
    return find_kernels(network())[0]


@pytest.mark.parametrize(("filters", "expected"), FILTERS.values(), ids=FILTERS)
def test_filters(kernels, filters, expected):
    chosen = compile_filters(filters)
    assert [k.full_name for k in kernels if chosen(k)] == expected


@pytest.mark.parametrize(
    ("filters", "received"),
    ((3, "3"), ([3], "3"), (["head", None], "None"), ([print], "<built-in")),
    ids=("number", "number-in-a-list", "none-in-a-list", "callable-in-a-list"),
)
def test_filter_type_errors(filters, received):
    message = f"must be layer names, regular expressions .*Received: {received}"
    with pytest.raises(TypeError, match=message):
        compile_filters(filters)


@pytest.mark.parametrize("filters", ("dense(", ["head", "dense("]), ids=repr)
def test_a_string_that_is_no_expression(filters):
    with pytest.raises(ValueError, match=r"expression\. Received: 'dense\(' \(missing"):
        compile_filters(filters)


@pytest.mark.parametrize(
    "filters",
    (None, "head", ["head", "first"], re.compile("ed$"), lambda layer: True),
    ids=("none", "name", "list", "compiled", "callable"),
)
def test_filters_that_match(kernels, filters):
    require_matches(filters, kernels)


@pytest.mark.parametrize(
    ("filters", "culprit"),
    (
        ("haed", "'haed'"),
        (["head", "haed"], "'haed'"),
        (["norm"], "'norm'"),
        ([], "()"),
        (re.compile("xyz"), "re.compile('xyz')"),
        (lambda layer: False, "<function"),
    ),
    ids=("name", "one-of-a-list", "not-prunable", "empty", "compiled", "callable"),
)
def test_filters_that_match_nothing(kernels, filters, culprit):
    """A misspelt name must not prune the wrong thing in silence."""
    with pytest.raises(ValueError, match="at least one prunable layer") as error:
        require_matches(filters, kernels)
    assert f"of which {culprit}" in str(error.value)
    assert "both_ways/backward_lstm" in str(error.value), "the paths that there are"


def test_a_model_without_kernels_matches_nothing():
    with pytest.raises(ValueError, match=r"there are \[\]"):
        require_matches(None, [])
