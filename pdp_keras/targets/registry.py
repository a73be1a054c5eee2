"""The table of targets: what a family of devices takes, and what suits it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from pdp_keras.configs import shown
from pdp_keras.rewrites import Rewritten, rewrite_for_xnnpack
from pdp_keras.targets.ethos_u import check_ethos_u
from pdp_keras.targets.generic import check_generic
from pdp_keras.targets.report import DeployCheck
from pdp_keras.targets.xnnpack import check_xnnpack
from pdp_keras.tflite import QUANTIZATIONS, Edit, edit_for_xnnpack


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What a family of devices can take.

    Attributes:
        devices: which these are, for messages.
        quantizations: the kinds of quantization that it runs.
        sparse_encoding: whether zeros may be stored sparse.
        check: what it would make of a model.
        rewrite: the exact rewrites that it needs, from the model and `turn_inputs`.
        blocks: how many output channels may share their zeros, where that has fast
            kernels on all of these devices; None where it does not matter.
        edit: what is done to the file's bytes, without changing what it computes.
        fixed_batch: whether the file must have a fixed batch.
        why_quantized: the reason behind `quantizations`.
    """

    devices: str = ""
    quantizations: tuple[str | None, ...]
    sparse_encoding: bool
    check: Callable[..., DeployCheck] = check_generic
    rewrite: Callable[..., Rewritten] | None = None
    edit: Edit | None = None
    fixed_batch: bool = False
    blocks: tuple[int, ...] | None = None
    why_quantized: str = ""


_XNNPACK = Target(
    devices="LiteRT on the CPU: Android, iOS, browsers, Arm Linux",
    quantizations=(None, "float16"),
    sparse_encoding=True,
    check=check_xnnpack,
    rewrite=rewrite_for_xnnpack,
    edit=edit_for_xnnpack,
    fixed_batch=True,
    blocks=(),
    why_quantized="its sparse kernels compute in floating point",
)

TARGETS: dict[str, Target] = {
    "generic": Target(
        devices="any device with LiteRT",
        quantizations=tuple(QUANTIZATIONS),
        sparse_encoding=True,
    ),
    "xnnpack": _XNNPACK,
    "xnnpack-arm64": dataclasses.replace(
        _XNNPACK,
        devices="LiteRT on 64-bit Arm CPUs: Android, iOS, Arm Linux",
        check=functools.partial(check_xnnpack, target="xnnpack-arm64"),
        blocks=(2, 4),
    ),
    "xnnpack-wasm": dataclasses.replace(
        _XNNPACK,
        devices="LiteRT.js in browsers",
        check=functools.partial(check_xnnpack, target="xnnpack-wasm"),
    ),
    "ethos-u": Target(
        devices="Arm Ethos-U55, U65 and U85",
        quantizations=("int8",),
        sparse_encoding=False,
        check=check_ethos_u,
        fixed_batch=True,
        why_quantized="the NPU computes in int8",
    ),
}


def get(target: Any) -> Target:
    """The row of a target.

    Raises:
        ValueError: if there is none of that name.
    """
    if not isinstance(target, str) or target not in TARGETS:
        raise ValueError(
            f"`target` must be one of {list(TARGETS)}. Received: target={shown(target)}"
        )
    return TARGETS[target]
