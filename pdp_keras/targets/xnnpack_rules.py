"""Which operators of a .tflite file XNNPACK runs with its sparse kernels, and why not.

XNNPACK decides when it prepares a model, for connected parts of it: an operator at the
entry that leaves the channels-first layout behind it, operators inside that can work
in it, and one at the exit that restores the channels-last layout. If one operator on
the way cannot, the whole part runs dense; so it does unless more than 2/3 of the
weights of its 1x1 convolutions are zero. The rules are those of `xnn_subgraph_rewrite_
for_nchw` and `xnn_check_nchw_compatibility` in XNNPACK's `src/subgraph.c`; nothing is
run here. (Processors with AVX use the dense kernels whatever the file says.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from pdp_keras.tflite import FileGraph, FileOperator, FileTensor

# More than this part of a cluster's 1x1 weights must be zero.
LEAST_SPARSITY = 2 / 3

_SAME = 0  # the schema's Padding codes
_UNARY = (
    *("ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU"),
    *("LOG", "LOGISTIC", "NEG", "RELU", "RELU_0_TO_1", "RELU_N1_TO_1", "RELU6"),
    *("ROUND", "RSQRT", "SIGN", "SIN", "SQRT", "SQUARE", "TANH"),
)


@dataclasses.dataclass(frozen=True)
class Role:
    """What an operator can be to a sparse part of the graph.

    Attributes:
        enters: it reads channels last and writes channels first.
        inside: it works channels first.
        leaves: it reads channels first and writes channels last.
        reason: the rule that it breaks, if it is none of the three.
        remedy: what would mend that.
    """

    enters: bool = False
    inside: bool = False
    leaves: bool = False
    reason: str = ""
    remedy: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class SparsePart:
    """Operators that run sparse together, or would, with enough zeros.

    Attributes:
        operators: their numbers in the file.
        weights: how many weights its 1x1 convolutions have.
        zeros: how many of these are zero.
    """

    operators: tuple[int, ...]
    weights: int
    zeros: int

    @property
    def sparsity(self) -> float:
        """The fraction of zeros in its 1x1 convolutions."""
        return self.zeros / self.weights

    @property
    def runs_sparse(self) -> bool:
        """Whether there are enough zeros."""
        return 3 * self.zeros > 2 * self.weights


@dataclasses.dataclass(frozen=True)
class SparseCheck:
    """What XNNPACK makes of a file.

    Attributes:
        parts: the parts that can run sparse.
        roles: of each operator.
        blockers: the number of the operator that keeps an otherwise fitting one from
            being in a part, by the number of the latter.
    """

    parts: tuple[SparsePart, ...]
    roles: tuple[Role, ...]
    blockers: dict[int, int]

    def part_of(self, operator: int) -> SparsePart | None:
        """The part that an operator is in."""
        return next((part for part in self.parts if operator in part.operators), None)


def check_sparse(graph: FileGraph) -> SparseCheck:
    """Finds the parts of a file that XNNPACK can run sparse."""
    producers = {x.index: i for i, op in enumerate(graph.operators) for x in op.outputs}
    pads = dict(_fused_pads(graph, producers))
    roles = tuple(
        _role(op, pads[i]) if i in pads else _role(op, None)
        for i, op in enumerate(graph.operators)
    )
    clusters = _Clusters(graph, roles, producers, pads)
    parts = []
    for members in clusters.members():
        pointwise = [
            op.inputs[1].values
            for op in (graph.operators[i] for i in members)
            if op.kind == "CONV_2D" and op.inputs[1].shape[1:3] == (1, 1)
        ]
        weights = sum(w.size for w in pointwise if w is not None)
        zeros = sum(int(np.sum(w == 0)) for w in pointwise if w is not None)
        if weights:
            parts.append(SparsePart(tuple(members), weights, zeros))
    return SparseCheck(tuple(parts), roles, clusters.blockers)


def _fused_pads(
    graph: FileGraph, producers: dict[int, int]
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Explicit zeros (top, bottom, left, right) that a convolution takes in itself."""
    readers = _readers(graph)
    for i, op in enumerate(graph.operators):
        if op.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            continue
        before = producers.get(op.inputs[0].index)
        if before is None or op.options["padding"] == _SAME:
            continue
        pad = graph.operators[before]
        if pad.kind != "PAD" or len(readers[op.inputs[0].index]) != 1:
            continue
        amounts = pad.inputs[1].values
        if amounts is None or amounts.shape != (4, 2) or amounts[[0, 3]].any():
            continue
        yield i, tuple(amounts[1:3].ravel().tolist())


