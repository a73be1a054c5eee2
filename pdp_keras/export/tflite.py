"""Export of a plain Keras model to a .tflite file that was run and compared."""

import dataclasses
import gzip
import importlib.metadata
import os
import pathlib
import uuid
import warnings
from typing import Any

import keras
import numpy as np

from pdp_keras.export.arguments import (
    check_accelerator,
    check_model,
    check_options,
    check_packages,
    check_tolerance,
    checked_path,
)
from pdp_keras.export.report import ExportReport, float_weights, weight_zeros
from pdp_keras.models import (
    Array,
    Batch,
    ModelInputs,
    Row,
    batches,
    model_inputs,
    random_rows,
    representative_rows,
)
from pdp_keras.rewrites import Rewritten, fix_sizes, turned_batch
from pdp_keras.targets import TARGETS, DeployCheck, Target, vela
from pdp_keras.tflite import (
    QUANTIZATIONS,
    Difference,
    ExportError,
    Quantization,
    TracedModel,
    better_encoding,
    conversion,
    encoded_model,
    largest_difference,
)

__all__ = ["TARGETS", "ExportError", "ExportReport", "Target", "export_tflite"]

# Enough for calibration, and an endless data set ends.
_MOST_SAMPLES = 256
_VERIFIED_SAMPLES = 8
_RANDOM_SAMPLES = 4
# Below, an index costs more than the zero that it saves.
_FEWEST_ZEROS = 0.2
# Where quantization has no fixed tolerance, an error (root mean square) above this
# part of the output's own is taken for garbage: a constant 0 has 1.
_GARBAGE = 0.5
# The precision that the Keras model itself computes in bounds any comparison.
_MODEL_TOLERANCES = {"float32": 0.0, "float16": 1e-2, "bfloat16": 5e-2}


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    target: str = "generic",
    quantize: str | None = None,
    representative_dataset: Any = None,
    verify: bool = True,
    tolerance: float | None = None,
    batch_size: int | None = 1,
    input_signature: Any = None,
    turn_inputs: bool = True,
    accelerator: str | None = None,
) -> ExportReport:
    """Writes a model as a .tflite file, after running it and comparing the outputs.

    Pruned weights are stored sparse where that makes the file smaller or faster, and
    LiteRT loads it and computes the same as with the densely stored file; otherwise
    they are stored densely (and still compress well). A file is written only when all
    went well, in one step; until then an older file of that name stays.

    Args:
        model: a built Keras 3 model (Functional, Sequential, or subclassed and
            called once) without `PDPWrapper` layers. It is not changed.
        path: the file to write, in an existing folder.
        target: a key of `targets.TARGETS`. "generic" is any device with LiteRT.
            "xnnpack" is LiteRT on the CPU of phones, browsers and Arm Linux: the
            model is rewritten exactly, so that its 1x1 convolutions run sparse;
            float32 or "float16". "xnnpack-arm64" and "xnnpack-wasm" are phones and
            browsers alone: the file is the same, but zeros in blocks are good for the
            first and bad for the second. "ethos-u" is Arm's NPU: "int8", stored
            densely.
        quantize: None stores float32; "float16" stores the weights in float16;
            "dynamic" the large weights in int8, activations stay float;
            "int8" everything in int8, floating-point inputs and outputs included.
        representative_dataset: samples for the calibration of "int8" (required)
            and, with every kind, for the check: an array with the samples along
            the first axis, a dict of such arrays, or an iterable, `tf.data.Dataset`
            or generator function of samples or batches (an array; a list, tuple or
            dict for several inputs; `(x, y)` as for `fit`). At most 256 samples
            are read. Without it the check draws N(0, 1), or valid indices.
        verify: whether to compare the file with the Keras model. A difference
            above 1e-4 (float32) or 1e-2 ("float16") of the output's scale, its
            largest absolute value, is an error. The int8 kinds round as the
            model lets them, so there the difference is only reported, unless the
            error's root mean square exceeds half of the output's.
        tolerance: the largest difference to accept instead, in units of the output's
            scale, positive. A deep network may round to more than 1e-4.
        batch_size: the file's fixed batch, which browsers and NPUs want; None
            leaves it open.
        input_signature: for a model whose input sizes (or, if subclassed, dtypes)
            are not all known: the structure of its input with `keras.InputSpec`
            leaves, batch axis first.
        turn_inputs: for "xnnpack", whose file may compute on images turned by 180
            degrees: True puts the turning into the file, False leaves it to the
            caller, who then gives `image[:, ::-1, ::-1]`. The report says whether
            the file turns at all.
        accelerator: for "ethos-u": the NPU, such as "ethos-u85-256", to compile the
            file for, beside it as `*_vela.tflite`, with figures in the report.

    Returns:
        An `ExportReport`; print it.

    Warns:
        UserWarning: if nothing of the model would run faster on the target than
            without zeros, or its zeros lie so that they are skipped by slow kernels,
            with the reason.

    Raises:
        ValueError, TypeError: an argument breaks a rule stated here.
        FileNotFoundError, IsADirectoryError, PermissionError: `path` cannot be
            written.
        ImportError: `tensorflow` or `ai-edge-litert` is missing, or, with
            `accelerator`, `ethos-u-vela`.
        ExportError: the converter or the runtime refuses the model, or the file
            does not compute what the model computes.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    >>> print(export_tflite(model, "model.tflite", quantize="float16"))

    Reference: https://ai.google.dev/edge/litert (converter options, signatures).
    """
    check_model(model)
    row = check_options(target, quantize, representative_dataset, batch_size)
    check_tolerance(tolerance)
    check_accelerator(target, accelerator)
    path = checked_path(path)
    check_packages()

    kind = QUANTIZATIONS[quantize]
    inputs = model_inputs(model, input_signature)
    samples = []
    if representative_dataset is not None:
        samples = representative_rows(
            representative_dataset, inputs.flat, _MOST_SAMPLES
        )
    form = _form_for(row, model, inputs, turn_inputs)
    check = _check_for(row, model, form)
    trace = conversion.traced(
        conversion.float32_model(form.model, inputs),
        inputs,
        batch_size,
        row.edit,
    )
    calibration = batches(samples, inputs.flat, batch_size or 1)
    checks = _check_batches(model, inputs, samples, batch_size)
    expected = []
    if verify:
        expected = [_keras_outputs(model, inputs, trace, batch) for batch in checks]
    if form.turned and not turn_inputs:
        checks = [turned_batch(batch) for batch in checks]

    dense = encoded_model(trace, kind, calibration, checks, sparse=False)
    chosen, reason = dense, _reason_for_dense(row, model)
    if not reason:
        faster = check is not None and check.runs_sparse
        chosen, reason = better_encoding(
            dense, trace, kind, calibration, checks, faster=faster
        )
    difference = None
    if verify:
        difference = largest_difference(expected, chosen.outputs)
        computes_in = conversion.computes_in(model)
        _check_difference(difference, kind, computes_in, tolerance)
    _warn_if_no_faster(check, chosen is dense, reason)
    files = {path: chosen.data}
    compiled = None
    if accelerator is not None:
        beside = path.with_name(f"{path.stem}_vela.tflite")
        files[beside], compiled = vela.compile_for_ethos_u(chosen.data, accelerator)
        compiled = dataclasses.replace(compiled, path=str(beside))

    report = ExportReport(
        path=str(path),
        target=target,
        quantize=quantize,
        batch_size=batch_size,
        sparse_encoding=chosen is not dense,
        dense_reason=reason,
        size_bytes=len(chosen.data),
        gzip_bytes=len(gzip.compress(chosen.data, mtime=0)),
        dense_encoded_bytes=len(dense.data),
        runtime="ai-edge-litert " + importlib.metadata.version("ai-edge-litert"),
        verified_samples=sum(map(_size, checks)) if verify else 0,
        difference=difference,
        weights=weight_zeros(form.model, chosen.data),
        turned=_turned(form, turn_inputs),
        check=check,
        compiled=compiled,
    )
    for file, data in files.items():
        _write(file, data)
    return report


