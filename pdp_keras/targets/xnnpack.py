"""Which layers of a Keras model XNNPACK would run sparse."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import layers, ops

from pdp_keras.models import model_inputs, require_tensorflow
from pdp_keras.rewrites import Rewritten, rewrite_for_xnnpack
from pdp_keras.targets.report import DeployCheck, LayerCheck
from pdp_keras.targets.xnnpack_kernels import (
    NAMES,
    PROCESSORS,
    Processor,
    SparseKernel,
    sparse_kernel,
)
from pdp_keras.targets.xnnpack_rules import (
    LEAST_SPARSITY,
    SparseCheck,
    SparsePart,
    check_sparse,
)
from pdp_keras.tflite import (
    QUANTIZATIONS,
    FileGraph,
    FileOperator,
    conversion,
    edit_for_xnnpack,
    read_graph,
)

_NO_WAY = (
    "it is on no way from a 3x3 convolution with stride 2 on 3 channels to a global "
    "average pooling on which every operator fits"
)
# What each target runs on. Both, where the name says nothing.
_RUNS_ON = {
    "xnnpack": ("arm64", "wasm"),
    "xnnpack-arm64": ("arm64",),
    "xnnpack-wasm": ("wasm",),
}
# Below, a kernel is dense to XNNPACK's rule of blocks, whatever it was pruned by.
_FEW_ZEROS = 0.1
_KERNELS: dict[str, tuple[type, ...]] = {
    "CONV_2D": (layers.Conv2D, layers.SeparableConv2D),
    "DEPTHWISE_CONV_2D": (layers.DepthwiseConv2D, layers.SeparableConv2D),
    "FULLY_CONNECTED": (layers.Dense,),
}


def check_xnnpack(
    model: Any, rewritten: Rewritten | None = None, *, target: str = "xnnpack"
) -> DeployCheck:
    """Converts a model as `export_tflite` does, and reads off what would run sparse.

    Args:
        model: a built Sequential or Functional model without pruning wrappers.
        rewritten: from `rewrite_for_xnnpack`, where it is at hand.
        target: "xnnpack", or "xnnpack-arm64" or "xnnpack-wasm", which have other
            kernels for zeros in blocks.

    Raises:
        ValueError: if the model has no graph or the size of an input is not fixed.
        ExportError: if it cannot be converted.
    """
    require_tensorflow("The check for 'xnnpack'")
    rewritten = rewritten or rewrite_for_xnnpack(model)
    inputs = model_inputs(rewritten.model)
    trace = conversion.traced(
        conversion.float32_model(rewritten.model, inputs),
        inputs,
        1,
        edit_for_xnnpack,
    )
    data = conversion.tflite_bytes(trace, QUANTIZATIONS[None], [], sparse=False)
    graph = read_graph(data)
    found = check_sparse(graph)
    places = dict(_operators_of(rewritten.model, graph))
    processors = [PROCESSORS[name] for name in _RUNS_ON[target]]
    rows, prunable, slowed = [], [], []
    zeros = weights = 0
    for layer in rewritten.model.layers:
        kernels = _kernels(layer)
        if not kernels:
            continue
        kernel = kernels[-1]
        operator = places.get(id(layer))
        row = _row(layer, kernel, operator, graph, found)
        if row.runs == "sparse":
            taken = sparse_kernel(_in_file_order("CONV_2D", kernel))
            # Vectors are of pixels: on a single one (a gate) all kernels are alike.
            has_pixels = operator is not None and _pixels(graph.operators[operator]) > 1
            slow = [p for p in processors if has_pixels and taken.is_slow_on(p)]
            row = _with_kernel(row, taken, _RUNS_ON[target], slow)
            if slow:
                slowed.append(layer.name)
        elif row.runs != "beside":
            dense = dict.fromkeys(_RUNS_ON[target], "dense")
            row = dataclasses.replace(row, kernels=dense)
        rows.append(row)
        if row.runs in ("sparse", "sparse with more zeros"):
            prunable.append(layer.name)
            zeros += int(np.sum(kernel == 0))
            weights += kernel.size
    summary = _summary(found, rows)
    if slowed:
        where = " and ".join(p.name for p in processors if p.scalar)
        summary += (
            f"; {len(slowed)} of these convolutions take pairs or fours of outputs, "
            f"for which {where} has only scalar kernels, slower than dense ones"
        )
    return DeployCheck(
        target,
        tuple(rows),
        summary,
        tuple(prunable),
        zeros / weights if weights else 0.0,
        LEAST_SPARSITY,
        rewritten.turned,
        tuple(slowed),
    )


def _pixels(operator: FileOperator) -> int:
    """Of the image that an operator reads."""
    return int(np.prod(operator.inputs[0].shape[1:3]))


def _with_kernel(
    row: LayerCheck,
    taken: SparseKernel,
    names: tuple[str, ...],
    slow: list[Processor],
) -> LayerCheck:
    """The row with the sparse kernel of each processor, and why."""
    reason, remedy = taken.reason, ""
    if slow:
        where = " and ".join(processor.name for processor in slow)
        reason += f"; {where} has only a scalar kernel for them"
        remedy = (
            "prune it"
            if row.sparsity < _FEW_ZEROS
            else 'prune with mode="unstructured", or export for "xnnpack-arm64" alone'
        )
    return dataclasses.replace(
        row,
        reason=reason,
        remedy=remedy,
        kernels={name: NAMES[taken.on(PROCESSORS[name])] for name in names},
    )


def _summary(found: SparseCheck, rows: list[LayerCheck]) -> str:
    if not found.parts:
        return f"everything runs dense; {_first_reason(rows)}"
    sentences = []
    for part in found.parts:
        what = (
            f"{part.sparsity:.1%} of the {part.weights:,} weights of 1x1 convolutions "
            "are zero"
        )
        sentences.append(
            f"{what}, so they run sparse"
            if part.runs_sparse
            else f"{what}; they run sparse with more than {LEAST_SPARSITY:.1%}"
        )
    return "; ".join(sentences)


def _first_reason(rows: list[LayerCheck]) -> str:
    """What breaks a rule itself comes before what is only in its company."""
    reasons = sorted((row for row in rows if row.reason), key=_is_in_company)
    if not reasons:
        return "there is no convolution"
    return f"{reasons[0].layer}: {reasons[0].reason}"


def _is_in_company(row: LayerCheck) -> bool:
    return row.reason == _NO_WAY


def _row(
    layer: Any,
    kernel: np.ndarray,
    operator: int | None,
    graph: FileGraph,
    found: SparseCheck,
) -> LayerCheck:
    facts: dict[str, Any] = {
        "layer": layer.name,
        "shape": kernel.shape,
        "sparsity": float(np.mean(kernel == 0)),
    }
    if operator is None:
        reason = "the file has its kernel in another form"
        return LayerCheck(**facts, runs="dense", reason=reason)
    part = found.part_of(operator)
    if part is not None:
        return LayerCheck(**facts, **_inside(graph.operators[operator], part))
    role = found.roles[operator]
    if graph.operators[operator].kind == "FULLY_CONNECTED":
        reason = "Dense layers on vectors have no sparse kernels"
        return LayerCheck(**facts, runs="dense", reason=reason)
    if role.reason:
        return LayerCheck(**facts, runs="dense", reason=role.reason, remedy=role.remedy)
    return LayerCheck(**facts, runs="dense", reason=_blocked(operator, graph, found))


def _inside(operator: FileOperator, part: SparsePart) -> dict[str, Any]:
    if operator.kind != "CONV_2D" or operator.inputs[1].shape[1:3] != (1, 1):
        return {"runs": "beside"}
    if part.runs_sparse:
        return {"runs": "sparse"}
    return {
        "runs": "sparse with more zeros",
        "reason": f"{part.sparsity:.1%} of the 1x1 weights around it are zero",
        "remedy": f"prune them to more than {LEAST_SPARSITY:.1%}",
    }


def _blocked(operator: int, graph: FileGraph, found: SparseCheck) -> str:
    blocker = found.blockers.get(operator)
    if blocker is not None and found.roles[blocker].reason:
        kind, why = graph.operators[blocker].kind, found.roles[blocker].reason
        return f"it reads what comes from or goes to a {kind}, and {why}"
    return _NO_WAY


def _kernels(layer: Any) -> list[np.ndarray]:
    """The kernels of a layer that the table knows, in the order of the file."""
    if type(layer) is layers.SeparableConv2D:
        found = [layer.depthwise_kernel, layer.pointwise_kernel]
    elif type(layer) in (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense):
        found = [layer.kernel]
    else:
        return []
    return [ops.convert_to_numpy(kernel) for kernel in found]


def _operators_of(model: Any, graph: FileGraph) -> Iterator[tuple[int, int]]:
    """The operator that has a layer's last kernel, by the layer's id."""
    stored = {
        i: op.inputs[1].values
        for i, op in enumerate(graph.operators)
        if op.kind in _KERNELS and op.inputs[1].values is not None
    }
    taken: set[int] = set()
    for layer in model.layers:
        kernels = _kernels(layer)
        if not kernels:
            continue
        for i, values in stored.items():
            kind = graph.operators[i].kind
            if i in taken or not isinstance(layer, _KERNELS[kind]):
                continue
            wanted = _in_file_order(kind, kernels[-1])
            if wanted.shape == values.shape and np.allclose(
                wanted, values, rtol=1e-5, atol=1e-7
            ):
                taken.add(i)
                yield id(layer), i
                break


def _in_file_order(kind: str, kernel: np.ndarray) -> np.ndarray:
    if kind == "FULLY_CONNECTED":
        return kernel.T
    if kind == "DEPTHWISE_CONV_2D":
        return kernel.reshape(1, *kernel.shape[:2], -1)
    return np.moveaxis(kernel, -1, 0)
