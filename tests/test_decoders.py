"""Causal language models of keras_hub: pruned, trained, generating, stripped, saved.

Their classes have constructors of their own and call layers past the graph, so a copy
must be of the class, and its attributes must hold the wrappers.
"""

import copy
import pickle

import keras
import models
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


# So says Keras of every such model that it loads or copies, pruned or not.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`compile\\(\\)` was not called"),
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer"),
]


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


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def logits(model):
    return keras.ops.convert_to_numpy(model(INPUTS, training=False))


def generated(model):
    prompt = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 6, 0, 0, 0]])
    inputs = {"token_ids": prompt, "padding_mask": (prompt > 0).astype("int32")}
    return model.generate(inputs, stop_token_ids=None)["token_ids"].tolist()


def reloaded(model, path):
    model.save(path)
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
    stripped.save_weights(tmp_path / "plain.weights.h5")
    if family == "Llama":  # keras_hub forgets to save that the embeddings are tied
        plain = causal_lm(hub, family)
        plain.load_weights(tmp_path / "plain.weights.h5")
    else:
        plain = reloaded(stripped, tmp_path / "plain.keras")
    assert type(plain) is type(model)
    np.testing.assert_allclose(logits(plain), logits(pruned), atol=1e-5)


CHANNELS = {
    # Two of four heads (a key with its two queries) of two blocks, and half of 8 units.
    "Gemma": (744, {"intermediate_dim": 8, "num_query_heads": 2, "head_dim": 4}),
    "Llama": (2640, {"intermediate_dim": 8, "num_query_heads": 4}),
    "Mistral": (2128, {"intermediate_dim": 8, "num_query_heads": 2, "head_dim": 4}),
    "GPT2": (1136, {"intermediate_dim": 8, "num_heads": 2}),
}


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=SLOW) for family in CHANNELS]
)
def test_channels_are_removed(hub, family, tmp_path):
    """Gate and up projection together; heads where the class can say how large."""
    model = causal_lm(hub, family)
    pruned = compiled(pdp_keras.prune_model(model, mode="channel"))
    assert generated(pruned) == generated(model)
    train(pruned)
    small = compiled(pdp_keras.strip_pruning(pruned))
    assert type(small) is type(model)
    assert type(small.backbone) is type(model.backbone)
    parameters, arguments = CHANNELS[family]
    assert small.count_params() == parameters < model.count_params()
    assert {name: getattr(small.backbone, name) for name in arguments} == arguments
    np.testing.assert_allclose(logits(small), logits(pruned), atol=1e-5)
    assert generated(small) == generated(pruned)
    loaded = reloaded(pruned, tmp_path / "pruned.keras")
    np.testing.assert_allclose(logits(loaded), logits(pruned), atol=1e-5)
    if family != "Llama":  # see below
        plain = reloaded(small, tmp_path / "plain.keras")
        assert generated(plain) == generated(pruned)


def test_the_report_says_what_is_kept_and_why(hub):
    pruned = pdp_keras.prune_model(causal_lm(hub, "Llama"), mode="channel")
    block = "llama_backbone/transformer_layer_0"
    report = pdp_keras.sparsity_report(pruned)
    reasons = {f"{row.layer}/{row.weight}": row.reason for row in report.skipped}
    for name in ("query", "key", "value"):
        assert reasons[f"{block}/self_attention/{name}/kernel"] == (
            "'transformer_layer_0' (LlamaTransformerDecoder) has no argument for the "
            "size of a head: fewer heads would be larger ones"
        )
    assert reasons[f"{block}/self_attention/attention_output/kernel"] == (
        "'transformer_layer_0' (LlamaTransformerDecoder) adds to them in a residual "
        "stream of its own"
    )
    assert reasons[f"{block}/feedforward_layernorm/scale"] == (
        "normalization: its few weights scale and shift whole channels"
    )


def test_channels_of_a_gemma_in_short(hub):
    model = causal_lm(hub, "Gemma")
    pruned = pdp_keras.prune_model(model, mode="channel")
    models.set_zeros(pruned)
    small = pdp_keras.strip_pruning(pruned)
    assert (type(small), small.count_params()) == (type(model), 744)
    np.testing.assert_allclose(logits(small), logits(pruned), atol=1e-5)


@SLOW
@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_tied_embeddings_of_a_llama_that_keras_hub_forgets(hub, tmp_path):
    """A plain one cannot be loaded again, pruned or not; its weights can.

    (`LlamaBackbone.get_config` of keras_hub 0.32 has no `tie_word_embeddings`.)
    """
    model = causal_lm(hub, "Llama")
    stripped = pdp_keras.strip_pruning(pruned_to_zeros(model))
    loads = []
    for number, plain in enumerate((model, compiled(stripped))):
        try:
            reloaded(plain, tmp_path / f"{number}.keras")
            loads.append(True)
        except ValueError:
            loads.append(False)
    knows = "tie_word_embeddings" in model.backbone.get_config()
    assert loads == [knows, knows]


def pruned_to_zeros(model, mode="unstructured", **arguments):
    pruned = pdp_keras.prune_model(model, mode=mode, **arguments)
    models.set_zeros(pruned)
    return pruned


@pytest.mark.parametrize("mode", ["unstructured", pytest.param("channel", marks=SLOW)])
@pytest.mark.parametrize("make_copy", [copy.deepcopy, pickled])
def test_copies_generate(hub, make_copy, mode):
    pruned = pruned_to_zeros(causal_lm(hub, "Gemma"), mode)
    for model in (pruned, pruned.backbone):  # of the two one has wrappers of its own
        new = make_copy(model)
        np.testing.assert_array_equal(logits(new), logits(model))
    new = make_copy(pruned)
    assert isinstance(new, type(pruned))
    stripped = pdp_keras.strip_pruning(new)
    np.testing.assert_allclose(logits(stripped), logits(pruned), atol=1e-5)


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
