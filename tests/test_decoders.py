"""Causal language models of keras_hub: pruned, trained, generating, stripped, saved.

Their classes have constructors of their own and call layers past the graph, so a copy
must be of the class, and its attributes must hold the wrappers.
"""

import warnings

import keras
import numpy as np
import pytest

import pdp_keras

VOCABULARY = 16
SHAPE = {"vocabulary_size": VOCABULARY, "num_layers": 2, "intermediate_dim": 16}
GROUPED = {"num_query_heads": 4, "num_key_value_heads": 2}
BACKBONES = {
    "Gemma": {**SHAPE, **GROUPED, "hidden_dim": 8, "head_dim": 4},
    "Llama": {**SHAPE, **GROUPED, "hidden_dim": 16, "tie_word_embeddings": True},
    "Mistral": {**SHAPE, **GROUPED, "hidden_dim": 16},
    "GPT2": {**SHAPE, "num_heads": 2, "hidden_dim": 8, "max_sequence_length": 8},
}
SLOW = pytest.mark.slow
FAMILIES = [
    "Gemma",
    *(pytest.param(n, marks=SLOW) for n in ("Llama", "Mistral", "GPT2")),
]
TOKENS = np.random.default_rng(0).integers(1, VOCABULARY, size=(8, 6))
INPUTS = {"token_ids": TOKENS, "padding_mask": np.ones_like(TOKENS)}


@pytest.fixture
def hub():
    # Not when the tests are collected: it takes ten seconds.
    return pytest.importorskip("keras_hub")


def causal_lm(hub, family):
    backbone = getattr(hub.models, f"{family}Backbone")(**BACKBONES[family])
    model = getattr(hub.models, f"{family}CausalLM")(backbone, preprocessor=None)
    generator = np.random.default_rng(1)
    for variable in model.trainable_variables:  # far from where it predicts one token
        variable.assign(variable + generator.normal(size=variable.shape) * 0.3)
    return compiled(model)


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, sampler="greedy")
    return model


def train(model):
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=1, ramp_epochs=1)
    arguments = {"epochs": 2, "batch_size": 4, "verbose": 0, "callbacks": [schedule]}
    return model.fit(INPUTS, TOKENS, **arguments)


def logits(model):
    return keras.ops.convert_to_numpy(model(INPUTS, training=False))


def generated(model):
    prompt = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 6, 0, 0, 0]])
    inputs = {"token_ids": prompt, "padding_mask": (prompt > 0).astype("int32")}
    return model.generate(inputs, stop_token_ids=None)["token_ids"].tolist()


def reloaded(model, path):
    model.save(path)
    with warnings.catch_warnings():
        # Keras says of every such model that its `compile` is not called.
        warnings.simplefilter("ignore", UserWarning)
        return compiled(keras.models.load_model(path))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("mode", "sparsity"),
    [("unstructured", 0.75), pytest.param("2:4", 0.5, marks=SLOW)],
)
def test_the_whole_life(hub, family, mode, sparsity, tmp_path):
    model = causal_lm(hub, family)
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    pruned = compiled(pdp_keras.prune_model(model, sparsity, mode))
    assert isinstance(pruned, type(model))
    np.testing.assert_array_equal(logits(pruned), logits(model))
    # Compiled before anything is pruned, and used again when all is.
    assert generated(pruned) == generated(model)
    history = train(pruned)
    assert history.history["sparsity"][-1] == pytest.approx(sparsity, abs=0.01)
    np.testing.assert_equal(
        [keras.ops.convert_to_numpy(v) for v in model.variables], before
    )

    stripped = compiled(pdp_keras.strip_pruning(pruned))
    assert type(stripped) is type(model)
    assert type(stripped.backbone) is type(model.backbone)
    zeros = pdp_keras.sparsity_report(pruned).zeros
    assert pdp_keras.sparsity_report(stripped).zeros == zeros > 0
    np.testing.assert_allclose(logits(stripped), logits(pruned), atol=1e-5)
    assert generated(stripped) == generated(pruned)

    loaded = reloaded(pruned, tmp_path / "pruned.keras")
    np.testing.assert_allclose(logits(loaded), logits(pruned), atol=1e-5)
    assert generated(loaded) == generated(pruned)
    again = pdp_keras.strip_pruning(loaded)
    np.testing.assert_allclose(logits(again), logits(pruned), atol=1e-5)
    if family != "Llama":  # keras_hub forgets to save that the embeddings are tied
        plain = reloaded(stripped, tmp_path / "plain.keras")
        assert type(plain) is type(model)
        np.testing.assert_allclose(logits(plain), logits(pruned), atol=1e-5)


