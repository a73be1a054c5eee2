"""Rules of keras_hub's layers, and its backbones pruned and stripped."""

import importlib

import keras
import models
import numpy as np
import pytest
from channel_models import check_rule, difference, inputs_for, randomize, run
from keras import layers

from pdp_keras import prune_model, strip_pruning
from pdp_keras.channels.trace import find_channels
from pdp_keras.pruned import parts

_MOBILENET = "mobilenet.mobilenet_backbone"
_VIT = "vit.vit_layers"


@pytest.fixture
def hub():
    # Not when the tests are collected: it takes ten seconds.
    return pytest.importorskip("keras_hub")


def find_class(module, name):
    return getattr(importlib.import_module(f"keras_hub.src.models.{module}"), name)


def test_hidden_units_of_transformers(hub):
    inputs = keras.Input((6, 8))
    x = hub.layers.TransformerEncoder(16, 2, activation="gelu", name="e")(inputs)
    x = hub.layers.TransformerDecoder(12, 2, name="d")(x)
    model = randomize(keras.Model(inputs, layers.Dense(3, name="o")(x)))
    plan = find_channels(model)
    assert {g.name: g.size for g in plan.groups} == {
        "e/feedforward_intermediate_dense": 16,
        "d/feedforward_intermediate_dense": 12,
    }
    keep = {g.name: np.arange(g.size) % 3 == 0 for g in plan.groups}
    assert difference(model, keep)[0] <= 1e-4


def test_computed_kernels_inside_stay(hub):
    inputs = keras.Input((6, 8))
    encoder = hub.layers.TransformerEncoder(16, 2)
    x = layers.Dense(8, name="before")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(encoder(x)))
    assert find_channels(model).groups
    encoder._feedforward_output_dense.enable_lora(2)
    plan = find_channels(model)
    assert plan.groups == ()
    assert {f.path: f.kind for f in plan.fixed}["before"] == "unknown"


def test_hidden_units_of_a_vision_transformer(hub):
    inputs = keras.Input((5, 8))
    encoder = find_class(_VIT, "ViTEncoder")
    x = encoder(num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12)(inputs)
    model = randomize(keras.Model(inputs, layers.Dense(3, name="o")(x)))
    (group,) = find_channels(model).groups
    assert (group.size, len(group.makers)) == (12, 2)
    assert difference(model, {group.name: np.arange(12) < 5})[0] <= 1e-4


@pytest.mark.parametrize("class_token", [True, False])
def test_embedded_patches(hub, class_token):
    embedding = find_class(_VIT, "ViTPatchingAndEmbedding")

    def build():
        return embedding((4, 4), (2, 2), 5, 6, use_class_token=class_token, name="x")

    check_rule(build, {"before": 6, "x/patch_embedding": 5})


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("ConvBnActBlock", (4, "hard_swish"), {"before": 6, "x/x_conv": 4}),
        ("SqueezeAndExcite2D", (6, 4), {"before": 6, "x/x_conv_reduce": 4}),
        # The two units are of 8 squeezed channels each.
        (
            "DepthwiseConvBlock",
            (6, 4, 3, 1, 2.0),
            {
                "before": 6,
                "x_0/x_0_squeeze_excite/x_0_squeeze_excite_conv_reduce": 2,
                "x_0/x_0_conv2": 4,
            },
        ),
        ("DepthwiseConvBlock", (6, 6, 3, 1, None, True), {"before": 6}),
        # It adds its input, so both go on with the same channels.
        (
            "InvertedResidualBlock",
            (16, 6, 6, 3, 1, None, "relu", 1),
            {"before": 6, "x/x_conv1": 2},
        ),
        # Half of 6 and of 5 channels are equally many: it must not add its input.
        (
            "InvertedResidualBlock",
            (16, 6, 5, 3, 1, None, "relu", 1),
            {"before": 6, "x/x_conv1": 2, "x/x_conv3": 5},
        ),
        (
            "InvertedResidualBlock",
            (40, 6, 6, 3, 2, 0.6, "hard_swish", 1),
            {
                "before": 6,
                "x/x_conv1": 5,
                "x/x_se/x_se_conv_reduce": 3,
                "x/x_conv3": 6,
            },
        ),
        (
            "InvertedResidualBlock",
            (16, 6, 5, 3, 1, None, "softmax", 1),
            {"before": 6, "x/x_conv3": 5},
        ),
    ],
)
def test_blocks_of_mobilenets(hub, name, arguments, expected):
    block = find_class(_MOBILENET, name)
    check_rule(lambda: block(*arguments, name="x"), expected)


