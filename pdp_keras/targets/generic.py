"""What zeros do on a device of which nothing is known: a smaller file, no speed."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from pdp_keras.models import find_kernels
from pdp_keras.targets.report import DeployCheck, LayerCheck


def check_generic(model: Any) -> DeployCheck:
    """Lists the kernels; on no device in particular, zeros make a file smaller."""
    kernels, _ = find_kernels(model)
    rows = []
    zeros = weights = 0
    for kernel in kernels:
        values = ops.convert_to_numpy(kernel.variable)
        zeros += int(np.sum(values == 0))
        weights += values.size
        rows.append(
            LayerCheck(
                kernel.path, kernel.shape, float(np.mean(values == 0)), "compressed"
            )
        )
    return DeployCheck(
        "generic",
        tuple(rows),
        "zeros make the file smaller and nothing faster; ask for the device that you "
        "ship to, or remove channels, which is faster everywhere",
        tuple(dict.fromkeys(row.layer for row in rows)),
        zeros / weights if weights else 0.0,
        0.0,
    )
