"""One training of the accuracy comparison, from its description to its figures."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import re
import time
import warnings
from typing import Any

import common  # before the others: it finds the examples and quiets TensorFlow
import keras
import numpy as np
from accuracy_gradients import OtherGradientPDP
from accuracy_networks import TASKS as IMAGE_TASKS
from accuracy_networks import Task
from accuracy_text import TASKS as TEXT_TASKS

import pdp_keras
from pdp_keras import methods
from pdp_keras.methods.base import Method

TASKS = IMAGE_TASKS | TEXT_TASKS
# The networks that teach. What is missing there is made.
_TEACHERS = pathlib.Path("pdp_output/text_accuracy")


@dataclasses.dataclass(frozen=True)
class Training:
    """What is trained; all of it is in the results file.

    Attributes:
        network: a key of `TASKS`.
        optimizer: `"sgd"` (with momentum) or `"adam"`; `"adamw"`, with warm-up, for
            texts.
        structure: a sparsity in percent such as `"98"`, N:M such as `"2:4"`, or
            `"channel"`: half of the multiplications.
        method: as for `prune_model`; `"dense"` for none, `"tfmot"` for the magnitude
            pruning of tensorflow-model-optimization in `tf_keras`.
        seed: of the weights and of the batches.
        epochs: of the whole training; 0 for the task's.
        images: training images (or texts); 0 for the task's.
        arguments: of the method.
        prune: of `prune_model`; `factor` for a `RelativeTemperature`, a dict as
            allocation for `GlobalMagnitude`.
        warmup, ramp: parts of the training.
        schedule: of `PDPScheduleCallback`.
        pretraining: the part of the training that is dense, before a model that learns
            from it by distillation is pruned.
        rate: times the learning rate of the task.
        weight_decay: of the optimizer, for all variables, pruned or not.
        l2: what a regularizer adds for the squares of kernels.
    """

    network: str
    structure: str
    method: str
    optimizer: str = "sgd"
    seed: int = 0
    epochs: int = 0
    images: int = 0
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    prune: dict[str, Any] = dataclasses.field(default_factory=dict)
    warmup: float = 0.1
    ramp: float = 0.5
    schedule: dict[str, Any] = dataclasses.field(default_factory=dict)
    pretraining: float = 0.0
    rate: float = 1.0
    weight_decay: float = 0.0
    l2: float = 0.0

    @property
    def task(self) -> Task:
        """The network with what it is trained with."""
        task = TASKS[self.network]
        return dataclasses.replace(
            task, epochs=self.epochs or task.epochs, images=self.images or task.images
        )


def build(training: Training) -> keras.Model:
    """The network, with the regularizer of its kernels."""
    model = training.task.build(keras)
    if not training.l2:
        return model

    def regularized(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        for name in ("kernel_regularizer", "depthwise_regularizer"):
            if name in config:
                config[name] = keras.regularizers.L2(training.l2)
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=regularized)


def optimizer_of(network: str, wanted: str) -> str:
    """The optimizer that is wanted; where a network has no rate for it, its own."""
    known = list(TASKS[network].learning_rates)
    return wanted if wanted in known else known[0]


def prune_arguments(training: Training) -> dict[str, Any]:
    """What `prune_model` gets, but for the method."""
    arguments = {**training.task.prune, **training.prune}
    if "factor" in arguments:
        factor = arguments.pop("factor")
        arguments["temperature"] = pdp_keras.RelativeTemperature(factor)
    if isinstance(arguments.get("allocation"), dict):
        arguments["allocation"] = pdp_keras.GlobalMagnitude(**arguments["allocation"])
    if training.structure == "channel":
        arguments |= {"mode": "channel", "allocation": "uniform"}
        arguments.setdefault("sparsity", training.task.channel_sparsity)
    elif ":" in training.structure:
        arguments["mode"] = training.structure
    else:
        arguments["sparsity"] = float(training.structure) / 100
    return arguments


def prune(model: keras.Model, training: Training) -> keras.Model:
    """The model, pruned as described."""
    if training.method == OtherGradientPDP.name:
        method: Method = OtherGradientPDP(**training.arguments)
    else:
        method = methods.deserialize({"name": training.method, **training.arguments})
    return pdp_keras.prune_model(model, method=method, **prune_arguments(training))


def compile_for(
    model: Any, training: Training, epochs: float, keras: Any = keras
) -> None:
    """Compiles with the task's optimizer and a cosine over so many epochs."""
    task = training.task
    steps = math.ceil(epochs * task.steps_per_epoch)
    rate = keras.optimizers.schedules.CosineDecay(
        training.rate * task.learning_rates[training.optimizer], steps
    )
    decay = training.weight_decay or None
    optimizers = {
        "sgd": lambda: keras.optimizers.SGD(rate, 0.9, weight_decay=decay),
        "adam": lambda: keras.optimizers.Adam(rate, weight_decay=decay),
        "adamw": lambda: _adamw(training.rate * task.learning_rates["adamw"], steps),
    }
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers[training.optimizer](), loss, metrics=["accuracy"])