def test_a_block_with_an_unknown_layer_inside_stays(hub):
    inputs = keras.Input((4, 4, 3))
    block = find_class(_MOBILENET, "ConvBnActBlock")(4, "relu", name="x")
    block.activation_layer = layers.Lambda(lambda x: x - keras.ops.max(x))
    x = block(layers.Dense(6, name="before")(inputs))
    plan = find_channels(keras.Model(inputs, layers.Dense(2, name="after")(x)))
    assert plan.groups == ()
    assert {f.path: f.kind for f in plan.fixed}["before"] == "unknown"


def resnet(backbones):
    return backbones.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 6],  # it insists on the 64s
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(16, 16, 3),
    )


def mobilenet(backbones):
    return backbones.MobileNetBackbone(
        stackwise_expansion=[[16, 40], [24]],
        stackwise_num_blocks=[2, 1],
        stackwise_num_filters=[[16, 16], [24]],
        stackwise_kernel_size=[[3, 3], [5]],
        stackwise_num_strides=[[2, 1], [1]],
        stackwise_se_ratio=[[None, 0.5], [0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish"]],
        stackwise_padding=[[1, 1], [2]],
        output_num_filters=32,
        depthwise_filters=8,
        depthwise_stride=1,
        depthwise_residual=False,
        last_layer_filter=32,
        squeeze_and_excite=0.5,
        image_shape=(16, 16, 3),
    )


def vit(backbones):
    return backbones.ViTBackbone(
        image_shape=(8, 8, 3),
        patch_size=4,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=12,
    )


def bert(backbones):
    return backbones.BertBackbone(
        vocabulary_size=7,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=12,
        max_sequence_length=5,
        num_segments=5,
    )


def with_head(backbone):
    given = {
        x.name: keras.Input(x.shape[1:], dtype=x.dtype, name=x.name)
        for x in backbone.inputs
    }
    inputs = given if len(given) > 1 else next(iter(given.values()))
    outputs = backbone(inputs)
    x = outputs["pooled_output"] if isinstance(outputs, dict) else outputs
    if len(x.shape) > 2:
        # Over all axes of images and of patches.
        x = layers.Reshape((-1, x.shape[-1]))(x)
        x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


# A part of the names of the groups, and what at most must be left of the weights.
@pytest.mark.parametrize(
    ("make", "named", "left"),
    [
        (resnet, "/stack0_block0_1_conv", 0.5),
        pytest.param(
            *(mobilenet, "/block_1_0/block_1_0_conv1", 0.6), marks=pytest.mark.slow
        ),
        (vit, "/mlp/dense_1", 0.9),
        (bert, "/feedforward_intermediate_dense", 0.9),
    ],
)
def test_backbones_compute_the_same_when_stripped(hub, make, named, left):
    model = randomize(with_head(make(hub.models)))
    pruned = prune_model(model, 0.5, "channel", allocation="uniform")
    groups = parts.channel_groups(pruned)
    assert any(named in group.label for group in groups)
    assert all(group.removable for group in groups)
    models.set_zeros(pruned)
    stripped = strip_pruning(pruned)
    assert stripped.count_params() <= left * model.count_params()
    first, second = (inputs_for(model, seed=seed) for seed in (1, 2))
    (expected,), (other,), (got,) = (
        run(pruned, first),
        run(pruned, second),
        run(stripped, first),
    )
    scale = np.abs(expected).max()
    assert np.abs(got - expected).max() <= 1e-4 * scale
    # Were the outputs to stand still, they would agree for that reason.
    assert np.abs(other - expected).max() >= 1e-2 * scale


def test_a_loaded_block_is_stripped(hub, tmp_path):
    """Its constructor adds to its name, which loading therefore changes."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, name="stem")(inputs)
    x = find_class(_MOBILENET, "DepthwiseConvBlock")(8, 6, name="block")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = randomize(keras.Model(inputs, layers.Dense(2, name="head")(x)))
    pruned = prune_model(model, 0.5, "channel")
    models.set_zeros(pruned)
    pruned.save(tmp_path / "pruned.keras")
    loaded = keras.saving.load_model(tmp_path / "pruned.keras", compile=False)
    given = inputs_for(model)
    (expected,) = run(pruned, given)
    for stripped in map(strip_pruning, (pruned, loaded)):
        assert stripped.count_params() < model.count_params()
        np.testing.assert_allclose(run(stripped, given)[0], expected, atol=1e-5)
