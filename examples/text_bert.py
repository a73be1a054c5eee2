"""A small BERT: its tokens, its pretraining by masked words, and a classifier on it.

All layers are keras_hub's, the tokenizer is that of `tokenizers`. A folder keeps what
pretraining made, by seed, and what is there is not made again.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import time
from typing import Any

import keras
import keras_hub
import numpy as np
import tokenizers
from text_data import Examples
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

LENGTHS = {False: 32, True: 48}
"""Tokens of a single text and of a pair; 99 of 100 glosses have up to 40 tokens."""

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The first tokens of the vocabulary; their ids are their places here."""

_MASKED = 0.15  # of the tokens, as in BERT


@dataclasses.dataclass(frozen=True)
class Size:
    """What a BERT consists of, and how long it is pretrained."""

    vocabulary: int = 8000
    layers: int = 4
    width: int = 128
    heads: int = 4
    pretrain_epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-3


QUICK = Size(vocabulary=500, layers=2, width=32, heads=2, pretrain_epochs=1)
"""A BERT for trying out the script; it learns next to nothing."""


def new_optimizer(learning_rate: float, steps: int) -> keras.optimizers.Optimizer:
    """AdamW whose rate rises for a tenth of the steps and then falls to 0."""
    warm_up = max(1, steps // 10)
    optimizer = keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(
            0.0,
            max(1, steps - warm_up),
            warmup_target=learning_rate,
            warmup_steps=warm_up,
        ),
        weight_decay=0.01,
        clipnorm=1.0,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


# Tokens.


def train_tokenizer(texts: list[str], vocabulary: int) -> tokenizers.Tokenizer:
    """A tokenizer for lower-cased pieces of words, as BERT's."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, SPECIAL.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def tokenize(
    tokenizer: tokenizers.Tokenizer,
    first: list[str],
    second: list[str] | None,
    length: int | None = None,
) -> dict[str, np.ndarray]:
    """Texts, or pairs of them, as inputs of a BERT: int32, `(examples, length)`.

    Without a length it is that of `LENGTHS`.
    """
    length = length or LENGTHS[second is not None]
    tokenizer.enable_padding(length=length)
    tokenizer.enable_truncation(length)
    texts = first if second is None else list(zip(first, second, strict=True))
    encoded = tokenizer.encode_batch(texts)
    return {
        "token_ids": np.array([x.ids for x in encoded], np.int32),
        "segment_ids": np.array([x.type_ids for x in encoded], np.int32),
        "padding_mask": np.array([x.attention_mask for x in encoded], np.int32),
    }


# Pretraining.


class MaskedTexts(keras.utils.PyDataset):
    """Batches in which some tokens are hidden, others in every epoch.

    Args:
        inputs: of a BERT, as `tokenize` makes them.
        vocabulary: how many tokens there are.
        batch_size: examples a batch; what is left over waits for the next epoch.
        seed: of the order.
    """

    def __init__(
        self, inputs: dict[str, np.ndarray], vocabulary: int, batch_size: int, seed: int
    ) -> None:
        super().__init__()
        self.inputs, self.batch_size = inputs, batch_size
        self.random = np.random.default_rng(seed)
        self.most = round(_MASKED * inputs["token_ids"].shape[1])
        self.masker = keras_hub.layers.MaskedLMMaskGenerator(
            vocabulary_size=vocabulary,
            mask_selection_rate=_MASKED,
            mask_selection_length=self.most,
            mask_token_id=SPECIAL.index("[MASK]"),
            unselectable_token_ids=list(range(len(SPECIAL))),
        )
        self.on_epoch_end()

    def __len__(self) -> int:
        return max(1, len(self.inputs["token_ids"]) // self.batch_size)

    def __getitem__(self, i: int) -> tuple[dict[str, Any], Any, Any]:
        rows = self.order[i * self.batch_size : (i + 1) * self.batch_size]
        batch = {name: values[rows] for name, values in self.inputs.items()}
        masked = {
            name: keras.ops.convert_to_numpy(value)
            for name, value in self.masker(batch["token_ids"]).items()
        }
        batch["token_ids"] = masked["token_ids"].astype("int32")
        batch["mask_positions"] = masked["mask_positions"].astype("int32")
        return batch, masked["mask_ids"].astype("int32"), masked["mask_weights"]

    def on_epoch_end(self) -> None:
        """Called by Keras."""
        self.order = self.random.permutation(len(self.inputs["token_ids"]))


def new_backbone(size: Size) -> keras.Model:
    """A BERT with random weights."""
    return keras_hub.models.BertBackbone(
        vocabulary_size=size.vocabulary,
        num_layers=size.layers,
        num_heads=size.heads,
        hidden_dim=size.width,
        intermediate_dim=4 * size.width,
        max_sequence_length=max(LENGTHS.values()),
    )


def masked_language_model(backbone: keras.Model) -> keras.Model:
    """The BERT with a head that guesses the hidden tokens, on the same weights."""
    positions = keras.Input((None,), dtype="int32", name="mask_positions")
    head = keras_hub.layers.MaskedLMHead(
        token_embedding=backbone.token_embedding, intermediate_activation="gelu"
    )
    outputs = head(backbone.output["sequence_output"], positions)
    return keras.Model({**backbone.input, "mask_positions": positions}, outputs)


def pretrained(
    texts: list[str], size: Size, seed: int, folder: pathlib.Path
) -> tuple[tokenizers.Tokenizer, keras.Model]:
    """A tokenizer and a BERT that has read the texts; made now, or read from a folder.

    Neighbouring texts make a pair, so that all positions and both segments are met.

    Raises:
        ValueError: if the folder has a BERT of another size.
    """
    # Another seed splits the texts otherwise: its BERT has read what is tested here.
    names = f"tokenizer_{seed}.json", f"pretrained_{seed}.keras"
    files = [folder / name for name in names]
    if all(file.exists() for file in files):
        tokenizer = tokenizers.Tokenizer.from_file(str(files[0]))
        backbone = keras.models.load_model(files[1])
        if (backbone.hidden_dim, backbone.num_layers) != (size.width, size.layers):
            raise ValueError(
                f"The folder must have a BERT of {size.layers} layers, {size.width} "
                "wide, or none. "
                f"Received: {backbone.num_layers} layers, {backbone.hidden_dim} wide, "
                f"folder={str(folder)!r}"
            )
        print(f"pretrained: {files[1]}")
        return tokenizer, backbone
    tokenizer = train_tokenizer(texts, size.vocabulary)
    size = dataclasses.replace(size, vocabulary=tokenizer.get_vocab_size())
    held = len(texts) // 50 * 2
    backbone = new_backbone(size)
    model = masked_language_model(backbone)
    train, held_out = (
        MaskedTexts(
            tokenize(tokenizer, part[0::2], part[1::2]),
            size.vocabulary,
            size.batch_size,
            seed,
        )
        for part in (texts[held : len(texts) // 2 * 2], texts[:held])
    )
    model.compile(
        new_optimizer(size.learning_rate, size.pretrain_epochs * len(train)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
    )
    start = time.perf_counter()
    history = model.fit(
        train,
        epochs=size.pretrain_epochs,
        validation_data=held_out,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: print(
                    f"  epoch {epoch + 1:3d}/{size.pretrain_epochs}   "
                    f"loss {logs['loss']:.3f}   hidden words guessed: training "
                    f"{logs['accuracy']:.2%}, others {logs['val_accuracy']:.2%}   "
                    f"{time.perf_counter() - start:.0f} s",
                    flush=True,
                )
            )
        ],
    )
    tokenizer.save(str(files[0]))
    backbone.save(files[1])
    figures = {
        "size": dataclasses.asdict(size),
        "parameters": backbone.count_params(),
        "seconds": time.perf_counter() - start,
        "history": history.history,
    }
    (folder / f"pretraining_{seed}.json").write_text(
        json.dumps(figures, indent=2) + "\n"
    )
    return tokenizer, backbone


# Fine-tuning.


def new_classifier(backbone: keras.Model, classes: int, length: int) -> keras.Model:
    """A BERT with a Dense head on its first token; logits."""
    names = ("token_ids", "segment_ids", "padding_mask")
    inputs = {name: keras.Input((length,), dtype="int32", name=name) for name in names}
    x = backbone(inputs)["pooled_output"]
    x = keras.layers.Dropout(0.1, name="dropout")(x)
    outputs = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name="classifier")


def inputs_of(
    tokenizer: tokenizers.Tokenizer, examples: Examples
) -> dict[str, np.ndarray]:
    """The examples as inputs of a classifier."""
    return tokenize(tokenizer, examples.first, examples.second)


def steps_in(examples: Examples, batch_size: int) -> int:
    """How many steps an epoch has."""
    return math.ceil(len(examples) / batch_size)