def _readers(graph: FileGraph) -> dict[int, list[int]]:
    readers: dict[int, list[int]] = {}
    for i, op in enumerate(graph.operators):
        for x in op.inputs:
            readers.setdefault(x.index, []).append(i)
    return readers


class _Clusters:
    """Operators joined to those that make what they read, as far as that fits."""

    def __init__(
        self,
        graph: FileGraph,
        roles: tuple[Role, ...],
        producers: dict[int, int],
        pads: dict[int, tuple[int, ...]],
    ) -> None:
        self.graph, self.roles = graph, roles
        self.producers, self.pads = producers, pads
        self.leaders = list(range(len(roles)))
        self.spoiled: set[int] = set()
        self.blockers: dict[int, int] = {}
        self._join()
        self._require_compatible_readers()
        self._spread_blockers()

    def members(self) -> list[list[int]]:
        """The clusters that stayed whole, with an entry and an exit."""
        found: dict[int, list[int]] = {}
        for i, role in enumerate(self.roles):
            if role.enters or role.inside or role.leaves:
                found.setdefault(self._leader(i), []).append(i)
        return [
            members
            for leader, members in found.items()
            if not any(self._leader(i) == leader for i in self.spoiled)
            and any(self.roles[i].enters for i in members)
            and any(self.roles[i].leaves for i in members)
        ]

    def _leader(self, i: int) -> int:
        while self.leaders[i] != i:
            i = self.leaders[i]
        return i

    def _read(self, i: int) -> Iterator[FileTensor]:
        """What an operator reads but constants."""
        operator = self.graph.operators[i]
        return (x for x in operator.inputs if x.values is None)

    def _join(self) -> None:
        for i, role in enumerate(self.roles):
            if not (role.inside or role.leaves):
                continue
            for x in self._read(i):
                # A fused PAD is no operator of its own.
                before = self.producers.get(x.index)
                if before is not None and i in self.pads:
                    pad = self.graph.operators[before]
                    before = self.producers.get(pad.inputs[0].index)
                fits = before is not None and before not in self.spoiled
                if before is not None and fits:
                    other = self.roles[before]
                    fits = other.enters or other.inside
                if not fits or before is None:
                    self.spoiled.add(i)
                    if before is not None:
                        self.blockers[i] = self.blockers.get(before, before)
                    break
                first, second = self._leader(i), self._leader(before)
                self.leaders[min(first, second)] = max(first, second)

    def _require_compatible_readers(self) -> None:
        """What is made inside must not be read outside."""
        readers = _readers(self.graph)
        for i, role in enumerate(self.roles):
            if not (role.inside or role.leaves) or i in self.spoiled:
                continue
            for x in self._read(i):
                for j in readers[x.index]:
                    if self.graph.operators[j].kind == "PAD":
                        (j,) = readers[self.graph.operators[j].outputs[0].index][:1]
                    other = self.roles[j]
                    if not (other.inside or other.leaves) or j in self.spoiled:
                        self.spoiled.add(i)
                        self.blockers.setdefault(i, self.blockers.get(j, j))
                if x.index in self.graph.outputs:
                    self.spoiled.add(i)

    def _spread_blockers(self) -> None:
        """What spoils one operator spoils all that are joined to it."""
        first: dict[int, int] = {}
        for i in sorted(self.spoiled):
            if i in self.blockers:
                first.setdefault(self._leader(i), self.blockers[i])
        for i in range(len(self.roles)):
            if self._leader(i) in first:
                self.blockers.setdefault(i, first[self._leader(i)])


def _role(operator: FileOperator, pads: tuple[int, ...] | None) -> Role:
    find = _ROLES.get(operator.kind)
    if find is None:
        return Role(
            reason=f"{operator.kind} is no operator that the sparse kernels can follow",
            remedy="keep it out of the way from the first convolution to the global "
            "average pooling",
        )
    data = (*operator.inputs[:1], *operator.outputs)
    if not all(x.is_float for x in data):
        return Role(
            reason="its numbers are not floating-point",
            remedy="export with quantize=None or 'float16'",
        )
    return find(operator, pads)


