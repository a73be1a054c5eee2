"""What zeros do on Arm's Ethos-U NPUs.

Every Ethos-U reads its weights compressed, so zeros save memory traffic wherever they
are. The U85 also skips half of the multiplications of a kernel that has at most 2
nonzeros in every 4 consecutive weights along its input channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from pdp_keras.models import Kernel, find_kernels
from pdp_keras.targets.report import DeployCheck, LayerCheck

_PAIRS = 'prune with mode="2:4" or "1:4" and the U85 halves its multiplications'


def check_ethos_u(model: Any) -> DeployCheck:
    """Which kernels of a model an Ethos-U85 skips zeros in; the others compress."""
    kernels, _ = find_kernels(model)
    rows, prunable = [], []
    zeros = weights = 0
    for kernel in kernels:
        values = ops.convert_to_numpy(kernel.variable)
        facts: dict[str, Any] = {
            "layer": kernel.path,
            "shape": kernel.shape,
            "sparsity": float(np.mean(values == 0)),
        }
        if not kernel.axes.inputs:
            row = LayerCheck(
                **facts,
                runs="compressed",
                reason="it has no input channels to find groups of 4 along",
            )
        else:
            prunable.append(kernel.path)
            zeros += int(np.sum(values == 0))
            weights += values.size
            if has_pairs(values, kernel):
                row = LayerCheck(
                    **facts,
                    runs="sparse",
                    reason="2:4, which the U85 skips; U55 and U65 compress it",
                )
            else:
                row = LayerCheck(**facts, runs="compressed", remedy=_PAIRS)
        rows.append(row)
    pairs = sum(row.runs == "sparse" for row in rows)
    return DeployCheck(
        "ethos-u",
        tuple(rows),
        f"{pairs} of {len(rows)} kernels have at most 2 nonzeros in every 4 along "
        "their input channels, of which an Ethos-U85 skips half; zeros elsewhere are "
        "compressed away",
        tuple(dict.fromkeys(prunable)),
        zeros / weights if weights else 0.0,
        0.0,
    )


def has_pairs(values: np.ndarray, kernel: Kernel) -> bool:
    """Whether every 4 consecutive weights along the input have at most 2 nonzeros."""
    axes = kernel.axes.inputs
    moved = np.moveaxis(values != 0, axes, range(-len(axes), 0))
    rows = moved.reshape(-1, int(np.prod([values.shape[a] for a in axes])))
    tail = -rows.shape[1] % 4
    groups = np.pad(rows, ((0, 0), (0, tail))).reshape(-1, 4)
    return rows.shape[1] >= 4 and bool((groups.sum(axis=1) <= 2).all())
