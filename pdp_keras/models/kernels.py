"""Finds the prunable kernels in a tree of layers, and says why the rest is not."""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from pdp_keras.models.axes import KernelAxes
from pdp_keras.models.layer_table import (
    NORMALIZATION,
    Container,
    NotPruned,
    Prunable,
    find_row,
)

Filter = Callable[["Kernel"], bool]

_NO_KERNEL = "not a kernel"
_COMPUTED = "its value is computed (LoRA or quantization), not a variable"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A variable that can be pruned.

    Attributes:
        owner: the layer whose row in the table names the variable.
        path: names of the layers from the root down to the owner, `"block/query"`.
        name: attribute path in the owner, `"kernel"` or `"cell.kernel"`.
        variable: the Keras variable.
        axes: the meaning of its axes, counted from 0.
    """

    owner: Any
    path: str
    name: str
    variable: Any
    axes: KernelAxes

    @property
    def full_name(self) -> str:
        """`path/name`."""
        return f"{self.path}/{self.name}"

    @property
    def shape(self) -> tuple[int, ...]:
        """The variable's shape."""
        return tuple(self.variable.shape)

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class SkippedWeight:
    """A variable that is not pruned, and why."""

    layer: str
    weight: str
    shape: tuple[int, ...]
    size: int
    reason: str