def _convolution(operator: FileOperator, pads: tuple[int, ...] | None) -> Role:
    options = operator.options
    kernel = operator.inputs[1].shape
    window, strides = kernel[1:3], (options["strideH"], options["strideW"])
    if kernel[3] != operator.inputs[0].shape[3]:
        return Role(reason="it is a grouped convolution", remedy="use groups=1")
    if (options["dilationHFactor"], options["dilationWFactor"]) != (1, 1):
        return Role(reason="it is dilated", remedy="use dilation_rate=1")
    given = _padding(operator, pads)
    if window == (1, 1):
        if strides != (1, 1):
            return Role(
                reason=f"it is a 1x1 convolution with strides {strides}",
                remedy="stride in a 3x3 depthwise convolution instead",
            )
        if given is not None and any(given):
            return Role(reason="it is a padded 1x1 convolution", remedy="do not pad it")
        return Role(inside=True)
    if window == (3, 3) and strides == (2, 2) and kernel[3] == 3:
        if given == (1, 1, 1, 1):
            return Role(enters=True)
        return Role(
            reason="it does not have padding 1 on every side",
            remedy="use padding='same', or ZeroPadding2D(1) and 'valid'",
        )
    return Role(
        reason=f"it is a {window[0]}x{window[1]} convolution with strides {strides} on "
        f"{kernel[3]} channels: only 1x1 with stride 1, and 3x3 with stride 2 on 3 "
        "channels, have sparse kernels or lead to them",
        remedy="use a network of depthwise and 1x1 convolutions",
    )


def _depthwise(operator: FileOperator, pads: tuple[int, ...] | None) -> Role:
    options = operator.options
    window = operator.inputs[1].shape[1:3]
    strides = (options["strideH"], options["strideW"])
    if (options["dilationHFactor"], options["dilationWFactor"]) != (1, 1):
        return Role(reason="it is dilated", remedy="use dilation_rate=1")
    if options["depthMultiplier"] != 1:
        return Role(
            reason=f"its depth multiplier is {options['depthMultiplier']}",
            remedy="use depth_multiplier=1",
        )
    if window not in ((3, 3), (5, 5)) or strides not in ((1, 1), (2, 2)):
        return Role(
            reason=f"it is a {window[0]}x{window[1]} depthwise convolution with "
            f"strides {strides}",
            remedy="use windows of 3x3 or 5x5 with strides of 1 or 2",
        )
    half = window[0] // 2
    if _padding(operator, pads) != (half,) * 4:
        return Role(
            reason=f"it does not have padding {half} on every side",
            remedy=f"use padding='same', or ZeroPadding2D({half}) and 'valid'",
        )
    return Role(inside=True)


def _padding(
    operator: FileOperator, pads: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """Zeros on top, at the bottom, left and right.

    None where TensorFlow's "same" leaves them to the image's size, as with strides.
    """
    options = operator.options
    if options["padding"] != _SAME:
        return pads or (0, 0, 0, 0)
    if (options["strideH"], options["strideW"]) != (1, 1):
        return None
    rows, columns = ((size - 1) for size in operator.inputs[1].shape[1:3])
    return rows // 2, rows - rows // 2, columns // 2, columns - columns // 2


def _binary(operator: FileOperator, pads: tuple[int, ...] | None) -> Role:
    first, second = operator.inputs
    if len(first.shape) == len(second.shape) == 4 and second.values is None:
        return Role(inside=True)
    return Role(
        reason=f"{operator.kind} has an operand of shape "
        f"{(second if len(first.shape) == 4 else first).shape}; both must be images",
        remedy="fold constants into the weights of a convolution",
    )


def _unary(operator: FileOperator, pads: tuple[int, ...] | None) -> Role:
    if len(operator.inputs[0].shape) == 4:
        return Role(inside=True)
    return Role(reason=f"{operator.kind} acts on something else than an image")


def _mean(operator: FileOperator, pads: tuple[int, ...] | None) -> Role:
    axes = operator.inputs[1].values
    if (
        len(operator.inputs[0].shape) == 4
        and axes is not None
        and sorted(axes.tolist()) == [1, 2]
    ):
        return Role(inside=True, leaves=True)
    return Role(reason="it is a mean over something else than height and width")


def _depth_to_space(operator: FileOperator, pads: tuple[int, ...] | None) -> Role:
    return Role(leaves=True)


def _resize(operator: FileOperator, pads: tuple[int, ...] | None) -> Role:
    if min(operator.inputs[0].shape[1:3]) > 1:
        return Role(inside=True)
    return Role(reason="it resizes an image of one row or column")


_ROLES: dict[str, Callable[[FileOperator, tuple[int, ...] | None], Role]] = {
    "ADD": _binary,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEPTH_TO_SPACE": _depth_to_space,
    "MEAN": _mean,
    "MUL": _binary,
    "RESIZE_BILINEAR": _resize,
    **dict.fromkeys(_UNARY, _unary),
}
