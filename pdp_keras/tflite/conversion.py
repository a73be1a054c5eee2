"""From a Keras model to the bytes of a .tflite file, with TensorFlow's converter.

The route is a traced function and `TFLiteConverter.from_concrete_functions`, with
the variables in a plain `tf.Module`. Given the Keras 3 model itself as the
trackable, the converter leaves every variable uninitialized and reports nothing
(TensorFlow 2.21): the file computes NaN. `from_keras_model` names inputs and
outputs after internals, fails on several inputs, and fixes no batch.
"""

import contextlib
import dataclasses
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from pdp_keras.models import Batch, ModelInput, ModelInputs, unique_names


class ExportError(RuntimeError):
    """The model cannot be converted, or its file does not compute the same.

    Nothing has been written then; a file that was there before still is.

    Example:

    >>> try:
    ...     report = pdp_keras.export_tflite(model, "model.tflite")
    ... except pdp_keras.ExportError as error:
    ...     print(error)
    """


@dataclasses.dataclass(frozen=True)
class Quantization:
    """How the numbers of a file are stored, and how exact it must then be.

    Attributes:
        configure: sets the converter's options; called with TensorFlow, the
            converter, and a callable that yields the calibration batches.
        tolerance: the largest difference from the Keras model that is accepted,
            in units of the output's scale, its largest absolute value; None
            where rounding depends on the model, so that only garbage is refused.
        sparse_tolerance: the same for the sparse-encoded file, compared with the
            dense-encoded one.
        calibrated: whether representative samples are needed.
    """

    configure: Callable[[Any, Any, Callable[[], Iterator[Batch]]], None]
    tolerance: float | None
    sparse_tolerance: float
    calibrated: bool = False


def _float32(tf: Any, converter: Any, calibration: Any) -> None:
    pass


