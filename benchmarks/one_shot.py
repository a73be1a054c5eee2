"""`prune_once` on a causal decoder: perplexity at 50 % and 2:4, by method.

    python benchmarks/one_shot.py            # half an hour on one core, mostly training
    python benchmarks/one_shot.py --quick    # to try it out

A small Gemma (rotary attention with one key for all queries, gated feed-forward, tied
embedding) learns WordNet's glosses (Debian: `apt-get install wordnet-base`). It is then
pruned in one shot by each method, everything but its embedding, with training glosses
to calibrate, and reads the test glosses. The trained decoder is kept below
`pdp_output`, figures are added to `--output`; what is there is not made again.
"""

from __future__ import annotations

import json
import pathlib
import time
from typing import Any

import common  # before the others: it finds the examples and quiets TensorFlow
import keras
import numpy as np
import text_bert
import text_data
from absl import app, flags

import pdp_keras

_EPOCHS = flags.DEFINE_integer("epochs", 4, "Of the decoder's training.", 1)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Choices of calibration glosses.", 1)
_SAMPLES = flags.DEFINE_integer("samples", 256, "Calibration sequences.", 1)
_QUICK = flags.DEFINE_bool("quick", False, "A tiny decoder and few glosses.")
_OUTPUT = flags.DEFINE_string(
    "output", "benchmarks/results/one_shot.jsonl", "Results file, added to."
)
_FOLDER = flags.DEFINE_string("folder", "pdp_output/one_shot", "For the decoder.")

_LENGTH = 48
_VOCABULARY = 4000
_SIZE = {"num_layers": 4, "hidden_dim": 128, "intermediate_dim": 512, "head_dim": 32}
_TINY = {"num_layers": 2, "hidden_dim": 32, "intermediate_dim": 64, "head_dim": 8}
_TINY_GLOSSES = 2000
STRUCTURES: dict[str, dict[str, Any]] = {
    "50": {"sparsity": 0.5},
    "2:4": {"mode": "2:4"},
}
METHODS = ("magnitude", "wanda", "sparsegpt")


def sequences(tokenizer: Any, glosses: list[str]) -> np.ndarray:
    """All glosses one after the other, cut into pieces of one length."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokens = np.concatenate([x.ids for x in tokenizer.encode_batch(glosses)])
    count = len(tokens) // (_LENGTH + 1)
    return tokens[: count * (_LENGTH + 1)].reshape(count, -1).astype("int32")


def new_decoder(vocabulary: int) -> keras.Model:
    """A small Gemma with random weights, from tokens to logits of the next ones."""
    from keras_hub import models

    backbone = models.GemmaBackbone(
        vocabulary_size=vocabulary,
        num_query_heads=4,
        num_key_value_heads=1,
        **(_TINY if _QUICK.value else _SIZE),
    )
    return models.GemmaCausalLM(backbone, preprocessor=None)


def inputs_of(rows: np.ndarray) -> dict[str, np.ndarray]:
    """What the decoder reads of sequences: all but their last tokens."""
    tokens = rows[:, :-1]
    return {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}


def perplexity(model: keras.Model, rows: np.ndarray) -> float:
    """Of the next token, over all tokens of the sequences."""
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    logs = model.evaluate(
        inputs_of(rows), rows[:, 1:], batch_size=64, verbose=0, return_dict=True
    )
    return float(np.exp(logs["loss"]))


def trained(rows: np.ndarray, vocabulary: int, path: pathlib.Path) -> keras.Model:
    """The decoder, trained now or read from the folder."""
    if path.exists():
        return keras.models.load_model(path, compile=False)
    keras.utils.set_random_seed(0)
    model = new_decoder(vocabulary)
    steps = _EPOCHS.value * -(-len(rows) // 32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(text_bert.new_optimizer(2e-3, steps), loss)
    model.fit(
        inputs_of(rows),
        rows[:, 1:],
        batch_size=32,
        epochs=_EPOCHS.value,
        verbose=2,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model


def measure(
    model: keras.Model, structure: str, method: str, seed: int, splits: Any
) -> dict[str, Any]:
    """Prunes the decoder once; the row of the results."""
    train, test = splits
    order = np.random.default_rng(seed).permutation(len(train))
    samples = inputs_of(train[order[: _SAMPLES.value]])
    start = time.perf_counter()
    pruned = pdp_keras.prune_once(
        model, samples, method=method, **STRUCTURES[structure]
    )
    seconds = time.perf_counter() - start
    return {
        "structure": structure,
        "method": method,
        "seed": seed,
        "perplexity": perplexity(pruned, test),
        "seconds": seconds,
    }


def print_table(rows: list[dict[str, Any]], dense: float) -> None:
    """A line a method; magnitude looks at no data, so that it has no deviation."""
    print(f"\nPerplexity on test glosses; dense {dense:.2f}")
    print("| | " + " | ".join(STRUCTURES) + " | s |")
    print("| --- |" + " --- |" * (len(STRUCTURES) + 1))
    for method in METHODS:
        mine = [row for row in rows if row["method"] == method]
        cells = [
            common.mean_and_std(
                [row["perplexity"] for row in mine if row["structure"] == structure]
            )
            for structure in STRUCTURES
        ]
        seconds = np.median([row["seconds"] for row in mine])
        print(f"| {method} | " + " | ".join(cells) + f" | {seconds:.1f} |")


def main(argv: list[str]) -> None:
    """Trains, prunes and prints the table."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    output = pathlib.Path(_OUTPUT.value).expanduser()
    folder = pathlib.Path(_FOLDER.value).expanduser()
    if _QUICK.value:
        folder = folder / "quick"
        output = folder / "results.jsonl"
    print(common.describe_machine())
    data = text_data.load("glosses", None, seed=0)
    glosses = {name: getattr(data, name).first for name in text_data.SPLITS}
    if _QUICK.value:
        glosses = {name: texts[:_TINY_GLOSSES] for name, texts in glosses.items()}
    tokenizer = text_bert.train_tokenizer(glosses["train"], _VOCABULARY)
    train, test = (sequences(tokenizer, glosses[name]) for name in ("train", "test"))
    model = trained(train, tokenizer.get_vocab_size(), folder / "decoder.keras")
    dense = perplexity(model, test)
    rows = common.read_rows(output)
    known = {json.dumps([r["structure"], r["method"], r["seed"]]) for r in rows}
    for structure in STRUCTURES:
        for method in METHODS:
            for seed in range(1 if method == "magnitude" else _SEEDS.value):
                if json.dumps([structure, method, seed]) in known:
                    continue
                row = measure(model, structure, method, seed, (train, test))
                common.append_row(output, row)
                rows.append(row)
                print(row, flush=True)
    print_table(rows, dense)


if __name__ == "__main__":
    app.run(main)