CHANNELS = {
    # Two of four heads (a key with its two queries) of two blocks, and half of 8 units.
    "Gemma": (744, {"intermediate_dim": 8, "num_query_heads": 2}),
    "Llama": (2640, {"intermediate_dim": 8, "num_query_heads": 4}),
    "Mistral": (2896, {"intermediate_dim": 8, "num_query_heads": 4}),
    "GPT2": (1136, {"intermediate_dim": 8}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_channels_are_removed(hub, family, tmp_path):
    """Gate and up projection together; heads where the class can say how many."""
    model = causal_lm(hub, family)
    pruned = compiled(pdp_keras.prune_model(model, mode="channel"))
    assert generated(pruned) == generated(model)
    train(pruned)
    small = compiled(pdp_keras.strip_pruning(pruned))
    assert type(small) is type(model)
    parameters, arguments = CHANNELS[family]
    assert small.count_params() == parameters < model.count_params()
    assert {name: getattr(small.backbone, name) for name in arguments} == arguments
    np.testing.assert_allclose(logits(small), logits(pruned), atol=1e-5)
    assert generated(small) == generated(pruned)
    loaded = reloaded(pruned, tmp_path / "pruned.keras")
    np.testing.assert_allclose(logits(loaded), logits(pruned), atol=1e-5)
    if family != "Llama":  # keras_hub forgets to save that the embeddings are tied
        plain = reloaded(small, tmp_path / "plain.keras")
        assert generated(plain) == generated(pruned)


def test_unequally_wide_layers_are_of_no_class(hub):
    model = causal_lm(hub, "Gemma")
    arguments = {"allocation": lambda weights, _: [0.25, 0.75], "filters": ".*ffw.*"}
    pruned = compiled(pdp_keras.prune_model(model, mode="channel", **arguments))
    train(pruned)
    with pytest.warns(UserWarning, match="not to a GemmaCausalLM with its methods"):
        small = pdp_keras.strip_pruning(pruned)
    assert not hasattr(small, "generate")
    np.testing.assert_allclose(logits(small), logits(pruned), atol=1e-4)


def test_generation_sees_the_masks_of_now(hub):
    """One compiled function of `generate` for all sparsities."""
    pruned = compiled(pdp_keras.prune_model(causal_lm(hub, "Gemma"), 0.9))
    first = generated(pruned)
    function = pruned.generate_function
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=0, ramp_epochs=1)
    schedule.start(pruned, epochs=2)
    schedule.start_epoch(1)
    assert generated(pruned) == generated(compiled(pdp_keras.strip_pruning(pruned)))
    assert generated(pruned) != first
    assert pruned.generate_function is function


def test_tied_embeddings_are_pruned_once(hub):
    """As a table and, transposed, as the output layer: by the same zeros."""
    model = causal_lm(hub, "Gemma")
    pruned = compiled(pdp_keras.prune_model(model, 0.5, filters="token_embedding"))
    rows = pdp_keras.sparsity_report(pruned).rows
    assert [row.layer for row in rows] == ["gemma_backbone/token_embedding"]
    train(pruned)
    wrapper = pruned.backbone.token_embedding
    assert wrapper in pruned.layers and isinstance(wrapper, pdp_keras.PDPWrapper)
    looked_up = keras.ops.convert_to_numpy(wrapper(np.arange(VOCABULARY)))
    read = keras.ops.convert_to_numpy(wrapper(np.eye(8, dtype="float32"), reverse=True))
    np.testing.assert_array_equal(read.T, looked_up)
    assert np.count_nonzero(looked_up == 0) == VOCABULARY * 8 // 2


def test_layers_are_found_where_the_class_looks_for_them(hub):
    pruned = pdp_keras.prune_model(causal_lm(hub, "Gemma"), 0.5)
    backbone = pruned.backbone
    held = [backbone.token_embedding, *backbone.transformer_layers]
    assert all(isinstance(layer, pdp_keras.PDPWrapper) for layer in held)
    assert [any(layer is x for x in backbone.layers) for layer in held] == [True] * 3
    # What `layer.output` gives is of the graph with the wrappers.
    features = keras.Model(backbone.inputs, held[1].output)
    assert features(INPUTS).shape == (8, 6, 8)
