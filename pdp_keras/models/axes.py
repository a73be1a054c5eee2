"""Which axes of a kernel are its inputs, and which its outputs."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class KernelAxes:
    """What the axes of a kernel mean.

    Args:
        inputs: axes that the layer sums over besides the spatial ones (fan-in).
            Empty where nothing is summed over, as in a depthwise kernel or a
            table that rows are looked up in.
        outputs: axes that index output channels.

    Every other axis is spatial. Negative axes count from the end, so that one row
    serves convolutions of any rank.

    Example:

    >>> convolution = KernelAxes(inputs=(-2,), outputs=(-1,))
    >>> depthwise = KernelAxes(inputs=(), outputs=(-2, -1))
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
