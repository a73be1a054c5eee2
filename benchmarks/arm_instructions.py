"""Instructions of sparse and dense stock networks on Arm processors, emulated.

    bash benchmarks/aarch64/setup.sh           # once; Debian 12
    python benchmarks/arm_instructions.py      # minutes each
    python benchmarks/arm_instructions.py --blocks --sparsities=0.85

The files are those of `browser_speed.py`: dense, and with zeros in their 1x1
convolutions, rewritten for "xnnpack". Each runs in LiteRT for aarch64, one thread,
under QEMU for several processors, and is compared with Keras. Instructions are not
time: a processor may execute the regular ones of a dense kernel faster. With `--blocks`
the zeros of one sparsity are scattered, or in pairs or fours of output channels.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

import arm_emulation
import common  # before the others: it quiets TensorFlow
import numpy as np
from absl import app, flags
from stock_files import BLOCKS, NETWORKS, SPARSITIES, block_files, stock_files

_ONLY = flags.DEFINE_string(
    "only",
    "MobileNet|MobileNetV2|MobileNetV3Large|EfficientNetB0",
    "Regular expression of whole names of stock_files.NETWORKS.",
)
_PROCESSORS = flags.DEFINE_list(
    "processors", "cortex-a53,cortex-a72,cortex-a76", "See arm_emulation.PROCESSORS."
)
_SPARSITIES = flags.DEFINE_list(
    "sparsities", "0.85,0.95", f"Of the 1x1 convolutions, among {SPARSITIES}."
)
_BLOCKS = flags.DEFINE_bool("blocks", False, f"Compare {list(BLOCKS)} zeros.")
_FILES = flags.DEFINE_string(
    "files", "pdp_output/browser_speed", "Folder for the files, made once."
)
_OUTPUT = flags.DEFINE_string(
    "output", "pdp_output/arm_instructions.jsonl", "Results file, added to."
)


def measure(name: str, processor: str) -> dict[str, Any]:
    """One network on one processor."""
    folder = pathlib.Path(_FILES.value).expanduser() / name
    row: dict[str, Any] = {"name": name, "processor": processor}
    sparsities = [float(text) for text in _SPARSITIES.value]
    if _BLOCKS.value:
        (sparsity,) = sparsities
        folder = folder / f"blocks_{sparsity}"
        about = block_files(name, sparsity, folder)
        chosen = list(range(1 + len(BLOCKS)))
        columns: dict[str, Any] = {"sparsity": sparsity, "zeros": list(BLOCKS)}
    else:
        about = stock_files(name, folder)
        # Behind the dense file, two for each sparsity: converted and rewritten.
        chosen = [0, *(2 + 2 * SPARSITIES.index(sparsity) for sparsity in sparsities)]
        columns = {"sparsities": sparsities}
    if "reason" in about:
        return row | {"reason": about["reason"]}
    with np.load(folder / "expected.npz") as saved:
        image, expected = saved["images"][:1], saved["outputs"][:, :1]
    runs = arm_emulation.run_files(
        [(folder / f"{i}.tflite").read_bytes() for i in chosen],
        [{about["input"]: image}],
        processor=processor,
    )
    differences = [
        common.relative_difference(next(iter(run.outputs[0].values())), expected[i])
        for i, run in zip(chosen, runs, strict=True)
    ]
    return row | {
        **columns,
        "instructions": [run.instructions for run in runs],
        "difference": max(differences),
    }


def _is_asked_for(row: dict[str, Any]) -> bool:
    """Whether a row of the results has the columns of this run."""
    if _BLOCKS.value:
        return row.get("sparsity") == float(_SPARSITIES.value[0])
    return "zeros" not in row


def print_row(row: dict[str, Any]) -> None:
    """A line of the table."""
    start = f"{row['name']:<18}{row['processor']:<14}"
    if "reason" in row:
        print(f"{start} runs dense: {row['reason']}", flush=True)
        return
    dense, *others = row["instructions"]
    cells = "".join(f"{n / 1e6:>9.1f} ({dense / n:.1f}x)" for n in others)
    print(
        f"{start}{dense / 1e6:>8.1f}{cells}   equal to {row['difference']:.0e}",
        flush=True,
    )


def main(argv: list[str]) -> None:
    """All that is not in the results yet."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    if lacking := arm_emulation.missing():
        raise app.UsageError(lacking)
    if _BLOCKS.value and len(_SPARSITIES.value) != 1:
        raise app.UsageError("--blocks compares at one sparsity: --sparsities=0.85")
    path = pathlib.Path(_OUTPUT.value).expanduser()
    rows = {
        (row["name"], row["processor"]): row
        for row in common.read_rows(path)
        if _is_asked_for(row)
    }
    print(common.describe_machine())
    kinds = f"{list(BLOCKS)} " if _BLOCKS.value else ""
    head = f"{kinds}at sparsities {_SPARSITIES.value}"
    print(f"{'M instructions':<32}{'dense':>8}  {head}")
    for name in NETWORKS:
        if not re.fullmatch(_ONLY.value, name):
            continue
        for processor in _PROCESSORS.value:
            key = name, processor
            if key not in rows:
                rows[key] = measure(name, processor)
                common.append_row(path, rows[key])
            print_row(rows[key])


if __name__ == "__main__":
    app.run(main)
