"""One network pruned in every way whose training steps are compared.

Keras 3 models, dense and pruned by PDP, and by the PDP of PQuantML if it is asked
for (the extra `peers`); and those of tf_keras, dense and pruned by TFMOT.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import common  # before Keras: it quiets TensorFlow

# TFMOT asks for it; Keras 3 is imported by its own name and does not care.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import keras
import numpy as np
from training_networks import Network

import pdp_keras

# By name, what makes a model that is ready to train; the dense one comes first.
Variants = dict[str, Callable[[], Any]]

SPARSITY = 0.85
MODES = ["unstructured", "2:4", "channel"]
# Batches of one `predict`.
PREDICTED = 64


def keras_variants(
    network: Network, modes: list[str], peers: list[str], jit_compile: bool
) -> Variants:
    """Dense, PDP in these modes, and PQuantML if it is among the peers.

    Attention is not exchanged for PQuantML's, so that it is left out there.
    """

    def make(prune: Callable[[Any], Any]) -> Any:
        return _compiled(keras, prune(network.build(keras)), jit_compile)

    ways: dict[str, Callable[[Any], Any]] = {"dense": lambda model: model}
    ways |= {f"PDP {mode}": lambda model, m=mode: _by_pdp(model, m) for mode in modes}
    if "pquant" in peers and not network.has_attention:
        ways["PQuantML PDP"] = _by_pquant
    return {name: lambda way=way: make(way) for name, way in ways.items()}


def tf_keras_variants(network: Network, jit_compile: bool) -> Variants:
    """Dense, and TFMOT with masks made anew every step and every 100 steps."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    def make(frequency: int | None) -> Any:
        model = network.build(tf_keras)
        if frequency is not None:
            schedule = tfmot.sparsity.keras.ConstantSparsity(
                SPARSITY, begin_step=0, frequency=frequency
            )
            model = tfmot.sparsity.keras.prune_low_magnitude(model, schedule)
        return _compiled(tf_keras, model, jit_compile)

    names = {"tf_keras dense": None, "TFMOT, every step": 1, "TFMOT, every 100": 100}
    return {name: lambda every=every: make(every) for name, every in names.items()}


def _by_pdp(model: Any, mode: str) -> Any:
    given = {} if ":" in mode else {"sparsity": SPARSITY}
    return common.prune_now(pdp_keras.prune_model(model, mode=mode, **given))


def _by_pquant(model: Any) -> Any:
    """Pruned to the full sparsity, without quantization.

    Its own conversion knows only chains of layers, so that each layer is exchanged
    here for the one that it would take.
    """
    import pquant
    from pquant.core.keras import layers

    config = pquant.pdp_config()
    config.pruning_parameters.sparsity = SPARSITY
    config.pruning_parameters.epsilon = 1.0  # all of it from the first epoch
    config.quantization_parameters.enable_quantization = False
    config.quantization_parameters.quantize_input = False
    convolution = ("kernel_size", "strides", "padding", "use_bias")
    counterparts: dict[type, tuple[Any, tuple[str, ...]]] = {
        keras.layers.Dense: (layers.PQDense, ("units", "use_bias")),
        keras.layers.Conv2D: (layers.PQConv2d, ("filters", *convolution)),
        keras.layers.DepthwiseConv2D: (layers.PQDepthwiseConv2d, convolution),
    }

    def exchange(layer: Any) -> Any:
        given = layer.get_config()
        if type(layer) not in counterparts:
            return type(layer).from_config(given)
        kind, names = counterparts[type(layer)]
        return kind(config, **{name: given[name] for name in names})

    pruned = keras.models.clone_model(model, clone_function=exchange)
    layers.post_pretrain_functions(pruned, config)
    layers.pre_epoch_functions(pruned, 0, 1)
    return pruned


def _compiled(library: Any, model: Any, jit_compile: bool) -> Any:
    model.compile(
        library.optimizers.SGD(0.01, momentum=0.9),
        library.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile,
    )
    return model


def stepper(model: Any, network: Network) -> Callable[[], None]:
    """A function that trains one step on one random batch, and waits for its end."""
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_stepper(model, network)
    inputs, labels = map(keras.ops.convert_to_tensor, network.data())

    def step() -> None:
        float(model.train_on_batch(inputs, labels))

    return step


def _tensorflow_stepper(model: Any, network: Network) -> Callable[[], None]:
    """Without the overhead of `fit`, for Keras 3 and for tf_keras."""
    import tensorflow as tf

    data = tf.data.Dataset.from_tensors(network.data()).cache().repeat()
    batches = iter(data)
    train = model.make_train_function() or model.train_function
    counters = [
        layer.pruning_step
        for layer in model._flatten_layers()
        if hasattr(layer, "pruning_step")
    ]

    def step() -> None:
        logs = train(batches)
        for counter in counters:  # what TFMOT's UpdatePruningStep does
            counter.assign_add(1)
        float(tf.reduce_sum(next(iter(logs.values()))))

    for counter in counters:
        counter.assign(0)
    return step


def predictor(model: Any, network: Network) -> Callable[[], None]:
    """A function that runs `predict` on many batches, after some steps of training."""
    train = stepper(model, network)
    for _ in range(10):
        train()
    inputs, _ = network.data()
    rows = np.concatenate([inputs] * PREDICTED)
    return lambda: model.predict(rows, batch_size=len(inputs), verbose=0)
