"""Which sparse kernel XNNPACK takes for a 1x1 convolution, and how good it is where.

When it prepares such a convolution of a sparse part, XNNPACK counts the nonzeros of its
fours, and of its pairs, of output channels, from the first one on (what is left over is
run one by one). Fours come first, then pairs: they are taken if nonzeros fill 90 % of
the blocks that are not all zero. A kernel without zeros is all full fours.

The counts are those of `xnn_analyze_f32_spmm_w` (`src/reference/packing.cc`), the
choice that of `create_spmm_path` (`src/operators/convolution-nchw.c`), and the kernels
those of `src/configs/spmm-config.c`, in XNNPACK of August 2026.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# Output channels that share their zeros, in words.
NAMES = {1: "scattered", 2: "pairs", 4: "fours"}
# A block is taken where 5 * nonzeros >= this * blocks; the first that fits.
_FILLED = {4: 18, 2: 9}


@dataclasses.dataclass(frozen=True)
class Processor:
    """The sparse kernels that XNNPACK has for a kind of processor.

    Attributes:
        name: in messages.
        vector: the blocks, keys of `NAMES`, whose kernel computes with vectors.
        scalar: those whose kernel computes one number after the other.
    """

    name: str
    vector: tuple[int, ...]
    scalar: tuple[int, ...] = ()


PROCESSORS = {
    "arm64": Processor("64-bit Arm", vector=(1, 2, 4)),
    "wasm": Processor("a browser", vector=(1,), scalar=(2, 4)),
    # Not asked for by a target:
    "arm32": Processor("32-bit Arm", vector=(1,), scalar=(2, 4)),
    "arm64-fp16": Processor("64-bit Arm, forced to half precision", vector=(1,)),
}


@dataclasses.dataclass(frozen=True)
class SparseKernel:
    """What the zeros of a 1x1 convolution look like to XNNPACK.

    Attributes:
        pairs: how full of nonzeros its pairs of outputs are that are not all 0, in
            [0, 1]; 1 if there are none.
        fours: the same for fours.
        fitting: the blocks that are full enough, of 4 and 2, in this order.
    """

    pairs: float
    fours: float
    fitting: tuple[int, ...]

    def on(self, processor: Processor) -> int:
        """The block that is taken on a processor."""
        known = (*processor.vector, *processor.scalar)
        return next((block for block in self.fitting if block in known), 1)

    def is_slow_on(self, processor: Processor) -> bool:
        """Whether the kernel that is taken there is a scalar one."""
        return self.on(processor) in processor.scalar

    @property
    def reason(self) -> str:
        """Why this one."""
        if not self.fitting:
            return (
                f"scattered, as nonzeros fill {self.pairs:.0%} of their pairs of "
                "outputs, and 90% make pairs"
            )
        block = self.fitting[0]
        full = self.pairs if block == 2 else self.fours
        return f"in {NAMES[block]} of outputs, which nonzeros fill to {full:.0%}"


def sparse_kernel(weights: np.ndarray) -> SparseKernel:
    """What XNNPACK takes for a 1x1 convolution.

    Args:
        weights: as the file has them, `(outputs, ..., inputs)`.
    """
    nonzero = weights.reshape(len(weights), -1) != 0
    counts = {block: _count(nonzero, block) for block in _FILLED}
    fitting = tuple(b for b, (n, of) in counts.items() if 5 * n >= _FILLED[b] * of)
    full = {b: n / (b * of) if of else 1.0 for b, (n, of) in counts.items()}
    return SparseKernel(pairs=full[2], fours=full[4], fitting=fitting)


def _count(nonzero: np.ndarray, block: int) -> tuple[int, int]:
    """Nonzeros in whole blocks of outputs, and blocks with at least one."""
    whole = len(nonzero) // block * block
    blocks = nonzero[:whole].reshape(-1, block, nonzero.shape[1])
    return int(blocks.sum()), int(blocks.any(axis=1).sum())
