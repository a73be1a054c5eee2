"""`prune_once`: prunes a trained model from a little data, without training."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras.src.trainers.data_adapters import data_adapter_utils
from keras.src.trainers.epoch_iterator import EpochIterator

from pdp_keras import modes
from pdp_keras.layers import MaskedLayer
from pdp_keras.masks import read, require_finite
from pdp_keras.models import (
    Kernel,
    copy_variables,
    find_kernels,
    is_graph,
    make_subclassed_anew,
    rebuild_graph,
    require_built,
    require_float,
    require_matches,
)
from pdp_keras.modes import NM, Mode, Unstructured
from pdp_keras.one_shot import METHODS, Observer, Product, Wanted, product_of


def prune_once(
    model: Any,
    data: Any = None,
    sparsity: float | None = None,
    mode: str | Mode = "unstructured",
    *,
    method: str = "sparsegpt",
    filters: Any = None,
    batch_size: int = 32,
    damping: float = 0.01,
) -> Any:
    """A pruned copy of a trained model, made layer by layer and without training.

    In the order in which the model calls them, each layer is pruned by what it sees of
    the calibration data, which the layers pruned before have computed. Dense,
    EinsumDense, the projections of attention and convolutions are pruned; all other
    weights (embeddings, depthwise and recurrent kernels) stay as they are. Beside the
    model and its copy, memory holds the data and a matrix `(inputs, inputs)` of one
    layer, in float64.

    The result is a plain model. To train on, give it to `prune_model`, which begins
    with the zeros that it finds if the schedule is at its end from the first step on:
    `PDPScheduleCallback(schedule=lambda step: 1.0)`.

    Args:
        model: a built plain Keras model; not changed.
        data: calibration data, as for `model.predict`: an array or a structure of
            arrays, a `tf.data.Dataset`, a PyTorch `DataLoader`, a `PyDataset` or an
            iterator of batches, with or without labels. Some hundred samples are
            usual. `"magnitude"` needs none.
        sparsity: fraction of zeros of each kernel, in [0, 1); follows from N:M.
        mode: `"unstructured"` or N:M such as `"2:4"` (keeps 2 of 4).
        method: `"sparsegpt"` (arXiv:2301.00774) also changes the weights that stay,
            to make up for those that go; `"wanda"` (arXiv:2306.11695) looks at
            `|w| * ||x||`; `"magnitude"` at `|w|`.
        filters: which layers to prune, as for `prune_model`.
        batch_size: samples that are run at once, if `data` are arrays.
        damping: SparseGPT adds so much of the mean of the diagonal of `x.T @ x` to
            it, so that it can be inverted; > 0.

    Returns:
        A model like `model`, not compiled.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: for a pruned, quantized or unbuilt model, settings out of range,
            no data, a layer that the model does not call, or values not finite.

    Example:

    >>> small = pdp_keras.prune_once(model, samples, sparsity=0.5)
    >>> small = pdp_keras.prune_once(model, samples, mode="2:4", method="wanda")
    """
    _check_model(model)
    resolved = _check_mode(mode)
    sparsity = resolved.resolve_sparsity(sparsity)
    if method not in METHODS:
        raise ValueError(
            f"method must be one of {list(METHODS)}. Received: method={method!r}"
        )
    if not (isinstance(damping, int | float) and 0 < damping < np.inf):
        raise ValueError(f"damping must be > 0. Received: damping={damping!r}")
    batches = _batches(data, batch_size, method)
    _choose(model, resolved, filters)
    kernels, _ = find_kernels(model)
    require_finite((kernel.full_name, _value(kernel)) for kernel in kernels)
    copy = _copy(model)
    products = _choose(copy, resolved, filters)
    nm = (resolved.n, resolved.m) if isinstance(resolved, NM) else None
    observer = None
    if method != "magnitude":
        names = {id(p.layer): p.kernel.path for p in products}
        observer = Observer(copy, batches, names)
        places = {id(p.layer): observer.order(p.layer) for p in products}
        products.sort(key=lambda p: places[id(p.layer)])
    for product in products:
        grams = None if observer is None else _grams(product, observer)
        _prune(product, grams, Wanted(sparsity, nm, product.run, damping), method)
    return copy


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model. Received: model={model!r}")
    if any(isinstance(layer, MaskedLayer) for layer in model._flatten_layers()):
        raise ValueError(
            "A model that is being pruned must be stripped first: "
            f"`pdp_keras.strip_pruning(model)`. Received: model={model.name!r}"
        )
    require_built(model)
    require_float(model)


def _check_mode(mode: Any) -> Mode:
    resolved = modes.get(mode)
    if not isinstance(resolved, NM | Unstructured):
        raise ValueError(
            "Without training, mode must be 'unstructured' or N:M; channels and blocks "
            f"are pruned in training, with `prune_model`. Received: mode={mode!r}"
        )
    return resolved


def _choose(model: Any, mode: Mode, filters: Any) -> list[Product]:
    kernels, _ = find_kernels(model)
    found = [product_of(kernel) for kernel in kernels]
    products = [product for product in found if product is not None]
    if not products:
        raise ValueError(
            "The model must have a Dense, EinsumDense, attention or convolution layer. "
            f"Received: model={model.name!r} without any"
        )
    kernels = [product.kernel for product in products]
    require_matches(filters, kernels)
    chosen = modes.choose_kernels(kernels, filters, mode)
    return list(itertools.compress(products, chosen))


def _batches(data: Any, batch_size: int, method: str) -> list[Any]:
    if data is None and method == "magnitude":
        return []
    if data is None:
        raise ValueError(
            f"data must be calibration data for method={method!r}. Received: data=None"
        )
    given = keras.tree.flatten(data)
    if any(getattr(x, "shape", None) and x.shape[0] == 0 for x in given):
        _refuse_empty()
    if isinstance(data, Iterator):
        batches = data
    else:
        iterator = EpochIterator(x=data, batch_size=batch_size, shuffle=False)
        batches = iterator.data_adapter.get_numpy_iterator()
    unpack = data_adapter_utils.unpack_x_y_sample_weight
    found = [unpack(batch)[0] for batch in batches]
    filled = [batch for batch in found if len(keras.tree.flatten(batch)[0])]
    if not filled:
        _refuse_empty()
    return filled


def _refuse_empty() -> None:
    raise ValueError("data must have at least one sample. Received: data without any")


def _copy(model: Any) -> Any:
    if is_graph(model):
        return rebuild_graph(model, lambda old, new: new, copy_variables)
    return make_subclassed_anew(model)


def _grams(product: Product, observer: Observer) -> Any:
    """The sum of `x.T @ x` for each block, `(blocks, inputs, inputs)`, float64."""
    total: Any = 0.0
    for value in observer.inputs(product.layer):
        for rows in product.rows(value):
            rows = rows.astype("float64")
            total = total + rows.transpose(0, 2, 1) @ rows
    return total


def _prune(product: Product, grams: Any, wanted: Wanted, method: str) -> None:
    blocks = product.split(_value(product.kernel).astype("float64"))
    pruned = [
        METHODS[method](block, None if grams is None else grams[i], wanted)
        for i, block in enumerate(blocks)
    ]
    product.kernel.variable.assign(product.join(np.stack(pruned)))


def _value(kernel: Kernel) -> Any:
    return read(keras.ops.cast(kernel.variable, "float32"))
