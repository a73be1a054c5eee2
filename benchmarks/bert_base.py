"""A BERT of full size through everything: seconds and memory of each stage.

    python benchmarks/bert_base.py            # minutes, and some GiB of memory
    python benchmarks/bert_base.py --layers=2 # to try it out

keras_hub's BERT-base (12 layers, 768 wide, random weights) is pruned, trained for one
step, saved, loaded, stripped and exported, and the file is compared with the model.
"""

from __future__ import annotations

import contextlib
import pathlib
import resource
import tempfile
import time
from collections.abc import Iterator

import common  # before the others: it quiets TensorFlow
import keras
import numpy as np
from absl import app, flags

import pdp_keras

_LAYERS = flags.DEFINE_integer("layers", 12, "Of the encoder.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 128, "Tokens of a text.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 8, "Texts of the one step.", lower_bound=1)
_MODE = flags.DEFINE_string("mode", "unstructured", "As for prune_model.")
_SPARSITY = flags.DEFINE_float("sparsity", 0.8, "Fraction of zeros.")
_ENCODER = "transformer_layer.*"  # what is pruned
_INPUTS = ("token_ids", "segment_ids", "padding_mask")


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Prints the seconds of what is done inside, and the process's memory so far."""
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    now = common.process_megabytes("VmRSS") * 1e6 / 1024**3
    print(f"  {name:<28}{seconds:>9.1f} s{now:>9.2f} GiB{peak:>9.2f} GiB", flush=True)


def new_model() -> keras.Model:
    """BERT-base with a classifier of two classes on it."""
    from keras_hub import models

    backbone = models.BertBackbone(
        vocabulary_size=30_522,
        num_layers=_LAYERS.value,
        num_heads=12,
        hidden_dim=768,
        intermediate_dim=3072,
    )
    inputs = {
        name: keras.Input((_LENGTH.value,), dtype="int32", name=name)
        for name in _INPUTS
    }
    outputs = keras.layers.Dense(2)(backbone(inputs)["pooled_output"])
    return keras.Model(inputs, outputs, name="bert_base")


def random_texts(count: int) -> dict[str, np.ndarray]:
    """Inputs of random tokens."""
    shape = (count, _LENGTH.value)
    tokens = np.random.default_rng(0).integers(1, 30_522, shape).astype("int32")
    return {
        "token_ids": tokens,
        "segment_ids": np.zeros(shape, "int32"),
        "padding_mask": np.ones(shape, "int32"),
    }


def train_one_step(pruned: keras.Model) -> None:
    """One step at full sparsity."""
    x, y = random_texts(_BATCH.value), np.arange(_BATCH.value) % 2
    pruned.compile(
        keras.optimizers.AdamW(1e-5),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    schedule = pdp_keras.PDPScheduleCallback(warmup_epochs=0, ramp_epochs=1)
    pruned.fit(x, y, batch_size=_BATCH.value, verbose=0, callbacks=[schedule])


def run(folder: pathlib.Path) -> None:
    """All stages, one after the other."""
    keras.utils.set_random_seed(0)
    print(f"{common.describe_machine()}; keras backend {keras.backend.backend()}")
    print(f"  {'stage':<28}{'time':>11}{'memory':>13}{'peak so far':>13}")
    with stage("build"):
        model = new_model()
    texts = random_texts(2)
    with stage("prune_model"):
        pruned = pdp_keras.prune_model(
            model, _SPARSITY.value, mode=_MODE.value, filters=_ENCODER
        )
    del model
    with stage("compile, one step"):
        train_one_step(pruned)
    expected = pruned.predict(texts, verbose=0)
    with stage("save"):
        pruned.save(folder / "pruned.keras")
    del pruned
    with stage("load"):
        loaded = keras.models.load_model(folder / "pruned.keras")
    with stage("strip_pruning"):
        small = pdp_keras.strip_pruning(loaded)
    del loaded
    found = small.predict(texts, verbose=0)
    with stage("export_tflite, compared"):
        report = pdp_keras.export_tflite(
            small, folder / "bert.tflite", representative_dataset=texts
        )
    print(f"stripped and pruned: {common.relative_difference(found, expected):.1e}")
    print(report)


def main(arguments: list[str]) -> None:
    """Everything, from the command line."""
    if len(arguments) > 1:
        raise app.UsageError(f"Unknown arguments: {arguments[1:]}")
    with tempfile.TemporaryDirectory() as folder:
        run(pathlib.Path(folder))


if __name__ == "__main__":
    app.run(main)