def _form_for(
    target: Target, model: keras.Model, inputs: ModelInputs, turn_inputs: bool
) -> Rewritten:
    """The form of the model that the target wants; the model itself by default."""
    if target.rewrite is None:
        return Rewritten(model, turned=False)
    try:
        return target.rewrite(fix_sizes(model, inputs), turn_inputs=turn_inputs)
    except ValueError as error:
        raise ExportError(
            "The model must have a graph that can be rewritten for the target. Make "
            "it Sequential or Functional, or export it for 'generic'. "
            f"Received: model={model.name!r} ({error})"
        ) from error


def _check_for(
    target: Target, model: keras.Model, form: Rewritten
) -> DeployCheck | None:
    if target.rewrite is None:
        return None if target is TARGETS["generic"] else target.check(model)
    return target.check(model, form)


def _turned(form: Rewritten, turn_inputs: bool) -> str:
    if not form.turned:
        return "no"
    return "in the file" if turn_inputs else "by the caller"


def _warn_if_no_faster(check: DeployCheck | None, dense: bool, reason: str) -> None:
    if check is None or not check.needed:
        return
    if not check.runs_sparse:
        warnings.warn(
            f"On {check.target} the file will be no faster than without zeros: "
            f"{check.summary}. See `pdp_keras.deploy_check`.",
            stacklevel=3,
        )
    elif dense:
        warnings.warn(
            f"On {check.target} the file will be no faster than without zeros: it is "
            f"stored densely, as {reason}.",
            stacklevel=3,
        )
    elif check.slowed:
        warnings.warn(
            f"On {check.target} the zeros of {len(check.slowed)} layers are skipped by "
            "slow kernels, as they lie in blocks of outputs (or there are hardly any): "
            f"{check.summary}. For 64-bit Arm alone, export for 'xnnpack-arm64'.",
            stacklevel=3,
        )


