"""Whether a file stores its zeros sparse: tried, and judged by what it computes."""

import dataclasses
from collections.abc import Sequence

from pdp_keras.models import Array, Batch
from pdp_keras.tflite import conversion, file
from pdp_keras.tflite.conversion import ExportError, Quantization, TracedModel
from pdp_keras.tflite.difference import largest_difference


@dataclasses.dataclass(frozen=True)
class EncodedModel:
    """A converted model and what LiteRT computes with it.

    Attributes:
        data: the content of the .tflite file.
        outputs: for each check batch output name → array (batch, ...).
    """

    data: bytes
    outputs: list[dict[str, Array]]


def encoded_model(
    trace: TracedModel,
    quantization: Quantization,
    calibration: Sequence[Batch],
    checks: Sequence[Batch],
    *,
    sparse: bool,
) -> EncodedModel:
    """Converts a model and runs the file on the check batches.

    Raises:
        ExportError: the converter refuses the model, or LiteRT the file.
    """
    data = conversion.tflite_bytes(trace, quantization, calibration, sparse=sparse)
    try:
        with conversion.quiet():
            run = file.TFLiteRun(data)
            return EncodedModel(data, [run(batch) for batch in checks])
    except (RuntimeError, ValueError) as error:
        raise ExportError(
            f"LiteRT must be able to run the converted file. It said: {error}"
        ) from error


def better_encoding(
    dense: EncodedModel,
    trace: TracedModel,
    quantization: Quantization,
    calibration: Sequence[Batch],
    checks: Sequence[Batch],
    *,
    faster: bool = False,
) -> tuple[EncodedModel, str]:
    """Chooses between storing zeros densely and sparse.

    LiteRT 2.3.0 refuses most files that are both sparse-encoded and int8, and
    computes garbage with others, so the outputs are compared, not only computed.

    Args:
        dense: the densely stored file.
        trace: the model that it was made of.
        quantization: as for `dense`.
        calibration: as for `dense`.
        checks: the batches whose outputs are compared.
        faster: whether the sparse-encoded file would be, so that its size, in small
            models a little larger, does not decide.

    Returns:
        The sparse-encoded model and "" if it is smaller or faster, runs, and agrees
        with the dense one; else the dense one and the reason.
    """
    try:
        sparse = encoded_model(trace, quantization, calibration, checks, sparse=True)
    except ExportError as error:
        return dense, f"the sparse-encoded file fails: {error.__cause__ or error}"
    if len(sparse.data) >= len(dense.data) and not faster:
        return dense, f"the sparse-encoded file has {len(sparse.data):,} bytes"
    relative = largest_difference(dense.outputs, sparse.outputs).relative
    if not relative <= quantization.sparse_tolerance:  # so written, NaN fails
        return dense, (
            "the sparse-encoded file computes something else, "
            f"off by {relative:.1e} of the output's scale"
        )
    return sparse, ""
