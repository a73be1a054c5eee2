"""Where the windows of a convolution or pooling lie along one axis of its input."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Windows:
    """Equal windows in equal steps.

    Attributes:
        size: positions of the input, numbered from 0.
        extent: positions that a window spans, gaps of a dilation included.
        stride: from one window to the next.
        start: where the first window begins; negative where that is padding.
        count: how many windows, the size of the output.
    """

    size: int
    extent: int
    stride: int
    start: int
    count: int

    @property
    def padding(self) -> tuple[int, int]:
        """Padding before and after; a negative number is of positions not read."""
        end = self.start + self.stride * (self.count - 1) + self.extent
        return -self.start, end - self.size

    def turned(self) -> Windows:
        """The same windows when the axis is numbered from its other end."""
        start = self.size - (self.start + self.stride * (self.count - 1) + self.extent)
        return dataclasses.replace(self, start=start)

    @property
    def symmetric(self) -> int | None:
        """The padding `(extent - 1) / 2` on both sides, if it gives these windows.

        None if it does not, or the extent is even. Padding after the last window is
        never read, so it may always be added.
        """
        half, odd = divmod(self.extent, 2)
        count = (self.size + 2 * half - self.extent) // self.stride + 1
        return half if odd and (self.start, self.count) == (-half, count) else None


def make_windows(
    size: int, extent: int, stride: int, padding: str, before: int = 0, after: int = 0
) -> Windows:
    """The windows of a Keras layer.

    Args:
        size: positions of the input.
        extent: positions that a window spans.
        stride: from one window to the next.
        padding: `"valid"` or `"same"`, as TensorFlow has it: as many windows as there
            are whole strides, the odd one of the padding behind.
        before: zeros put in front of the input beforehand.
        after: zeros put behind it beforehand.

    Raises:
        ValueError: for another padding.
    """
    padded = size + before + after
    if padding == "same":
        count = -(-padded // stride)
        total = max(stride * (count - 1) + extent - padded, 0)
        start = -(total // 2)
    elif padding == "valid":
        count, start = (padded - extent) // stride + 1, 0
    else:
        raise ValueError(
            f"padding must be 'valid' or 'same'. Received: padding={padding!r}"
        )
    return Windows(size, extent, stride, start - before, count)