def _check_batches(
    model: keras.Model, inputs: ModelInputs, samples: list[Row], size: int | None
) -> list[Batch]:
    """The batches that the file is run on; an open batch is tried at two sizes."""
    rows = samples[:_VERIFIED_SAMPLES] or random_rows(
        model, inputs.flat, _RANDOM_SAMPLES
    )
    if size is not None:
        return batches(rows, inputs.flat, size)
    parts = (rows[:1], rows[1:] or rows * 2)
    return [batches(part, inputs.flat, len(part))[0] for part in parts]


def _size(batch: Batch) -> int:
    return len(next(iter(batch.values())))


def _reason_for_dense(target: Target, model: keras.Model) -> str:
    """Why there is no point in storing zeros sparse; empty if there is one."""
    if not target.sparse_encoding:
        return "the target takes no sparse encoding"
    if all(np.mean(w == 0) < _FEWEST_ZEROS for w in float_weights(model).values()):
        return f"no weight has {_FEWEST_ZEROS:.0%} zeros"
    return ""


def _keras_outputs(
    model: keras.Model, inputs: ModelInputs, trace: TracedModel, batch: Batch
) -> dict[str, Array]:
    tensors = {name: keras.ops.convert_to_tensor(v) for name, v in batch.items()}
    outputs = conversion.call_unchanged(model, inputs.packed(tensors))
    flat = [np.asarray(v) for v in keras.tree.flatten(outputs)]
    return dict(zip(trace.outputs, flat, strict=True))


def _check_difference(
    difference: Difference,
    row: Quantization,
    computes_in: str,
    tolerance: float | None,
) -> None:
    if row.tolerance is None and tolerance is None:
        measured, limit = difference.error, _GARBAGE
        what = "root mean square of the error, in units of the output's,"
    else:
        measured = difference.relative
        limit = max(row.tolerance or 0.0, _MODEL_TOLERANCES[computes_in])
        limit = limit if tolerance is None else tolerance
        what = "largest difference, in units of the output's scale,"
    if not measured <= limit:  # so written, NaN fails
        raise ExportError(
            f"The file must compute what the Keras model computes: the {what} must "
            f"be at most {limit:g}; if that is rounding, give a larger `tolerance`. "
            "Nothing was written. "
            f"Received: {measured:.3g} for output {difference.output!r}"
        )


def _write(path: pathlib.Path, data: bytes) -> None:
    """Writes the whole file or nothing."""
    # In the same folder, as a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