def train(
    training: Training, data: Any, keep: pathlib.Path | None = None
) -> dict[str, Any]:
    """Trains once; the figures of the stripped model.

    Args:
        training: what.
        data: that of its task.
        keep: a file for the stripped model.
    """
    task = training.task
    epochs = task.epochs
    x, y = _first(data.x_train, task.images), data.y_train[: task.images]

    def fit(model: keras.Model, epochs: int, callbacks: Any = ()) -> Any:
        keras.utils.set_random_seed(training.seed)  # The same batches for everyone.
        return model.fit(
            x,
            y,
            batch_size=task.batch_size,
            epochs=epochs,
            callbacks=list(callbacks),
            verbose=0,
        )

    keras.utils.set_random_seed(training.seed)
    teacher = load_teacher(training) if task.teacher else None
    model = build(training)
    before, start = common.process_megabytes("VmRSS"), time.perf_counter()
    dense_epochs = round(training.pretraining * epochs)
    if dense_epochs:
        compile_for(model, training, dense_epochs)
        fit(model, dense_epochs)
    if training.method == "dense":
        learner = _distilled(teacher, model) if teacher else model
        compile_for(learner, training, epochs)
        history = fit(learner, epochs)
    else:
        left = epochs - dense_epochs
        pruned = prune(model, training)
        teacher = model if dense_epochs else teacher
        learner = _distilled(teacher, pruned) if teacher else pruned
        compile_for(learner, training, left)
        callback = pdp_keras.PDPScheduleCallback(
            warmup_epochs=training.warmup * left,
            ramp_epochs=training.ramp * left,
            **training.schedule,
        )
        history = fit(learner, left, [callback])
        with warnings.catch_warnings():
            # A learned sparsity may miss its target; the figures say so.
            warnings.filterwarnings("ignore", message=".*before they have reached")
            model = pdp_keras.strip_pruning(pruned)
    seconds = time.perf_counter() - start
    if keep is not None:
        model.save(keep)
    return {
        **_describe(model, data, task.part),
        "loss": history.history["loss"][-1],
        "macs": pdp_keras.count_macs(model),
        "seconds": seconds,
        "megabytes": common.process_megabytes("VmHWM") - before,
    }


def _first(inputs: Any, count: int) -> Any:
    """The first examples of an array, or of a dict of arrays."""
    return keras.tree.map_structure(lambda values: values[:count], inputs)


def sparsity(model: Any, part: str = "") -> float:
    """The fraction of zeros of the trained kernels whose path has this part."""
    kernels = [
        keras.ops.convert_to_numpy(v)
        for v in model.trainable_variables
        if len(v.shape) > 1 and re.search(part, v.path)
    ]
    zeros = sum(np.count_nonzero(kernel == 0) for kernel in kernels)
    return zeros / sum(kernel.size for kernel in kernels)


def _describe(model: Any, data: Any, part: str = "") -> dict[str, float]:
    return {
        "validation": common.accuracy(model, data.x_val, data.y_val),
        "test": common.accuracy(model, data.x_test, data.y_test),
        "sparsity": sparsity(model, part),
    }


def train_with_tfmot(training: Training, data: Any) -> dict[str, Any]:
    """The same with TFMOT: each kernel by itself, on its own cubic schedule."""
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    sparse = tfmot.sparsity.keras
    task = training.task
    steps = task.epochs * task.steps_per_epoch
    tf_keras.utils.set_random_seed(training.seed)
    model = task.build(tf_keras)
    before, start = common.process_megabytes("VmRSS"), time.perf_counter()
    schedule = sparse.PolynomialDecay(
        0.0,
        float(training.structure) / 100,
        round(training.warmup * steps),
        round((training.warmup + training.ramp) * steps),
        frequency=training.arguments.get("frequency", 100),
    )
    model = sparse.prune_low_magnitude(model, schedule)
    compile_for(model, training, task.epochs, tf_keras)
    history = model.fit(
        data.x_train[: task.images],
        data.y_train[: task.images],
        batch_size=task.batch_size,
        epochs=task.epochs,
        callbacks=[sparse.UpdatePruningStep()],
        verbose=0,
    )
    model = sparse.strip_pruning(model)
    seconds = time.perf_counter() - start
    return {
        **_describe(model, data),
        "loss": history.history["loss"][-1],
        "macs": math.nan,
        "seconds": seconds,
        "megabytes": common.process_megabytes("VmHWM") - before,
    }


def _distilled(teacher: keras.Model, student: keras.Model) -> keras.Model:
    return keras.distillation.Distiller(
        teacher=teacher,
        student=student,
        # An object: by its default, a name, Keras 3.15 compares logits as if they were
        # probabilities.
        distillation_losses=keras.distillation.LogitsDistillation(
            temperature=2.0, loss=keras.losses.KLDivergence()
        ),
        student_loss_weight=0.5,
    )


def load_teacher(training: Training) -> keras.Model:
    """The dense network that teaches a task, of seed 0; trained if it is missing."""
    name = training.task.teacher
    file = _TEACHERS / f"teacher_{name}.keras"
    if not file.exists():
        dense = Training(name, "dense", "dense", optimizer=training.optimizer)
        # Another process may be making it, too.
        unfinished = file.with_name(f"{os.getpid()}_{file.name}")
        train(dense, dense.task.load(), unfinished)
        unfinished.replace(file)
    return keras.models.load_model(file)


def _adamw(learning_rate: float, steps: int) -> keras.optimizers.Optimizer:
    import text_bert  # it wants keras_hub, which images do without

    return text_bert.new_optimizer(learning_rate, steps)


def run(training: Training) -> dict[str, float]:
    """The figures of one training, in a process that has just begun."""
    trainer = train_with_tfmot if training.method == "tfmot" else train
    return trainer(training, training.task.load())
