"""How far the outputs of an exported file are from the Keras model's."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from pdp_keras.models import Array


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far one output of the file is from the Keras model's, over all samples.

    Attributes:
        output: the output's name; of several outputs the one that differs most.
        largest: the largest absolute difference.
        scale: the largest absolute value of the Keras model's output.
        variation: the largest difference between two samples' outputs in the
            Keras model, in units of `scale`. Where it is as small as the
            tolerance, any file would pass and the check proves nothing.
        error: root mean square of the difference, in units of the output's own.
        agreement: the fraction of samples with the same largest class, the lowest
            of all outputs of shape (batch, classes); None if there is no such.
    """

    output: str
    largest: float
    scale: float
    variation: float
    error: float
    agreement: float | None

    @property
    def relative(self) -> float:
        """`largest` in units of `scale` (of 1 where the output is all zero)."""
        return self.largest / (self.scale or 1.0)


def largest_difference(
    expected: Sequence[Mapping[str, Array]], got: Sequence[Mapping[str, Array]]
) -> Difference:
    """Compares outputs over several batches; the output that differs most counts.

    Args:
        expected: for each batch output name → array (batch, ...).
        got: the same from the file.

    Raises:
        ValueError: the shapes differ.
    """
    differences = [
        _difference(name, [b[name] for b in expected], [b[name] for b in got])
        for name in expected[0]
    ]
    # NaN, which compares with nothing, counts as the worst.
    worst = max(differences, key=lambda d: np.nan_to_num(d.relative, nan=np.inf))
    agreements = [d.agreement for d in differences if d.agreement is not None]
    return dataclasses.replace(worst, agreement=min(agreements, default=None))


def _difference(
    name: str, expected: Sequence[Array], got: Sequence[Array]
) -> Difference:
    shapes = ([a.shape for a in expected], [a.shape for a in got])
    if shapes[0] != shapes[1]:
        raise ValueError(
            "The file's outputs must have the Keras model's shapes. "
            f"Received: output {name!r} with shapes={shapes[1]}, not {shapes[0]}"
        )
    wanted, real = (np.concatenate(list(a)).astype("float64") for a in (expected, got))
    scale = float(np.max(np.abs(wanted), initial=0))
    apart = np.abs(real - wanted)
    size = np.sqrt(np.mean(wanted**2)) or 1.0
    classes = wanted.ndim == 2 and wanted.shape[1] > 1
    return Difference(
        output=name,
        largest=float(np.max(apart, initial=0)),
        scale=scale,
        variation=float(np.max(np.ptp(wanted, axis=0), initial=0)) / (scale or 1.0),
        error=float(np.sqrt(np.mean(apart**2)) / size),
        agreement=float(np.mean(wanted.argmax(1) == real.argmax(1)))
        if classes
        else None,
    )
