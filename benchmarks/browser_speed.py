"""How much faster unstructured sparsity makes stock networks in a real browser.

    python benchmarks/browser_speed.py                       # all; minutes each
    python benchmarks/browser_speed.py --only='MobileNet.*'
    python benchmarks/browser_speed.py --only='MobileNet|MobileNetV2' --blocks=0.85

Each network of keras.applications, with random weights whose output depends on the
input, gets the smallest weights of its 1x1 convolutions set to zero and is exported
twice: as TensorFlow converts it, and rewritten for "xnnpack". Both files and the dense
one run in LiteRT.js in headless Chromium, one thread, turn by turn, and are compared
with Keras. Networks that cannot run sparse are listed with the rule that stops them.
With `--blocks` the zeros of one sparsity are scattered, or in pairs or fours of output
channels, for which XNNPACK has only scalar kernels in WebAssembly.
The files are made once; `--sweeps` times them several times, some minutes apart.
Needs Node.js with npm, and Chromium.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

import common  # before the others: it finds the examples and quiets TensorFlow
import litert_js
import numpy as np
from absl import app, flags
from stock_files import BLOCKS, NETWORKS, SPARSITIES, block_files, stock_files

_ONLY = flags.DEFINE_string("only", ".*", "Regular expression of whole names.")
_SWEEPS = flags.DEFINE_integer(
    "sweeps", 1, "How often to measure it all, as a shared machine changes.", 1
)
_BLOCKS = flags.DEFINE_float(
    "blocks", None, f"Compare {list(BLOCKS)} zeros at this sparsity."
)
_FILES = flags.DEFINE_string(
    "files", "pdp_output/browser_speed", "Folder for the files, made once."
)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Turns of each file.")
_RUNS = flags.DEFINE_integer("runs", 10, "Inferences a turn.")
_OUTPUT = flags.DEFINE_string(
    "output", "pdp_output/browser_speed.jsonl", "Results file, added to."
)


def measure(name: str) -> dict[str, Any]:
    """Everything about one network."""
    folder = pathlib.Path(_FILES.value).expanduser() / name
    if _BLOCKS.value is None:
        row = stock_files(name, folder)
    else:
        folder = folder / f"blocks_{_BLOCKS.value}"
        row = block_files(name, _BLOCKS.value, folder)
    if "reason" in row:
        return row
    with np.load(folder / "expected.npz") as saved:
        images, expected = saved["images"], saved["outputs"]
    files = [(folder / f"{i}.tflite").read_bytes() for i in range(len(expected))]
    batches = [{row["input"]: images[i : i + 1]} for i in range(len(images))]
    results = litert_js.run_files(
        files, batches, rounds=_ROUNDS.value, runs=_RUNS.value
    )
    differences = []
    for result, wanted in zip(results, expected, strict=True):
        got = [next(iter(o.values())).reshape(wanted.shape[1:]) for o in result.outputs]
        differences.append(common.relative_difference(np.stack(got), wanted))
    times = [result.milliseconds for result in results]
    if _BLOCKS.value is None:
        columns = {"converted_ms": times[1::2], "rewritten_ms": times[2::2]}
    else:
        columns = {"zeros": list(BLOCKS), "blocks_ms": times[1:]}
    return row | {
        "signal": common.relative_difference(expected[0][::-1], expected[0]),
        "difference": max(differences),
        "dense_ms": times[0],
        **columns,
        "bytes": [len(data) for data in files],
        "chromium": results[0].version,
    }


def median_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row for all sweeps: the median time, and the median of the ratios."""
    if "reason" in rows[0]:
        return rows[0]
    dense = np.array([row["dense_ms"] for row in rows])
    table: dict[str, Any] = {**rows[0], "dense_ms": float(np.median(dense))}
    for kind in _kinds(rows[0]):
        times = np.array([row[f"{kind}_ms"] for row in rows])
        table[f"{kind}_ms"] = np.median(times, axis=0).tolist()
        table[f"{kind}_faster"] = np.median(dense[:, None] / times, axis=0).tolist()
    return table | {"difference": max(row["difference"] for row in rows)}


def _kinds(row: dict[str, Any]) -> tuple[str, ...]:
    return ("blocks",) if "blocks_ms" in row else ("rewritten", "converted")


def print_row(row: dict[str, Any]) -> None:
    """A few lines of the table."""
    if "reason" in row:
        print(f"{row['name']:<18} runs dense: {row['reason']}", flush=True)
        return
    for kind in _kinds(row):
        cells = "".join(
            f"{ms:>8.1f} ({faster:.1f}x)"
            for ms, faster in zip(row[f"{kind}_ms"], row[f"{kind}_faster"], strict=True)
        )
        print(f"{row['name']:<18}{row['dense_ms']:>8.1f}  {kind}{cells}")
    print(
        f"{'':<26}  outputs equal to {row['difference']:.0e} of their scale (two "
        f"images differ by {row['signal']:.1g})",
        flush=True,
    )


def main(argv: list[str]) -> None:
    """All networks that are not in the results yet."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    try:
        litert_js.install()
    except litert_js.BrowserError as error:
        raise app.UsageError(str(error)) from error
    path = pathlib.Path(_OUTPUT.value).expanduser()
    rows = common.read_rows(path)
    print(common.describe_machine())
    kinds = f"sparsities {SPARSITIES}"
    if _BLOCKS.value is not None:
        kinds = f"sparsity {_BLOCKS.value}: {list(BLOCKS)}"
        rows = [row for row in rows if row.get("sparsity") == _BLOCKS.value]
    else:
        rows = [row for row in rows if "zeros" not in row]
    print(f"{'ms, one thread':<18}{'dense':>8}  at {kinds}")
    names = [name for name in NETWORKS if re.fullmatch(_ONLY.value, name)]
    for sweep in range(_SWEEPS.value):
        for name in names:
            if any(row["name"] == name and row["sweep"] == sweep for row in rows):
                continue
            rows.append(measure(name) | {"sweep": sweep})
            common.append_row(path, rows[-1])
            print_row(median_of(rows[-1:]))
    print(f"\nMedians of {_SWEEPS.value} sweeps")
    for name in names:
        own = [row for row in rows if row["name"] == name]
        print_row(median_of(own[: _SWEEPS.value]))


if __name__ == "__main__":
    app.run(main)
