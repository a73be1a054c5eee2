"""What an export did: sizes, the check against Keras, and the zeros in the file."""

import dataclasses
from typing import Any

import keras
import numpy as np

from pdp_keras.models import Array
from pdp_keras.targets import DeployCheck, VelaReport
from pdp_keras.tflite import Difference, stored_tensors, stored_weights

# Outputs that vary less than this cannot tell a right file from a wrong one.
_WEAK_VARIATION = 0.02


@dataclasses.dataclass(frozen=True)
class WeightZeros:
    """The zeros of one weight of rank 2 or more, in the model and in the file.

    Attributes:
        name: the Keras variable's path.
        shape: its shape in Keras.
        sparsity: the fraction of zeros in the model.
        file_sparsity: the fraction of zeros in the file, a number equal to the
            zero point being one; None where the file holds the weight in another
            form (split, merged or folded into something).
        lost: how many zeros of the model are not zero in the file; None as above.
    """

    name: str
    shape: tuple[int, ...]
    sparsity: float
    file_sparsity: float | None
    lost: int | None


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """The outcome of `export_tflite`; prints as a table.

    Attributes:
        path: the file written.
        target: the target asked for.
        quantize: the quantization asked for.
        batch_size: the file's batch; None where it is open.
        sparse_encoding: whether zeros are stored sparse.
        dense_reason: why they are not; empty if they are.
        size_bytes: the file's size.
        gzip_bytes: its size after gzip, which is what a download costs.
        dense_encoded_bytes: the size with all weights stored densely.
        runtime: the runtime that ran the file, with its version.
        verified_samples: how many samples were compared with the Keras model.
        difference: the comparison's result; None with `verify=False`.
        weights: the zeros of each weight, in the form that the target wants.
        turned: whether the file computes on images turned by 180 degrees: "no", "in
            the file", which turns its inputs itself, or "by the caller".
        check: what the target makes of the model; None for "generic".
        compiled: Vela's figures, with `accelerator`.

    Example:

    >>> report = pdp_keras.export_tflite(model, "model.tflite")
    >>> report.size_bytes == os.path.getsize(report.path)
    True
    >>> report.difference.largest <= 1e-4 * report.difference.scale
    True
    """

    path: str
    target: str
    quantize: str | None
    batch_size: int | None
    sparse_encoding: bool
    dense_reason: str
    size_bytes: int
    gzip_bytes: int
    dense_encoded_bytes: int
    runtime: str
    verified_samples: int
    difference: Difference | None
    weights: tuple[WeightZeros, ...]
    turned: str = "no"
    check: DeployCheck | None = None
    compiled: VelaReport | None = None

    @property
    def max_difference(self) -> float | None:
        """The largest absolute difference from Keras; None if not verified."""
        return None if self.difference is None else self.difference.largest

    @property
    def output_scale(self) -> float | None:
        """The largest absolute output of that output; None if not verified."""
        return None if self.difference is None else self.difference.scale

    @property
    def relative_difference(self) -> float | None:
        """`max_difference` in units of `output_scale`; None if not verified."""
        return None if self.difference is None else self.difference.relative

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain Python values, ready for JSON."""
        return {
            **dataclasses.asdict(self),
            "weights": [dataclasses.asdict(weight) for weight in self.weights],
            "max_difference": self.max_difference,
            "output_scale": self.output_scale,
            "relative_difference": self.relative_difference,
        }

    def __str__(self) -> str:
        batch = "any" if self.batch_size is None else str(self.batch_size)
        encoding = (
            f"sparse ({self.dense_encoded_bytes:,} bytes if stored densely)"
            if self.sparse_encoding
            else f"dense: {self.dense_reason}"
        )
        lines = [
            f"{self.path}: {self.size_bytes:,} bytes, {self.gzip_bytes:,} gzipped",
            f"  target    {self.target}, {self.quantize or 'float32'}, batch {batch}",
            f"  zeros     {encoding}",
            f"  verified  {self._verification()}",
        ]
        if self.check is not None:
            lines.append(f"  device    {self.check.summary}")
        if self.turned != "no":
            lines.append(f"  images    turned by 180 degrees {self.turned}")
        if self.compiled is not None:
            lines.append(f"  compiled  {self.compiled}")
        if self.weights:
            width = max(len(weight.name) for weight in self.weights)
            lines.append(f"  {'weight':<{width}}  {'zeros':>7}  {'in file':>7}  shape")
            lines += [
                f"  {weight.name:<{width}}  {_percent(weight.sparsity)}"
                f"  {_percent(weight.file_sparsity)}"
                f"  {'x'.join(map(str, weight.shape))}"
                + (f"  ({weight.lost} zeros lost)" if weight.lost else "")
                for weight in self.weights
            ]
        return "\n".join(lines)

    def _verification(self) -> str:
        if self.difference is None:
            return "no"
        text = (
            f"{self.verified_samples} samples in {self.runtime}: off by at most "
            f"{self.difference.relative:.1e} of the output's scale "
            f"{self.difference.scale:.3g}"
        )
        if self.difference.agreement is not None:
            text += f", same class for {self.difference.agreement:.0%}"
        if self.difference.variation < _WEAK_VARIATION:
            text += (
                ", a weak check: these inputs change the output by only "
                f"{self.difference.variation:.1e} of its scale"
            )
        return text


def _percent(fraction: float | None) -> str:
    return f"{'-':>7}" if fraction is None else f"{fraction:7.1%}"


def float_weights(model: keras.Model) -> dict[str, Array]:
    """The model's floating-point weights of rank 2 and more but biases, by path."""
    return {
        variable.path: variable.value.numpy()
        for variable in model.weights
        if len(variable.shape) >= 2
        and "float" in variable.dtype
        and variable.name != "bias"
    }


def weight_zeros(model: keras.Model, data: bytes) -> tuple[WeightZeros, ...]:
    """Counts the zeros of each weight in the model and in a file made of it.

    Args:
        model: the Keras model.
        data: the content of its .tflite file.
    """
    weights = float_weights(model)
    stored = stored_weights(weights, stored_tensors(data))
    rows = []
    for name, weight in weights.items():
        found = stored[name]
        zeros = None if found is None else found.values == 0
        rows.append(
            WeightZeros(
                name=name,
                shape=weight.shape,
                sparsity=float(np.mean(weight == 0)),
                file_sparsity=None if zeros is None else float(np.mean(zeros)),
                lost=None if zeros is None else int(np.sum((weight == 0) & ~zeros)),
            )
        )
    return tuple(rows)
