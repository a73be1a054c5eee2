"""Which channels belong together: literal expectations for small architectures."""

import keras
import numpy as np
import pytest
from channel_models import ARCHITECTURES
from keras import layers

from pdp_keras.channels.trace import find_channels
from pdp_keras.models.kernels import find_kernels

# The groups of each architecture, with their numbers of units.
GROUPS = {
    "residual": {"stem": 6, "in0": 5, "in1": 5},
    "dense_block": {"c0": 4, "c1": 4, "c2": 4, "t": 6},
    "inverted_residual": {"stem": 4, "expand": 8, "squeeze": 2},
    "inception": {"stem": 6, "b1_in": 5, "b0": 4, "b1": 3},
    "unknown_layer": {"b": 5},
    "shuffle": {"g": 4},
    "shuffle_depthwise": {"a": 4},
    "grouped": {"a": 2, "h": 4},
    "splits_and_slices": {"a": 2, "a:2": 2, "d2": 5, "d1": 4},
    "packed_heads": {"qkv": 2},
    "einsum_heads": {"k": 4},
    "mha": {"e": 10, "mha": 4, "f1": 16},
    "gqa": {"e": 10, "gqa": 2},
    "recurrent": {"l": 6, "g": 5, "g2": 5, "b/forward_lstm": 4, "td/dense": 7, "s": 4},
    "recurrent_states": {"l": 6, "b/forward_gru": 4},
    "nested_twice": {"a": 6},
    "nested_outputs": {"a": 6, "inner/c": 5, "inner/d": 6, "se1": 3},
    "einsum_dense": {"e": 10, "h": 4, "c": 7, "d": 5},
    "channel_layers": {"a": 4, "t": 6, "s": 7},
    "mixer": {"e": 10},
    "mixing_layers": {},
    "gates_and_padding": {"b": 6, "d": 5},
    "embedding": {"emb": 8, "l": 5},
    "sequential": {"a": 6, "b": 4, "c": 5},
    "shared_dense": {"a": 6},
    "layer_normalizations": {"e": 10, "f": 12},
    "channels_first_flatten": {"a": 4},
    "group_normalizations": {"a": 8, "b": 8},
    "slices": {"a": 12},
    "class_token": {"e": 10},
    "constants": {"g": 6},
    "unknown_length": {"c": 6},
    "outer_product": {"b": 7},
    "vision_transformer": {"patch": 12, "mha": 3, "f1": 20},
    "cross_attention": {"q": 10, "v": 8, "k": 9, "mha": 5},
    "shared_reshape": {"b": 3},
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_groups(name):
    plan = find_channels(ARCHITECTURES[name]())
    assert {group.name: group.size for group in plan.groups} == GROUPS[name]


def makers(plan):
    return {g.name: [f"{s.path}/{s.weight}" for s in g.makers] for g in plan.groups}


def test_kernels_that_make_the_same_channels():
    plan = find_channels(ARCHITECTURES["inverted_residual"]())
    assert makers(plan) == {
        "stem": ["stem/kernel", "project/kernel"],
        "expand": ["expand/kernel", "depthwise/kernel", "excite/kernel"],
        "squeeze": ["squeeze/kernel"],
    }
    plan = find_channels(ARCHITECTURES["nested_twice"]())
    assert makers(plan) == {"a": ["a/kernel", "inner/c/kernel", "b/kernel"]}
    plan = find_channels(ARCHITECTURES["mha"]())
    assert makers(plan)["mha"] == [
        "mha/_query_dense.kernel",
        "mha/_key_dense.kernel",
        "mha/_value_dense.kernel",
    ]


def test_slots_of_a_recurrent_layer():
    plan = find_channels(ARCHITECTURES["embedding"]())
    slots = {(s.weight, s.axis, s.role): s for s in plan.slots if s.layer.name == "l"}
    assert set(slots) == {
        ("cell.kernel", 0, "reads"),
        ("cell.kernel", 1, "makes"),
        ("cell.recurrent_kernel", 0, "reads"),
        ("cell.recurrent_kernel", 1, "makes"),
        ("cell.bias", 0, "follows"),
    }
    gates = slots["cell.kernel", 1, "makes"]
    np.testing.assert_array_equal(gates.unit_of, np.tile(np.arange(5), 4))
    np.testing.assert_array_equal(gates.group_of, np.ones(20))


def test_slots_of_a_normalization_without_weights():
    plan = find_channels(ARCHITECTURES["layer_normalizations"]())
    found = [
        (type(s.layer).__name__, s.weight, s.axis)
        for s in plan.slots
        if s.role == "normalizes"
    ]
    assert found == [
        ("LayerNormalization", "gamma", 0),
        ("LayerNormalization", "beta", 0),
        ("UnitNormalization", "", -1),
        ("RMSNormalization", "scale", 0),
        ("LayerNormalization", "", -1),
    ]


def test_why_channels_are_fixed():
    fixed = {f.path: f for f in find_channels(ARCHITECTURES["unknown_layer"]()).fixed}
    assert {path: (f.kind, f.size) for path, f in fixed.items()} == {
        "a": ("unknown", 6),
        "o": ("output", 3),
    }
    assert "'doubling' of class Doubling" in fixed["a"].reason
    fixed = find_channels(ARCHITECTURES["gates_and_padding"]()).fixed
    assert ("a", "structure", 6) in [(f.path, f.kind, f.size) for f in fixed]
    assert next(f.reason for f in fixed if f.path == "a").startswith("'mean' (Mean)")


def test_part_of_a_kernel_is_fixed():
    plan = find_channels(ARCHITECTURES["splits_and_slices"]())
    (slot,) = [s for s in plan.slots if (s.path, s.role) == ("a", "makes")]
    sizes = [int((slot.group_of == group).sum()) for group in (-1, 0, 1)]
    fixed = [f for f in plan.fixed if f.path == "a"]
    assert sizes == [fixed[0].size, 4, 4]
    np.testing.assert_array_equal(slot.group_of < 0, slot.unit_of < 0)


def test_the_same_graph_gives_the_same_plan(tmp_path):
    model = ARCHITECTURES["inception"]()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    plans = [find_channels(m) for m in (model, model, again)]
    described = [
        [
            [(g.name, g.size) for g in plan.groups],
            [
                (s.path, s.weight, s.axis, s.role, s.group_of.tolist())
                for s in plan.slots
            ],
            plan.fixed,
        ]
        for plan in plans
    ]
    assert described[0] == described[1] == described[2]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_paths_are_those_of_the_kernels(name):
    model = ARCHITECTURES[name]()
    kernels = {(k.path, k.name) for k in find_kernels(model)[0]}
    plan = find_channels(model)
    assert {(s.path, s.weight) for s in plan.slots if s.role == "makes"} <= kernels


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_kernel_axis_is_made_of_whole_groups(name):
    plan = find_channels(ARCHITECTURES[name]())
    for slot in plan.slots:
        for group in np.unique(slot.group_of[slot.group_of >= 0]):
            units = np.unique(slot.unit_of[slot.group_of == group])
            np.testing.assert_array_equal(units, np.arange(plan.groups[group].size))


def test_a_model_called_on_other_inputs_is_left_alone():
    own = keras.Input((4,), name="x")
    inner = keras.Model({"x": own}, layers.Dense(5, name="d")(own), name="inner")
    inputs = keras.Input((3,))
    x = layers.Dense(4, name="a")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="o")(inner({"x": x})))
    assert [g.name for g in find_channels(model).groups] == ["a", "inner/d"]


def test_what_is_no_graph_is_refused():
    class Subclassed(keras.Model):
        pass

    for model in (Subclassed(), keras.Sequential([layers.Dense(3)]), None):
        with pytest.raises(ValueError, match="built Sequential or Functional"):
            find_channels(model)


def test_quantized_and_lora_layers_are_left_alone():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6), layers.Dense(4)])
    model.layers[0].enable_lora(2)
    assert find_channels(model).groups == ()
