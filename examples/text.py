"""Text classification with a small BERT: pretrained here, pruned while it is tuned.

    python examples/text.py --baseline                  # what a linear model does
    python examples/text.py --quick                     # a tiny BERT, to see it work
    python examples/text.py --task=glosses              # 40 minutes on one core
    python examples/text.py --task=pairs --sparsity=0.8
    python examples/text.py --task=pairs --mode=2:4 --method=sr_ste

No download: the texts are WordNet's (Debian: `apt-get install wordnet-base`). A BERT
learns to guess hidden words of the training texts; from it a dense and a pruned
classifier are tuned alike, and exported. The test split is used once, at the end.
`--output_dir` gets the pretrained BERT, from which the next run of any task starts, and
for each task a folder with the stripped classifier (`.keras`), the exported files
(`.tflite`) and all figures (`results.json`).

A step takes TensorFlow and JAX about the same time on a CPU, and files are exported on
TensorFlow, so that is what the script wants.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

# TensorFlow reports its start-up on the console unless told not to beforehand.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import text_baseline
import text_bert
import text_data
import training
from absl import app, flags
from training import Recipe, heading

import pdp_keras

for name in ("sparsity", "epochs", "seed", "output_dir"):
    flags.declare_key_flag(name)

_TASK = flags.DEFINE_enum("task", "glosses", text_data.TASKS, "What is learned.")
_TEXT_DIR = flags.DEFINE_string(
    "text_dir", None, "Folder of WordNet's files. Default: Debian's."
)
_MODE = flags.DEFINE_string("mode", "unstructured", "As for prune_model.")
_METHOD = flags.DEFINE_string("method", "pdp", "As for prune_model.")
_PRETRAIN_EPOCHS = flags.DEFINE_integer(
    "pretrain_epochs", None, "Default: 5, or 1 with --quick.", lower_bound=1
)
_BASELINE = flags.DEFINE_bool(
    "baseline", False, "Only a linear model of single words, without a network."
)
_QUICK = flags.DEFINE_bool("quick", False, "A tiny BERT and few texts.")

RECIPES = {
    "glosses": Recipe(3, 1, 1, batch_size=32, learning_rate=5e-4),
    "pairs": Recipe(3, 1, 1, batch_size=32, learning_rate=5e-4),
    "mnli": Recipe(4, 1, 2, batch_size=32, learning_rate=2e-4),
}
_QUICK_RECIPE = Recipe(8, 1, 3, batch_size=32, learning_rate=3e-3)
_QUICK_TEXTS = 1000
_ENCODER = "transformer_layer.*"
_FILE_TEXTS = 256  # run with each .tflite file


def recipe_from_flags() -> Recipe:
    """The task's recipe; with other epochs, in the same proportions."""
    recipe = _QUICK_RECIPE if _QUICK.value else RECIPES[_TASK.value]
    if training.EPOCHS.value is None:
        return recipe
    part = training.EPOCHS.value / recipe.epochs
    return dataclasses.replace(
        recipe,
        epochs=training.EPOCHS.value,
        warmup_epochs=round(part * recipe.warmup_epochs),
        ramp_epochs=max(1, round(part * recipe.ramp_epochs)),
    )


def size_from_flags() -> text_bert.Size:
    """The BERT to pretrain."""
    size = text_bert.QUICK if _QUICK.value else text_bert.Size()
    epochs = _PRETRAIN_EPOCHS.value or size.pretrain_epochs
    return dataclasses.replace(size, pretrain_epochs=epochs)


def load_texts() -> text_data.TextData:
    """The task's data; with `--quick` the first examples of each split."""
    folder = None if _TASK.value == "mnli" else _TEXT_DIR.value
    data = text_data.load(_TASK.value, folder, seed=training.SEED.value)
    if not _QUICK.value:
        return data

    def first(examples: text_data.Examples) -> text_data.Examples:
        second = examples.second and examples.second[:_QUICK_TEXTS]
        labels = examples.labels[:_QUICK_TEXTS]
        return text_data.Examples(examples.first[:_QUICK_TEXTS], second, labels)

    splits = {name: first(getattr(data, name)) for name in text_data.SPLITS}
    return dataclasses.replace(data, **splits)


def tune(
    model: keras.Model,
    inputs: dict[str, Any],
    data: text_data.TextData,
    recipe: Recipe,
    *callbacks: Any,
) -> dict[str, list[float]]:
    """Trains a classifier; returns its history."""
    keras.utils.set_random_seed(training.SEED.value)
    steps = recipe.epochs * text_bert.steps_in(data.train, recipe.batch_size)
    model.compile(
        text_bert.new_optimizer(recipe.learning_rate, steps),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        inputs["train"],
        data.train.labels,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        validation_data=(inputs["val"], data.val.labels),
        callbacks=[*callbacks, training.EpochLine()],
        verbose=0,
    )
    return history.history