def _float16(tf: Any, converter: Any, calibration: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic(tf: Any, converter: Any, calibration: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _int8(tf: Any, converter: Any, calibration: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    converter.representative_dataset = calibration


QUANTIZATIONS: dict[str | None, Quantization] = {
    None: Quantization(_float32, 1e-4, 1e-4),
    "float16": Quantization(_float16, 1e-2, 1e-4),
    "dynamic": Quantization(_dynamic, None, 1e-3),
    # Two of the output's 256 steps: other kernels may round another way.
    "int8": Quantization(_int8, None, 1e-2, calibrated=True),
}


# From the bytes of a .tflite file to those of another that computes the same.
Edit = Callable[[bytes], bytes]


@dataclasses.dataclass(frozen=True)
class TracedModel:
    """A model as one TensorFlow function of named tensors.

    Attributes:
        function: the `tf.types.experimental.ConcreteFunction`.
        variables: the `tf.Module` that holds what the function reads.
        outputs: the outputs' names, in the order of `keras.tree.flatten`.
        edit: what is done to the bytes of a file made of it; None for nothing.
    """

    function: Any
    variables: Any
    outputs: tuple[str, ...]
    edit: Edit | None = None


def computes_in(model: keras.Model) -> str:
    """The least exact floating-point dtype that a layer of the model computes in."""
    order = ["float32", "float16", "bfloat16"]
    used = {layer.compute_dtype for layer in model._flatten_layers()}
    return max((d for d in order if d in used), key=order.index, default="float32")


def float32_model(model: keras.Model, inputs: ModelInputs) -> keras.Model:
    """The model itself where it computes in float32, else a float32 copy of it.

    LiteRT has no kernels for computing in half precision: that is what the
    storage type "float16" is for. (A `mixed_float16` model keeps its variables in
    float32, so nothing is lost.)

    Raises:
        ExportError: the model cannot be rebuilt from its config.
    """
    if computes_in(model) == "float32":
        return model
    policy = keras.config.dtype_policy()
    # A subclassed model makes its layers anew, under the global policy.
    keras.config.set_dtype_policy("float32")
    try:
        copy = type(model).from_config(_in_float32(model.get_config()))
        if not copy.built:
            copy(inputs.packed({i.name: _zeros(i) for i in inputs.flat}))
        copy.set_weights(model.get_weights())
    except Exception as error:
        raise ExportError(
            "A model that computes in half precision must be rebuilt in float32 "
            "for LiteRT, and this one cannot be rebuilt from its config. Give it a "
            "`get_config`, or build it with the 'float32' policy and copy the "
            f"weights with `set_weights`. Received: model={model.name!r} ({error})"
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)
    return copy


def _zeros(one: ModelInput) -> Any:
    return keras.ops.zeros((1, *one.shape), one.dtype)


def _in_float32(config: Any) -> Any:
    """A config with float32 in place of every dtype policy."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {"name": "float32"}}
        return {key: _in_float32(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_in_float32(value) for value in config)
    return config


def call_unchanged(model: keras.Model, argument: Any) -> Any:
    """Calls the model for inference and leaves its state and losses as they were."""
    # Layers may write in a call: losses, counters, seeds. The scope takes that in.
    with keras.StatelessScope(collect_losses=True):
        return model(argument, training=False)


def traced(
    model: keras.Model,
    inputs: ModelInputs,
    batch_size: int | None,
    edit: Edit | None = None,
) -> TracedModel:
    """Traces the model's inference as a function of named inputs and outputs.

    Args:
        model: a built model that computes in float32.
        inputs: from `model_inputs`.
        batch_size: the fixed batch, or None for any.
        edit: what to do to the bytes of every file made of it.

    Raises:
        ExportError: the model cannot be called on symbolic tensors of that shape.
    """
    import tensorflow as tf

    names: list[str] = []

    def infer(**tensors: Any) -> dict[str, Any]:
        outputs = call_unchanged(model, inputs.packed(tensors))
        names[:] = output_names(model, outputs)
        # An identity each: an output given twice, or an input, keeps its own name.
        flat = [tf.identity(tensor) for tensor in keras.tree.flatten(outputs)]
        return dict(zip(names, flat, strict=True))

    specs = {
        one.name: tf.TensorSpec((batch_size, *one.shape), one.dtype, one.name)
        for one in inputs.flat
    }
    try:
        function = tf.function(infer, autograph=False).get_concrete_function(**specs)
    except Exception as error:
        raise ExportError(
            "The model must be callable on inputs of the exported shapes. "
            f"Received: inputs={specs} ({error})"
        ) from error
    module = tf.Module()
    module.kept = [variable.value for variable in model.variables]
    return TracedModel(function, module, tuple(names), edit)


def output_names(model: keras.Model, outputs: Any) -> list[str]:
    """Names for a call's outputs: dict keys, else the output layers' names."""
    paths = [path for path, _ in keras.tree.flatten_with_path(outputs)]
    given = getattr(model, "output_names", None) or []
    if isinstance(outputs, dict) or len(given) != len(paths):
        given = ["_".join(["output", *map(str, path)]) for path in paths]
        if isinstance(outputs, dict):
            given = [name.removeprefix("output_") for name in given]
    return unique_names(given)


def loops(model: TracedModel) -> bool:
    """Whether the traced model has a loop, as a recurrent layer not unrolled has."""
    graph = model.function.graph.as_graph_def()
    nodes = [
        *graph.node,
        *(node for function in graph.library.function for node in function.node_def),
    ]
    return any(node.op in ("While", "StatelessWhile") for node in nodes)


def tflite_bytes(
    model: TracedModel,
    quantization: Quantization,
    calibration: Sequence[Batch],
    *,
    sparse: bool,
) -> bytes:
    """Converts a traced model.

    Args:
        model: from `traced`.
        quantization: a row of `QUANTIZATIONS`.
        calibration: batches of the exported size; may be empty where the
            quantization is not calibrated.
        sparse: whether to store zeros sparse where the converter can
            (`tf.lite.Optimize.EXPERIMENTAL_SPARSITY`).

    Raises:
        ExportError: LiteRT's built-in operators cannot express the model.
    """
    import tensorflow as tf

    if quantization.calibrated and loops(model):
        # TensorFlow 2.21's calibrator ends the whole process on such a model.
        raise ExportError(
            "A model with a loop (an LSTM, GRU or RNN layer that is not unrolled) "
            "cannot be calibrated for full int8. Build the layer with `unroll=True`, "
            "which has the same weights, or choose another quantization. "
            "Received: quantize='int8'"
        )
    try:
        with quiet():
            converter = tf.lite.TFLiteConverter.from_concrete_functions(
                [model.function], model.variables
            )
            quantization.configure(tf, converter, lambda: iter(calibration))
            if sparse:
                converter.optimizations = [
                    *converter.optimizations,
                    tf.lite.Optimize.EXPERIMENTAL_SPARSITY,
                ]
            data = bytes(converter.convert())
            return model.edit(data) if model.edit else data
    except Exception as error:
        raise ExportError(
            "The model must be expressible in LiteRT's built-in operators, with the "
            "batch and the quantization asked for. (A recurrent layer needs a fixed "
            f"batch.) The converter said: {_first_lines(error)}"
        ) from error


def _first_lines(error: Exception, count: int = 3, width: int = 300) -> str:
    # The converter's messages repeat the whole call stack, line by line.
    lines = [line.strip()[:width] for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: " + "\n".join(lines[:count])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides what the converter and the runtime write to stderr, logs and warnings.

    Most of it is written by C++ straight to the process's stderr, so that is
    redirected too, for all threads, and everything is restored at the end.
    Errors come as exceptions.
    """
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(logging.ERROR)
            stack.callback(logger.setLevel, level)
        with contextlib.suppress(OSError):  # a process may have no stderr
            saved = os.dup(2)
            stack.callback(os.close, saved)
            sink = stack.enter_context(tempfile.TemporaryFile())
            _flush()
            os.dup2(sink.fileno(), 2)
            stack.callback(os.dup2, saved, 2)
            stack.callback(_flush)
        yield


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()
