"""What the accuracy comparison fine-tunes: a BERT of the published BERT-Tiny's shape.

Two layers, 128 wide; pretrained here by hidden words on WordNet's glosses (see
`examples/text_bert.py`), and then taught which of 45 topics a gloss belongs to. As in
movement pruning's public code, the embeddings are frozen and the kernels of the encoder
are pruned. Of dropout only that before the head is left: on a processor the random
numbers would take half of the time.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import common  # noqa: F401  # before the others: it finds the examples
import numpy as np
from accuracy_networks import Task

FOLDER = pathlib.Path("pdp_output/text_accuracy")
"""Where the pretrained BERT is, or will be: outside of the repository."""

LENGTH = 24
"""Tokens of a text; the rest of a longer one is cut off."""

_SEED = 0
_LAYERS = "transformer_layer"


@dataclasses.dataclass(frozen=True, eq=False)
class TextArrays:
    """Tokens and topics, split into training, validation and test data.

    Attributes:
        x_train, x_val, x_test: inputs of a BERT, int32 `(examples, LENGTH)` by name.
        y_train, y_val, y_test: int32 `(examples,)`.
        num_classes: how many topics there are.
    """

    x_train: dict[str, np.ndarray]
    y_train: np.ndarray
    x_val: dict[str, np.ndarray]
    y_val: np.ndarray
    x_test: dict[str, np.ndarray]
    y_test: np.ndarray
    num_classes: int


def pretrain() -> None:
    """Makes the tokenizer and the BERT if they are missing, in a quarter of an hour."""
    import text_bert
    import text_data

    FOLDER.mkdir(parents=True, exist_ok=True)
    size = text_bert.Size(layers=2, heads=2, batch_size=64)
    texts = text_data.training_glosses(seed=_SEED)
    text_bert.pretrained(texts, size, _SEED, FOLDER)


@functools.cache
def load_glosses() -> TextArrays:
    """The glosses, by the tokens of the pretrained BERT."""
    import text_bert
    import text_data
    import tokenizers

    file = FOLDER / f"tokenizer_{_SEED}.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    data = text_data.load("glosses", seed=_SEED)
    found: dict[str, Any] = {"num_classes": len(data.classes)}
    for name in text_data.SPLITS:
        examples = getattr(data, name)
        found[f"x_{name}"] = text_bert.tokenize(tokenizer, examples.first, None, LENGTH)
        found[f"y_{name}"] = examples.labels
    return TextArrays(**found)


def build(keras: Any) -> Any:
    """The pretrained BERT with a new head.

    Every model has layers of its own: a teacher and its student share none.
    """
    import keras_hub
    import text_bert

    known = keras.models.load_model(FOLDER / f"pretrained_{_SEED}.keras")
    backbone = keras_hub.models.BertBackbone.from_config(
        {**known.get_config(), "dropout": 0.0}
    )
    backbone.set_weights(known.get_weights())
    for layer in backbone.layers:
        if "embedding" in layer.name:
            layer.trainable = False
    return text_bert.new_classifier(backbone, load_glosses().num_classes, LENGTH)


_GLOSSES = Task(
    build,
    epochs=4,
    images=8_000,
    batch_size=32,
    learning_rates={"adamw": 1e-3},
    channel_sparsity=0.5,
    load=load_glosses,
    preload="accuracy_text_preload",
    prune={"filters": f"{_LAYERS}.*"},
    part=f"{_LAYERS}.*kernel",
)
TASKS = {
    "glosses": _GLOSSES,
    "glosses_distilled": dataclasses.replace(
        _GLOSSES, tuned_as="glosses", teacher="glosses"
    ),
}
