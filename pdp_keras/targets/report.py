"""What a device will make of a model, layer by layer."""

from __future__ import annotations

import dataclasses
from typing import Any

# Each way in which a layer can run, in words.
RUNS = {
    "sparse": "sparse: its zeros are skipped",
    "sparse with more zeros": "could run sparse",
    "beside": "in the sparse part, with all of its own weights",
    "compressed": "its zeros are compressed away, not skipped",
    "dense": "dense",
}


@dataclasses.dataclass(frozen=True)
class LayerCheck:
    """One layer with a kernel.

    Attributes:
        layer: its name.
        shape: its kernel's shape in Keras.
        sparsity: the fraction of zeros in it.
        runs: a key of `RUNS`.
        reason: the rule behind that; empty where nothing is to be said.
        remedy: what would mend it; empty if nothing does.
        kernels: for "xnnpack", by processor ("arm64", "wasm"), what its kernel is made
            for: "scattered" zeros, "pairs" or "fours" of outputs, or "dense"; empty for
            what runs beside them.
    """

    layer: str
    shape: tuple[int, ...]
    sparsity: float
    runs: str
    reason: str = ""
    remedy: str = ""
    kernels: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class DeployCheck:
    """The outcome of `deploy_check`; prints as a table.

    Attributes:
        target: the target asked for.
        layers: one row for each layer with a kernel, in the model's order.
        summary: what it comes to, in a sentence.
        prunable: names of the layers whose pruning pays on the target.
        sparsity: the fraction of zeros in these.
        needed: what that fraction must exceed before anything runs sparse.
        turned: whether the images are turned by 180 degrees inside.
        slowed: names of the layers that skip their zeros by a kernel without vector
            instructions, because of how their zeros lie.

    Example:

    >>> check = pdp_keras.deploy_check(model, "ethos-u")
    >>> check.runs_sparse
    False
    >>> [row.layer for row in check.layers]
    ['block1', 'block2', 'logits']
    """

    target: str
    layers: tuple[LayerCheck, ...]
    summary: str
    prunable: tuple[str, ...]
    sparsity: float
    needed: float
    turned: bool = False
    slowed: tuple[str, ...] = ()

    @property
    def runs_sparse(self) -> bool:
        """Whether any layer skips its zeros."""
        return any(row.runs == "sparse" for row in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain Python values, ready for JSON."""
        return {**dataclasses.asdict(self), "runs_sparse": self.runs_sparse}

    def __str__(self) -> str:
        names = max((len(row.layer) for row in self.layers), default=0)
        shapes = [_times(row.shape) for row in self.layers]
        width = max(map(len, shapes), default=0)
        lines = [f"{self.target}: {self.summary}"]
        for row, shape in zip(self.layers, shapes, strict=True):
            line = (
                f"  {row.layer:<{names}}  {shape:<{width}}  {row.sparsity:6.1%}"
                f"  {RUNS[row.runs]}"
            )
            if row.reason:
                line += f": {row.reason}"
            if row.remedy:
                line += f". Remedy: {row.remedy}"
            lines.append(line)
        return "\n".join(lines)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
