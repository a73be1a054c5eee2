"""Models of keras_hub that take texts: with a preprocessor, and tasks of a BERT."""

import copy

import keras
import models
import numpy as np
import pytest

import pdp_keras

pytestmark = [
    # The pooled output of a BERT has no part in a masked language model.
    pytest.mark.filterwarnings("ignore:Gradients do not exist for variables .'pooled"),
    # So says Keras of every such model that it loads or copies, pruned or not.
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer"),
    pytest.mark.filterwarnings("ignore:`compile\\(\\)` was not called"),
]
SLOW = pytest.mark.slow
LETTERS = ["\u0120", "a", "b", "c", "d", "ab", "\u0120a", "\u0120b", "\u0120ab", "!"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fox", "dog", "ran", "sat"]
TEXTS = ["fox ran", "dog sat", "fox dog", "sat"] * 2
BERT = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 12}
MODES = ["unstructured", "2:4", "channel"]


@pytest.fixture
def hub():
    # Not when the tests are collected: it takes ten seconds.
    return pytest.importorskip("keras_hub")


def randomized(model):
    generator = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(variable + generator.normal(size=variable.shape) * 0.3)
    return model


def causal_lm(hub):
    vocabulary = {word: i for i, word in enumerate([*LETTERS, "<|endoftext|>"])}
    merges = ["a b", "\u0120 a", "\u0120 b", "\u0120a b"]
    tokenizer = hub.models.GPT2Tokenizer(vocabulary, merges)
    backbone = hub.models.GPT2Backbone(
        vocabulary_size=len(vocabulary), max_sequence_length=8, **BERT
    )
    preprocessor = hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=8)
    model = hub.models.GPT2CausalLM(backbone, preprocessor=preprocessor)
    return randomized(model)


def masked_lm(hub):
    preprocessor = hub.models.BertMaskedLMPreprocessor(
        hub.models.BertTokenizer(WORDS), sequence_length=6, mask_selection_length=2
    )
    return randomized(hub.models.BertMaskedLM(bert(hub), preprocessor=preprocessor))


def classifier(hub):
    preprocessor = hub.models.BertTextClassifierPreprocessor(
        hub.models.BertTokenizer(WORDS), sequence_length=6
    )
    return randomized(
        hub.models.BertTextClassifier(bert(hub), 3, preprocessor=preprocessor)
    )


def bert(hub):
    return hub.models.BertBackbone(
        vocabulary_size=len(WORDS), max_sequence_length=6, **BERT
    )


def compiled(model, **arguments):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss=loss, **arguments)
    return model


def train(model, *data):
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=0, ramp_epochs=1)
    model.fit(*data, batch_size=4, epochs=2, verbose=0, callbacks=[schedule])


def reloaded(model, path):
    model.save(path)
    return keras.models.load_model(path)


@SLOW
@pytest.mark.parametrize("mode", ["unstructured", "channel"])
def test_texts_are_generated_from_texts(hub, mode, tmp_path):
    def generated(model):
        return compiled(model, sampler="greedy").generate(["ab", "a b"], max_length=8)

    model = causal_lm(hub)
    pruned = compiled(pdp_keras.prune_model(model, 0.5, mode), sampler="greedy")
    assert generated(pruned) == generated(model)
    train(pruned, ["ab a b c", "a b d", "a a a", "b c d"] * 2)
    stripped = pdp_keras.strip_pruning(pruned)
    assert type(stripped) is type(model)
    expected = generated(pruned)
    assert all(isinstance(text, str) for text in expected)
    copies = [
        stripped,
        copy.deepcopy(pruned),
        reloaded(pruned, tmp_path / "pruned.keras"),
        reloaded(stripped, tmp_path / "plain.keras"),
    ]
    assert [generated(new) for new in copies] == [expected] * 4


TASKS = {"masked_lm": masked_lm, "classifier": classifier}


@SLOW
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", TASKS)
def test_tasks_of_a_bert(hub, task, mode, tmp_path):
    model = TASKS[task](hub)
    pruned = compiled(pdp_keras.prune_model(model, 0.5, mode))
    inputs = model.preprocessor(TEXTS)
    inputs = inputs[0] if task == "masked_lm" else inputs

    def outputs(model):
        return keras.ops.convert_to_numpy(model(inputs, training=False))

    np.testing.assert_allclose(outputs(pruned), outputs(model), atol=1e-6)
    train(pruned, TEXTS, *([] if task == "masked_lm" else [np.arange(8) % 3]))
    expected = outputs(pruned)
    rows = pdp_keras.sparsity_report(pruned).rows
    assert len({(row.layer, row.weight) for row in rows}) == len(rows)
    stripped = pdp_keras.strip_pruning(pruned)
    assert type(stripped) is type(model)
    copies = [
        stripped,
        copy.deepcopy(pruned),
        reloaded(pruned, tmp_path / "pruned.keras"),
        reloaded(stripped, tmp_path / "plain.keras"),
    ]
    for new in copies:
        assert new.preprocessor is not None
        np.testing.assert_allclose(outputs(new), expected, atol=1e-5)
    if mode == "channel":
        assert stripped.backbone.intermediate_dim == 6


def test_the_head_of_a_masked_language_model_reads_the_pruned_embedding(hub):
    pruned = pdp_keras.prune_model(masked_lm(hub), 0.5)
    models.set_zeros(pruned)
    head = pruned.masked_lm_head
    assert isinstance(head, pdp_keras.PDPWrapper)
    assert head.token_embedding is pruned.backbone.token_embedding
    rows = [row.layer for row in pdp_keras.sparsity_report(pruned).rows]
    assert rows.count("bert_backbone/token_embedding") == 1
    assert rows[-1] == "mlm_head/intermediate_dense"


@pytest.mark.parametrize(
    "allocation", ["erk", "global", pytest.param("lamp", marks=SLOW)]
)
def test_a_masked_language_model_stays_equally_wide(hub, allocation):
    with pytest.raises(ValueError, match=r"share weights.*class BertMaskedLM"):
        pdp_keras.prune_model(masked_lm(hub), mode="channel", allocation=allocation)


def test_a_clone_by_keras_unties_embeddings_pruned_or_not(hub):
    """`clone_model` makes the layers of the outer graph one by one."""
    for model in (masked_lm(hub), pdp_keras.prune_model(masked_lm(hub), 0.5)):
        new = keras.models.clone_model(model)
        assert type(new) is not type(model)
        assert len(new.trainable_variables) == len(model.trainable_variables) + 1
