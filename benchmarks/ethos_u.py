"""What Arm's compiler Vela makes of pruned networks, for each family of Ethos-U.

    python benchmarks/ethos_u.py                        # half an hour
    python benchmarks/ethos_u.py --only=MobileNetV2

Stock networks with random weights are pruned at once (compile time and Vela's
estimates do not depend on training), exported as int8 for the target "ethos-u", and
compiled for each accelerator. Needs `pip install ethos-u-vela`.
"""

from __future__ import annotations

import pathlib
import re
import tempfile
from typing import Any

import common  # before the others: it quiets TensorFlow
import keras
from absl import app, flags
from stock_files import build

import pdp_keras
from pdp_keras.targets.vela import compile_for_ethos_u

_ONLY = flags.DEFINE_string("only", ".*", "Regular expression of whole names.")
_ACCELERATORS = flags.DEFINE_list(
    "accelerators", "ethos-u55-256,ethos-u65-512,ethos-u85-256", "Of Arm's NPUs."
)
_OUTPUT = flags.DEFINE_string(
    "output", "pdp_output/ethos_u.jsonl", "Results file, added to."
)

NETWORKS = ("MobileNet", "MobileNetV2")
# The arguments of `prune_model`; None leaves the network dense.
PRUNED: dict[str, dict[str, Any] | None] = {
    "dense": None,
    "85 % unstructured": {"sparsity": 0.85},
    "2:4": {"mode": "2:4"},
    "1:4": {"mode": "1:4"},
    "50 % of the channels": {
        "sparsity": 0.5,
        "mode": pdp_keras.Channel(round_to=8, min_channels=8),
    },
}


def build_pruned(network: str, how: str) -> keras.Model:
    """The network, pruned."""
    keras.utils.set_random_seed(0)
    model = build(network)
    if (arguments := PRUNED[how]) is None:
        return model
    pruned = common.prune_now(pdp_keras.prune_model(model, **arguments))
    small = pdp_keras.strip_pruning(pruned)
    common.fit_normalizations(small, common.random_inputs(small, 8, seed=2))
    return small


def measure(network: str, how: str) -> list[dict[str, Any]]:
    """A row for each accelerator."""
    model = build_pruned(network, how)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.tflite"
        report = pdp_keras.export_tflite(
            model,
            path,
            target="ethos-u",
            quantize="int8",
            representative_dataset=common.random_inputs(model, 8, seed=2),
        )
        data = path.read_bytes()
    rows = []
    for accelerator in _ACCELERATORS.value:
        compiled = compile_for_ethos_u(data, accelerator)[1]
        rows.append(
            {
                "network": network,
                "pruned": how,
                "accelerator": accelerator,
                "milliseconds": compiled.milliseconds,
                "macs": compiled.macs,
                "weights_bytes": compiled.weights_bytes,
                "sram_bytes": compiled.sram_bytes,
                "cpu_operators": compiled.cpu_operators,
                "file_bytes": report.size_bytes,
                "gzip_bytes": report.gzip_bytes,
                "version": compiled.version,
            }
        )
    return rows


def print_row(row: dict[str, Any]) -> None:
    """A line of the table."""
    print(
        f"{row['network']:<13}{row['pruned']:<22}{row['accelerator']:<15}"
        f"{row['milliseconds']:>8.2f} ms{row['macs'] / 1e6:>8.0f} M MACs"
        f"{row['weights_bytes'] / 1024:>8.0f} KiB of weights"
        f"{row['sram_bytes'] / 1024:>8.0f} KiB SRAM"
        f"{row['cpu_operators']:>4} on the CPU",
        flush=True,
    )


def main(argv: list[str]) -> None:
    """Everything that is not in the results yet."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    path = pathlib.Path(_OUTPUT.value).expanduser()
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in common.read_rows(path):
        found.setdefault((row["network"], row["pruned"]), []).append(row)
    print(common.describe_machine())
    for network in NETWORKS:
        if not re.fullmatch(_ONLY.value, network):
            continue
        for how in PRUNED:
            rows = found.get((network, how))
            if rows is None:
                rows = measure(network, how)
                for row in rows:
                    common.append_row(path, row)
            for row in rows:
                print_row(row)


if __name__ == "__main__":
    app.run(main)
