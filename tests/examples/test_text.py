"""The small BERT, the linear model beside it, and the script from end to end."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from wordnet_files import write_tree

import pdp_keras

pytest.importorskip("keras_hub")
pytest.importorskip("tokenizers")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))
text = importlib.import_module("text")
text_baseline = importlib.import_module("text_baseline")
text_bert = importlib.import_module("text_bert")
text_data = importlib.import_module("text_data")

CORPUS = ["a red bird sings", "a blue bird flies", "a red stone lies", "blue stones"]
TINY = text_bert.Size(
    vocabulary=60, layers=1, width=8, heads=2, pretrain_epochs=1, batch_size=8
)


def examples(first, second, labels):
    return text_data.Examples(first, second, np.array(labels, np.int32))


def test_tokens_of_texts_and_pairs():
    tokenizer = text_bert.train_tokenizer(CORPUS * 9, 60)
    assert [tokenizer.id_to_token(i) for i in range(5)] == list(text_bert.SPECIAL)
    single = text_bert.tokenize(tokenizer, ["A RED bird", "?"], None)
    words = [tokenizer.id_to_token(i) for i in single["token_ids"][0][:6]]
    assert words == ["[CLS]", "a", "red", "bird", "[SEP]", "[PAD]"]
    assert list(single["token_ids"][1][:4]) == [2, 1, 3, 0]
    assert {v.shape for v in single.values()} == {(2, 32)}
    pair = text_bert.tokenize(tokenizer, ["red"], ["blue bird"])
    words = [tokenizer.id_to_token(i) for i in pair["token_ids"][0][:7]]
    assert words == ["[CLS]", "red", "[SEP]", "blue", "bird", "[SEP]", "[PAD]"]
    assert list(pair["segment_ids"][0][:7]) == [0, 0, 0, 1, 1, 1, 0]
    assert list(pair["padding_mask"][0][:7]) == [1, 1, 1, 1, 1, 1, 0]
    assert pair["token_ids"].shape == (1, 48)
    long = text_bert.tokenize(tokenizer, ["red " * 90], ["bird " * 90])
    assert list(long["token_ids"][0]).count(3) == 2  # both ends are still there


def test_masks_hide_words_and_nothing_else():
    ids = np.tile(np.array([2, *range(5, 45), 3, 0, 0], np.int32), (16, 1))
    inputs = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
    texts = text_bert.MaskedTexts(inputs, 60, 16, seed=0)
    batch, targets, weights = texts[0]
    hidden = batch["token_ids"] != ids
    assert 0 < hidden.sum() <= (weights == 1).sum()
    assert not hidden[:, [0, 41, 42, 43]].any()  # [CLS], [SEP] and padding
    assert (batch["token_ids"] == text_bert.SPECIAL.index("[MASK]")).sum() > 16
    at = np.take_along_axis(ids, batch["mask_positions"], axis=1)
    np.testing.assert_array_equal(at[weights == 1], targets[weights == 1])
    again = texts[0][0]["token_ids"]
    assert (again != batch["token_ids"]).any()  # others every time


@pytest.mark.slow
def test_pretraining_is_kept(tmp_path, capsys):
    corpus = CORPUS * 50
    tokenizer, backbone = text_bert.pretrained(corpus, TINY, 0, tmp_path)
    assert "hidden words guessed" in capsys.readouterr().out
    again_tokenizer, again = text_bert.pretrained(corpus, TINY, 0, tmp_path)
    assert "epoch" not in capsys.readouterr().out
    assert again_tokenizer.get_vocab() == tokenizer.get_vocab()
    for one, other in zip(backbone.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    wide = dataclasses.replace(TINY, width=16)
    with pytest.raises(ValueError, match=r"1 layers, 16 wide, or none.*8 wide"):
        text_bert.pretrained(corpus, wide, 0, tmp_path)


def test_both_classifiers_start_from_the_pretrained_bert():
    flags.FLAGS(["text"])
    keras.utils.set_random_seed(1)
    backbone = text_bert.new_backbone(TINY)
    data = text_data.TextData("glosses", ("a", "b"), *[examples(["a"], None, [0])] * 3)
    with flagsaver.flagsaver(sparsity=0.5):
        found = text.new_classifiers(backbone, data)
    inputs = {
        name: np.ones((2, 32), np.int32)
        for name in ("token_ids", "segment_ids", "padding_mask")
    }
    outputs = [model.predict(inputs, verbose=0) for model in found.values()]
    np.testing.assert_array_equal(*outputs)
    table = found["dense"].get_layer(backbone.name).get_layer("token_embedding")
    np.testing.assert_array_equal(
        table.embeddings.numpy(), backbone.token_embedding.embeddings.numpy()
    )
    rows = pdp_keras.sparsity_report(found["pruned"]).rows
    assert len(rows) == 6 and all("transformer_layer_0" in row.layer for row in rows)


def test_the_rate_rises_and_falls():
    optimizer = text_bert.new_optimizer(0.5, steps=100)
    rate = optimizer._learning_rate
    assert [float(rate(n)) for n in (0, 5, 10)] == pytest.approx([0.0, 0.25, 0.5])
    assert float(rate(100)) == pytest.approx(0.0, abs=1e-6)


def test_the_linear_model_reads_one_side_or_both():
    random = np.random.default_rng(0)
    words = random.integers(0, 2, (3, 400, 2))

    def split(values):
        first = [f"red bird{a}" for a, _ in values]
        second = [f"blue bird{b}" for _, b in values]
        return examples(first, second, values[:, 0] == values[:, 1])

    data = text_data.TextData("pairs", ("no", "yes"), *map(split, words))
    found = text_baseline.accuracies(data)
    assert list(found) == [
        "largest class",
        "hypothesis only",
        "premise only",
        "both",
        "both, and what they share",
    ]
    # Whether both texts have the same word, neither tells, nor a sum over both.
    assert all(found[name] < 0.65 for name in list(found)[:4])
    assert found["both, and what they share"] > 0.95


def test_the_linear_model_of_single_texts():
    def split():
        return examples(
            ["red bird", "blue bird", "blue stone"] * 20, None, [0, 1, 1] * 20
        )

    data = text_data.TextData("glosses", ("red", "blue"), split(), split(), split())
    found = text_baseline.accuracies(data)
    assert found == {"largest class": pytest.approx(2 / 3), "words": 1.0}


def run_script(*arguments, **environment):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / "text.py"), *arguments],
        env={
            **os.environ,
            "PYTHONPATH": path,
            "CUDA_VISIBLE_DEVICES": "-1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "arguments", "sparsity"),
    [("glosses", ["--sparsity=0.75"], 0.75), ("pairs", ["--mode=2:4"], 0.5)],
)
def test_the_script(tmp_path, task, arguments, sparsity):
    folder, output = tmp_path / "wordnet", tmp_path / "output"
    folder.mkdir()
    write_tree(folder, 3000)
    common = ["--quick", f"--task={task}", f"--text_dir={folder}", *arguments]
    run = run_script(*common, f"--output_dir={output}")
    assert run.returncode == 0, run.stderr
    results = json.loads((output / task / "results.json").read_text())
    assert results["report"]["sparsity"] == pytest.approx(sparsity, abs=1e-3)
    assert [row["file"] for row in results["files"]] == [
        "dense.tflite",
        "pruned.tflite",
    ]
    for row in results["files"]:
        assert row["relative_difference"] < 1e-4
        assert row["file_accuracy"] == pytest.approx(row["keras_accuracy"], abs=0.01)
    dense, pruned = results["files"]
    assert pruned["gzip_bytes"] < dense["gzip_bytes"]
    assert (output / task / "pruned.keras").exists()
    assert (output / "pretrained_0.keras").exists()
    if task == "glosses":  # the thing is named in the gloss
        assert results["test_accuracy"]["dense"] > 0.5


@pytest.mark.slow
def test_missing_texts_are_an_error_that_helps(tmp_path):
    run = run_script("--baseline", f"--text_dir={tmp_path}")
    assert run.returncode == 1
    assert "apt-get install wordnet-base" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_another_backend_is_refused_before_anything_is_trained(tmp_path):
    run = run_script(f"--output_dir={tmp_path / 'new'}", KERAS_BACKEND="jax")
    assert run.returncode == 1
    assert "must be tensorflow. Received: backend=jax" in run.stderr
    assert not (tmp_path / "new").exists()
