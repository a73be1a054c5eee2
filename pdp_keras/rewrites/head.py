"""`pool_to_vectors`: a classifier of 1x1 convolutions becomes one of Dense layers.

Some networks pool to (batch, 1, 1, channels) and classify with 1x1 convolutions. On
one position a 1x1 convolution is a Dense layer. XNNPACK's sparse path takes them for
part of the image, and then returns garbage; see `xnnpack`.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from pdp_keras.rewrites.graph_copy import (
    Arrays,
    Call,
    Config,
    Copies,
    Graph,
    Tensors,
    flattened,
    is_of_keras,
    rebuilt,
)

# Layers that do the same to (batch, channels) as to (batch, 1, 1, channels).
_SAME_ON_VECTORS = (
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.ELU,
    layers.Dropout,
    layers.Identity,
    layers.Dense,
)
_FLATTENING = (layers.Flatten, layers.Reshape)


def pool_to_vectors(model: Any) -> Any:
    """A model whose pooled head works on vectors.

    Rewritten is what follows a GlobalAveragePooling2D or GlobalMaxPooling2D with
    `keepdims=True`, or one with a Reshape to (1, 1, channels) behind it, if that is
    1x1 convolutions and layers for each number alone up to a Flatten, a Reshape or an
    output of the model. (A squeeze-and-excitation block is not: it goes back to the
    image.)

    Args:
        model: a built Sequential or Functional model; not changed.

    Returns:
        A Functional model without nested ones that computes the same, outputs of
        shape (batch, 1, 1, channels) included.

    Raises:
        ValueError: if the model has no graph.
    """
    graph = Graph(flattened(model))
    copies = Copies(graph)
    heads = [head for call in graph.calls if (head := _find_head(graph, call))]
    inside = {id(call) for head in heads for call in head}
    # The old model's tensors that are vectors in the new one.
    vectors: set[int] = set()

    def emit(call: Call, tensors: Tensors) -> Any:
        if id(call) not in inside:
            return call.applied(copies.of(call.operation), tensors)
        vectors.update(id(x) for x in call.outputs)
        layer = call.operation
        x = tensors[id(call.inputs[0])]
        if _is_pooling(layer):
            return copies.of(layer, _without_dims)(x)
        if isinstance(layer, layers.Reshape) and len(call.inputs[0].shape) == 2:
            return x
        if isinstance(layer, layers.Flatten):
            return x
        if isinstance(layer, layers.Conv2D):
            return copies.of(layer, _dense_config, _as_matrix, cls=layers.Dense)(x)
        return call.applied(copies.of(layer), tensors)

    def finish(old: Any, new: Any) -> Any:
        if id(old) not in vectors or len(new.shape) == len(old.shape):
            return new
        return layers.Reshape(old.shape[1:], name=copies.new_name("unpooled"))(new)

    return rebuilt(graph, emit, copies, finish=finish)


def _find_head(graph: Graph, call: Call) -> list[Call] | None:
    """The calls of a head that starts with this one; None if there is no such."""
    if not graph.is_called_once(call):
        return None
    pools = _is_pooling(call.operation) and call.operation.keepdims
    if not (pools or _is_unpooling(graph, call)):
        return None
    head = [call]
    waiting = list(call.outputs)
    while waiting:
        for reader in graph.readers(waiting.pop()):
            if not graph.is_called_once(reader) or not _fits(reader):
                return None
            head.append(reader)
            if not isinstance(reader.operation, _FLATTENING):
                waiting += reader.outputs
    return head if any(_is_pointwise(c.operation) for c in head) else None


def _is_pooling(layer: Any) -> bool:
    kinds = (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
    return type(layer) in kinds and layer.data_format == "channels_last"


def _is_unpooling(graph: Graph, call: Call) -> bool:
    """Whether a call only gives pooled vectors the shape of an image."""
    if type(call.operation) is not layers.Reshape:
        return False
    before, after = call.inputs[0], call.outputs[0]
    producer = graph.producer(before)
    return (
        producer is not None
        and _is_pooling(producer.operation)
        and len(before.shape) == 2
        and tuple(after.shape[1:]) == (1, 1, before.shape[-1])
    )


def _is_pointwise(layer: Any) -> bool:
    return type(layer) is layers.Conv2D and (
        layer.kernel_size == (1, 1)
        and layer.groups == 1
        and layer.data_format == "channels_last"
    )


def _fits(call: Call) -> bool:
    layer = call.operation
    if type(layer) in _FLATTENING:
        return len(call.outputs[0].shape) == 2
    if not is_of_keras(getattr(layer, "activation", keras.activations.linear)):
        return False
    return type(layer) in _SAME_ON_VECTORS or _is_pointwise(layer)


def _without_dims(config: Config) -> Config:
    return {**config, "keepdims": False}


_DENSE_KEYS = ("name", "trainable", "dtype", "activation", "use_bias")


def _dense_config(config: Config) -> Config:
    return {key: config[key] for key in _DENSE_KEYS} | {"units": config["filters"]}


def _as_matrix(values: Arrays) -> Arrays:
    return [values[0][0, 0], *values[1:]]