def test_accuracy(model: keras.Model, inputs: Any, labels: np.ndarray) -> float:
    """The fraction of test examples that a Keras model gets right."""
    logits = model.predict(inputs, batch_size=256, verbose=0)
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def file_accuracy(path: pathlib.Path, inputs: Any, labels: np.ndarray) -> float:
    """The fraction of examples that a .tflite file of batch 1 gets right."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner()
    correct = 0
    for i, label in enumerate(labels):
        (logits,) = runner(**{k: v[i : i + 1] for k, v in inputs.items()}).values()
        correct += int(np.argmax(logits) == label)
    return correct / len(labels)


def export_and_test(
    model: keras.Model, path: pathlib.Path, inputs: dict[str, Any], labels: np.ndarray
) -> dict[str, Any]:
    """Writes a .tflite file and tests it; the row of the results."""
    some = {name: values[:64] for name, values in inputs["train"].items()}
    report = pdp_keras.export_tflite(model, path, representative_dataset=some)
    tested = {name: values[:_FILE_TEXTS] for name, values in inputs["test"].items()}
    return {
        "file": path.name,
        "size_bytes": report.size_bytes,
        "gzip_bytes": report.gzip_bytes,
        "sparse_encoding": report.sparse_encoding,
        "relative_difference": report.relative_difference,
        "file_accuracy": file_accuracy(path, tested, labels[:_FILE_TEXTS]),
        "keras_accuracy": test_accuracy(model, tested, labels[:_FILE_TEXTS]),
    }


def print_baseline(data: text_data.TextData) -> dict[str, float]:
    """Prints and returns what a linear model reaches."""
    heading("Linear model of single words: test accuracy")
    found = text_baseline.accuracies(data)
    for name, accuracy in found.items():
        print(f"  {name:<28}{accuracy:>8.2%}")
    return found


def print_summary(accuracy: dict[str, float], files: list[dict[str, Any]]) -> None:
    """The final tables."""
    heading("BERT: test accuracy")
    for name, value in accuracy.items():
        print(f"  {name:<28}{value:>8.2%}")
    heading(f"Files, and the first {_FILE_TEXTS} test examples")
    print(f"  {'file':<18}{'KiB':>9}{'KiB gzip':>10}{'LiteRT':>10}{'Keras':>10}")
    for row in files:
        print(
            f"  {row['file']:<18}{row['size_bytes'] / 1024:>9.0f}"
            f"{row['gzip_bytes'] / 1024:>10.0f}{row['file_accuracy']:>10.2%}"
            f"{row['keras_accuracy']:>10.2%}"
        )


def new_classifiers(
    backbone: keras.Model, data: text_data.TextData
) -> dict[str, keras.Model]:
    """A dense and a pruned classifier with the same weights.

    Only the encoder is pruned. A row of the embedding is a word, which few texts
    train, and the head is small.
    """
    keras.utils.set_random_seed(training.SEED.value)
    length = text_bert.LENGTHS[data.train.second is not None]
    dense = text_bert.new_classifier(backbone, len(data.classes), length)
    pruned = pdp_keras.prune_model(
        dense,
        training.SPARSITY.value,
        mode=_MODE.value,
        method=_METHOD.value,
        filters=_ENCODER,
    )
    return {"dense": dense, "pruned": pruned}


def run() -> None:
    """Everything from the flags to the files."""
    backend = keras.backend.backend()
    if backend != "tensorflow" and not _BASELINE.value:
        raise ValueError(
            "The files are exported on the TensorFlow backend: KERAS_BACKEND must be "
            f"tensorflow. Received: backend={backend}"
        )
    data = load_texts()
    print(
        f"{data.name}: {len(data.train):,} training, {len(data.val):,} validation and "
        f"{len(data.test):,} test examples, {len(data.classes)} classes"
    )
    if _BASELINE.value:
        print_baseline(data)
        return
    seed, size, recipe = training.SEED.value, size_from_flags(), recipe_from_flags()
    given = training.OUTPUT_DIR.value or "pdp_output/text" + "_quick" * _QUICK.value
    folder = pathlib.Path(given).expanduser()
    results_folder = folder / data.name
    results_folder.mkdir(parents=True, exist_ok=True)
    heading("Pretraining")
    keras.utils.set_random_seed(seed)
    texts = text_data.training_glosses(_TEXT_DIR.value, seed=seed)
    if _QUICK.value:
        texts = texts[: 2 * _QUICK_TEXTS]
    tokenizer, backbone = text_bert.pretrained(texts, size, seed, folder)
    classifiers = new_classifiers(backbone, data)
    schedule = training.new_schedule(recipe)
    # A wrong flag stops the run now, and not after the dense training.
    schedule.start(classifiers["pruned"], epochs=recipe.epochs)
    inputs = {
        name: text_bert.inputs_of(tokenizer, getattr(data, name))
        for name in text_data.SPLITS
    }
    history = {}
    for name, model in classifiers.items():
        heading(f"{name.capitalize()}, {recipe.epochs} epochs")
        callbacks = [training.new_schedule(recipe)] if name == "pruned" else []
        history[name] = tune(model, inputs, data, recipe, *callbacks)
    report = pdp_keras.sparsity_report(classifiers["pruned"])
    print(f"\n{report}")
    small = pdp_keras.strip_pruning(classifiers["pruned"])
    small.save(results_folder / "pruned.keras")

    # From here on the test data is used, and nothing is decided any more.
    models = {"dense": classifiers["dense"], "pruned": small}
    labels = data.test.labels
    accuracy = {"largest class": text_baseline.largest_class(data)}
    accuracy |= {
        name: test_accuracy(model, inputs["test"], labels)
        for name, model in models.items()
    }
    files = [
        export_and_test(model, results_folder / f"{name}.tflite", inputs, labels)
        for name, model in models.items()
    ]
    print_summary(accuracy, files)
    results = {
        "task": data.name,
        "recipe": dataclasses.asdict(recipe),
        "mode": _MODE.value,
        "method": _METHOD.value,
        "test_accuracy": accuracy,
        "files": files,
        "history": history,
        "report": report.to_dict(),
    }
    training.write_results(results_folder, results)
    print(f"\nResults and models: {results_folder.resolve()}")


def main(argv: list[str]) -> None:
    """Everything, from the command line."""
    training.run_script(argv, run)


if __name__ == "__main__":
    app.run(main)
