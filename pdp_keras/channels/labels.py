"""Label arrays: which channel of which kernel sits at which place of a tensor.

Every tensor of a graph carries an integer array of its rank, the batch axis included.
A label names a channel; axes along which the labels do not vary have size 1, so that
the array broadcasts to the tensor. What a layer does to the places of a tensor (slice,
reshape, concatenate) is the same NumPy operation on its labels; what it does to values
of several places (add, multiply) joins their labels, which then live and die together.

Label 0 is `FIXED`: a channel that cannot be removed, such as one of a model's inputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Shape = tuple[int | None, ...]

FIXED = 0

# Kinds of reasons, the one to name first among several of a class first.
KINDS = ("output", "unknown", "structure")


@dataclasses.dataclass(frozen=True)
class Reason:
    """Why channels cannot be removed: one of `KINDS`, and a sentence."""

    kind: str
    text: str


INPUT = Reason(
    "structure",
    "they are combined, channel by channel, with others that cannot be removed: an "
    "input of the model, a constant, or what was made of them",
)


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledTensor:
    """A tensor's labels and its shape, None where a dimension is unknown."""

    labels: Labels
    shape: Shape

    @property
    def rank(self) -> int:
        """The number of axes, with the batch axis."""
        return len(self.shape)

    @property
    def varying(self) -> tuple[int, ...]:
        """The axes along which the labels vary.

        An axis of size 1 with a channel of its own (the output of `Dense(1)`) is not
        among them: to remove it would be to remove the tensor.
        """
        return tuple(i for i, size in enumerate(self.labels.shape) if size > 1)


def fixed_tensor(shape: Sequence[int | None]) -> LabelledTensor:
    """A tensor of which nothing can be removed."""
    return LabelledTensor(np.zeros((1,) * len(shape), np.int64), tuple(shape))


def squash(labels: Labels) -> Labels:
    """The labels with size 1 for every axis along which they do not vary."""
    for axis, size in enumerate(labels.shape):
        if size > 1:
            first = labels.take([0], axis)
            if (labels == first).all():
                labels = first
    return labels


def expand(labels: Labels, axis: int, size: int | None) -> Labels:
    """The labels with this many places along an axis, unless it is unknown."""
    if size is None or labels.shape[axis] == size:
        return labels
    return np.repeat(labels, size, axis)


class Atoms:
    """Union-find over labels. A class that is fixed reads as label `FIXED`."""

    def __init__(self) -> None:
        self._count = 1
        self._parent = np.zeros(1024, np.int64)
        # The index of a class's reason, at its root; -1 where it can be removed.
        self._reason = np.full(1024, -1)
        self._reason[FIXED] = 0
        self._reasons = [INPUT]

    def fresh(self, count: int) -> Labels:
        """New labels, each a class of its own."""
        start, self._count = self._count, self._count + count
        while self._count > len(self._parent):
            self._parent = np.concatenate([self._parent, np.zeros_like(self._parent)])
            self._reason = np.concatenate(
                [self._reason, np.full_like(self._reason, -1)]
            )
        labels = np.arange(start, self._count)
        self._parent[start : self._count] = labels
        return labels

    def canonical(self, labels: Labels) -> Labels:
        """The labels' classes: equal where equal labels were joined, or `FIXED`."""
        roots = self._roots(labels)
        return np.where(self._reason[roots] >= 0, FIXED, roots)

    def refresh(self, tensor: LabelledTensor) -> LabelledTensor:
        """The tensor with canonical labels, squashed."""
        return LabelledTensor(squash(self.canonical(tensor.labels)), tensor.shape)

    def join(self, first: Any, *others: Any) -> None:
        """Joins labels that lie at the same place; the arrays are broadcast."""
        for other in others:
            left, right = np.broadcast_arrays(self._roots(first), self._roots(other))
            differ = left != right
            pairs = np.stack([left[differ], right[differ]])
            for a, b in np.unique(pairs, axis=1).T.tolist():
                self._union(a, b)

    def join_along(self, labels: Labels, axis: int) -> Labels:
        """Joins all labels of a line along an axis; returns them, with size 1 there."""
        self.join(labels, labels.take([0], axis))
        return self.canonical(labels.take([0], axis))

    def fix(self, labels: Labels, kind: str, text: str) -> None:
        """Says that these labels cannot be removed, and why."""
        roots = np.unique(self._roots(labels))
        free = roots[roots != FIXED]
        if len(free):
            index = self._reason_index(Reason(kind, text))
            for root in free.tolist():
                self._reason[root] = self._prior(int(self._reason[root]), index)

    def reason(self, label: int) -> Reason | None:
        """Why a label cannot be removed; None if it can."""
        index = int(self._reason[self._roots(np.array([label]))[0]])
        return None if index < 0 else self._reasons[index]

    def _roots(self, labels: Any) -> Labels:
        labels = np.asarray(labels, np.int64)
        roots: Labels = self._parent[labels]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                self._parent[labels] = roots
                return roots
            roots = above

    def _root(self, label: int) -> int:
        while (above := int(self._parent[label])) != label:
            label = above
        return label

    def _union(self, a: int, b: int) -> None:
        low, high = sorted((self._root(a), self._root(b)))
        if low == high:
            return
        if low == FIXED:
            # Not merged with it: classes fixed for different reasons stay apart.
            self._reason[high] = self._prior(int(self._reason[high]), 0)
            return
        self._parent[high] = low
        both = int(self._reason[low]), int(self._reason[high])
        self._reason[low] = self._prior(*both)

    def _prior(self, first: int, second: int) -> int:
        """The reason to name for a class that has two."""
        if first < 0 or second < 0:
            return max(first, second)

        def rank(index: int) -> tuple[int, int, int]:
            # That something is combined with an input says least.
            return KINDS.index(self._reasons[index].kind), index == 0, index

        return min(first, second, key=rank)

    def _reason_index(self, reason: Reason) -> int:
        if reason not in self._reasons:
            self._reasons.append(reason)
        return self._reasons.index(reason)
