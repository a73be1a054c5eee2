"""`split_preprocessing`: what a model does to its inputs first, as a model of its own.

Some of it no converter takes (text), some of it devices do better outside (resizing a
camera's image), and what is done before the file is not in the file's time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import layers, tree

from pdp_keras.rewrites.graph_copy import Call, Graph, flattened, input_name, packed

_PREPROCESSING = tuple(
    getattr(layers, name)
    for name in (
        *("Rescaling", "Resizing", "CenterCrop", "Normalization", "Discretization"),
        *("CategoryEncoding", "Hashing", "HashedCrossing", "TextVectorization"),
        *("StringLookup", "IntegerLookup", "MelSpectrogram", "STFTSpectrogram"),
        *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation"),
        *("RandomCrop", "RandomBrightness", "RandomContrast", "RandomHue"),
        *("RandomSaturation", "RandomSharpness", "RandomShear", "RandomErasing"),
        *("RandomColorJitter", "RandomColorDegeneration", "RandomGaussianBlur"),
        *(
            "RandomGrayscale",
            "RandomInvert",
            "RandomPerspective",
            "RandomPosterization",
        ),
        *("AutoContrast", "Equalization", "Solarization", "AugMix", "RandAugment"),
    )
    if hasattr(layers, name)  # the oldest supported Keras lacks some
)


class Split(NamedTuple):
    """A model in two: `model(preprocessing(x))` is what the whole computes.

    Attributes:
        preprocessing: takes the whole's inputs; gives them back if nothing was split.
        model: takes what `preprocessing` returns; its inputs keep their names.
    """

    preprocessing: Any
    model: Any


def split_preprocessing(model: Any) -> Split:
    """Splits off the preprocessing layers that come before everything else.

    Split off are the preprocessing and augmentation layers of Keras, Rescaling,
    Normalization, Resizing, TextVectorization and so on, in a row from an input on,
    nested models included, as long as nothing else reads what is between.

    Args:
        model: a built Sequential or Functional model; not changed.

    Returns:
        A `Split` of two Functional models with their own variables.

    Raises:
        ValueError: if the model has no graph.

    Example:

    >>> before, network = split_preprocessing(model)
    >>> pdp_keras.export_tflite(network, "network.tflite", target="xnnpack")
    """
    whole = flattened(model)
    graph = Graph(whole)
    cuts, moved = [], set()
    for x in whole.inputs:
        while call := _preprocessing_of(graph, x):
            moved.add(id(call))
            (x,) = call.outputs
        cuts.append(x)
    inputs = [
        keras.Input(batch_shape=cut.shape, dtype=cut.dtype, name=input_name(x))
        for x, cut in zip(whole.inputs, cuts, strict=True)
    ]
    tensors = {id(cut): x for cut, x in zip(cuts, inputs, strict=True)}
    for call in graph.calls:
        if id(call) not in moved:
            outputs = tree.flatten(call.applied(call.operation, tensors))
            for x, new in zip(call.outputs, outputs, strict=True):
                tensors[id(x)] = new
    outputs = [tensors[id(x)] for x in whole.outputs]
    return Split(
        keras.Model(
            packed(whole, "_inputs_struct", whole.inputs),
            packed(whole, "_inputs_struct", cuts),
            name=f"{whole.name}_preprocessing",
        ),
        keras.Model(
            packed(whole, "_inputs_struct", inputs),
            packed(whole, "_outputs_struct", outputs),
            name=whole.name,
        ),
    )


def _preprocessing_of(graph: Graph, tensor: Any) -> Call | None:
    """The preprocessing that is all that happens to a tensor, if that is so."""
    call = graph.only_reader(tensor)
    if call is None or not isinstance(call.operation, _PREPROCESSING):
        return None
    fits = len(call.inputs) == len(call.outputs) == 1
    return call if fits and not graph.is_output(call.outputs[0]) else None