def child_layers(layer: Any) -> list[Any]:
    """The layers directly below a layer, in the order in which Keras tracks them."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def find_kernels(root: Any) -> tuple[list[Kernel], list[SkippedWeight]]:
    """Walks a layer tree in a fixed order that survives saving and loading.

    Args:
        root: a built layer or model. A layer appears in the paths by its own name;
            a model, a mere container, does not.

    Returns:
        `(kernels, skipped)`: each float variable is in exactly one of the two.

    Raises:
        ValueError: if a layer that the table knows is not built.
    """
    kernels: list[Kernel] = []
    skipped: list[SkippedWeight] = []
    seen: set[int] = set()
    covered: set[int] = set()
    for layer, path in _walk(root, "" if isinstance(root, keras.Model) else root.name):
        row = find_row(type(layer))
        named = _named_kernels(layer, row)
        computed: set[str] = set()
        for name, axes in named:
            variable = _attribute(layer, name)
            if "." in name:  # the row speaks for this sublayer, row or no row
                covered.add(id(_attribute(layer, name.rpartition(".")[0])))
            if not isinstance(variable, keras.Variable) or not _is_float(variable):
                computed.add(name)
            elif id(variable) not in seen:
                seen.add(id(variable))
                resolved = _resolve(axes, layer, len(variable.shape))
                kernels.append(Kernel(layer, path, name, variable, resolved))
        if row is None and id(layer) in covered:
            row = Container()
        if not _is_transparent(layer):
            skipped.extend(_skipped_weights(layer, path, row, seen, computed))
    return kernels, skipped


def compile_filters(filters: Any) -> Filter:
    """A predicate on kernels from what a user writes as `filters`.

    Args:
        filters: None (everything), one or several of

            - a string: a regular expression that must match the whole name or path
              of the owner or of a layer around it (so a plain name is itself);
            - a compiled regular expression: searched in the path;

            or a callable from the owning layer (`Dense`, `LSTM`,
            `MultiHeadAttention`, ...) to bool.

    Raises:
        TypeError: for anything else.
        ValueError: for a string that is not a regular expression.
    """
    if filters is None:
        return lambda kernel: True
    if callable(filters):
        return lambda kernel: bool(filters(kernel.owner))
    parts = filters if isinstance(filters, list | tuple | set) else [filters]
    patterns = [_compile_filter(part) for part in parts]
    return lambda kernel: any(matches(kernel.path) for matches in patterns)


def require_matches(filters: Any, kernels: Sequence[Kernel]) -> None:
    """Checks that every name in `filters` is the name of something.

    Raises:
        ValueError: if a part of `filters` matches no kernel, or nothing is left.
    """
    paths = sorted({kernel.path for kernel in kernels})
    several = isinstance(filters, list | tuple | set)
    # An empty collection chooses nothing, which is checked like a part of its own.
    for part in (filters if several else [filters]) or [()]:
        if not any(compile_filters(part)(kernel) for kernel in kernels):
            raise ValueError(
                "filters must choose at least one prunable layer; there are "
                f"{paths}. Received: filters={filters!r}, of which {part!r} "
                "matches none of them"
            )


def _walk(layer: Any, path: str) -> Iterator[tuple[Any, str]]:
    yield layer, path
    row = find_row(type(layer))
    if isinstance(row, NotPruned):
        return
    for child in child_layers(layer):
        prefix = path.rpartition("/")[0] if _is_transparent(layer) else path
        yield from _walk(child, f"{prefix}/{child.name}" if prefix else child.name)


def _named_kernels(layer: Any, row: Any) -> list[tuple[str, Any]]:
    if not isinstance(row, Prunable):
        return []
    return [
        (name, axes)
        for name, axes in row.kernels.items()
        if name not in row.optional or hasattr(layer, name)
    ]


def _is_transparent(layer: Any) -> bool:
    """A wrapper of ours: it has its layer's name, and no weights of the user's."""
    return getattr(type(layer), "name_is_of_layer", False)


def _attribute(layer: Any, name: str) -> Any:
    try:
        return operator.attrgetter(name)(layer)
    except AttributeError:
        raise ValueError(
            "A layer must be built before its kernels can be found: call it, or the "
            f"model, on data first. Received: layer={layer.name!r} of class "
            f"{type(layer).__name__} without {name!r}"
        ) from None


def _resolve(axes: Any, layer: Any, rank: int) -> KernelAxes:
    found = axes(layer) if callable(axes) else axes
    return KernelAxes(
        inputs=tuple(axis % rank for axis in found.inputs),
        outputs=tuple(axis % rank for axis in found.outputs),
    )


def _skipped_weights(
    layer: Any, path: str, row: Any, seen: set[int], computed: set[str]
) -> Iterator[SkippedWeight]:
    below = layer.weights if isinstance(row, NotPruned) else _own_weights(layer)
    if isinstance(row, NotPruned):
        reason = row.reason
    elif row is None:
        reason = (
            f"no row for class {type(layer).__name__}: "
            "see pdp_keras.register_prunable_layer"
        )
    else:
        reason = _NO_KERNEL
    is_norm = row is None and "Norm" in type(layer).__name__
    for variable in below:
        # What a computed kernel is made from has its name, but not always its dtype.
        is_computed = variable.name in computed
        if id(variable) in seen or not (is_computed or _is_float(variable)):
            continue
        seen.add(id(variable))
        shape = tuple(variable.shape)
        why = _COMPUTED if is_computed else reason
        if is_norm and len(shape) <= 1:  # of keras_hub alone there are twenty
            why = NORMALIZATION.reason
        yield SkippedWeight(path, variable.name, shape, math.prod(shape), why)


def _is_float(variable: Any) -> bool:
    return "float" in keras.backend.standardize_dtype(variable.dtype)


def _own_weights(layer: Any) -> list[Any]:
    below = {id(v) for child in child_layers(layer) for v in child.weights}
    return [v for v in layer.weights if id(v) not in below]


def _compile_filter(part: Any) -> Callable[[str], bool]:
    if isinstance(part, re.Pattern):
        return lambda path: part.search(path) is not None
    if not isinstance(part, str):
        raise TypeError(
            "filters must be layer names, regular expressions or a callable. "
            f"Received: {part!r}"
        )
    try:
        pattern = re.compile(part)
    except re.error as error:
        raise ValueError(
            f"A string in filters must be a layer name or a regular expression. "
            f"Received: {part!r} ({error})"
        ) from None

    def matches(path: str) -> bool:
        names = path.split("/")
        prefixes = ["/".join(names[: i + 1]) for i in range(len(names))]
        return any(pattern.fullmatch(text) for text in (*names, *prefixes))

    return matches
