"""Runs .tflite files in LiteRT on an emulated Arm processor, and counts instructions.

LiteRT for aarch64 runs its NEON kernels under QEMU's user mode. Instructions are not
time, but they do not depend on the machine: two runs differ by less than a hundred.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

FOLDER = pathlib.Path(
    os.environ.get(
        "PDP_AARCH64", pathlib.Path(__file__).resolve().parents[1] / ".aarch64"
    )
)
_GUEST = pathlib.Path(__file__).resolve().parent / "aarch64" / "guest.py"
_OLD = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_NEW = f"{_OLD} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
# What /proc/cpuinfo says of a processor, its part and its features: from that XNNPACK
# chooses its kernels.
PROCESSORS = {
    "cortex-a53": ("0xd03", _OLD),
    "cortex-a72": ("0xd08", _OLD),
    "cortex-a76": ("0xd0b", _NEW),
    "neoverse-n1": ("0xd0c", _NEW),
}
# The marker calls themselves.
_MARKER = 900


class EmulationError(RuntimeError):
    """The emulated machine is missing, or a file does not run on it."""


@dataclasses.dataclass(frozen=True)
class ArmRun:
    """What a file did.

    Attributes:
        instructions: executed in one inference.
        outputs: for each batch output name → array.
    """

    instructions: int
    outputs: list[dict[str, np.ndarray]]


def missing() -> str:
    """What is missing, and how to get it; empty if nothing."""
    if shutil.which("qemu-aarch64") is None or not (FOLDER / "installed").exists():
        return "Needs `bash benchmarks/aarch64/setup.sh` (Debian 12)"
    return ""


def run_files(
    files: Sequence[bytes],
    batches: Sequence[Mapping[str, np.ndarray]],
    *,
    processor: str = "cortex-a72",
    timeout: float = 600,
) -> list[ArmRun]:
    """Runs files, one thread.

    Args:
        files: contents of .tflite files with the same inputs.
        batches: input name → array, of the files' fixed shape.
        processor: a key of `PROCESSORS`.
        timeout: seconds for everything.

    Returns:
        One `ArmRun` for each file.

    Raises:
        ValueError: for another processor.
        EmulationError: if something is missing, or a file does not load or run.
    """
    if processor not in PROCESSORS:
        raise ValueError(
            f"processor must be one of {list(PROCESSORS)}. "
            f"Received: processor={processor!r}"
        )
    if lacking := missing():
        raise EmulationError(lacking)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        inputs = [folder / f"in{i}.npz" for i in range(len(batches))]
        for path, batch in zip(inputs, batches, strict=True):
            np.savez(path, **{k: np.asarray(v) for k, v in batch.items()})
        jobs = []
        for i, data in enumerate(files):
            (folder / f"{i}.tflite").write_bytes(data)
            jobs.append(
                {
                    "model": str(folder / f"{i}.tflite"),
                    "inputs": [str(path) for path in inputs],
                    "outputs": [
                        str(folder / f"out{i}_{j}.npz") for j in range(len(inputs))
                    ],
                }
            )
        (folder / "job.json").write_text(json.dumps(jobs))
        command = [
            *("qemu-aarch64", "-cpu", processor, "-L", str(_root(folder, processor))),
            *("-plugin", str(FOLDER / "count.so"), "-E", "PYTHONPATH=/site"),
            *(str(FOLDER / "root/usr/bin/python3.11"), str(_GUEST)),
            str(folder / "job.json"),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise EmulationError(f"The emulation did not end in {timeout} s") from error
        counts = re.findall(r"^INSTRUCTIONS (\d+)$", done.stderr, re.MULTILINE)
        if done.returncode or len(counts) != len(files):
            raise EmulationError(
                f"A file must run on {processor}: {done.stderr.strip()[-2000:]}"
            )
        return [
            ArmRun(
                int(count) - _MARKER, [dict(np.load(path)) for path in job["outputs"]]
            )
            for count, job in zip(counts, jobs, strict=True)
        ]


def _root(folder: pathlib.Path, processor: str) -> pathlib.Path:
    """The guest's file system, with a /proc/cpuinfo of its own."""
    root = folder / "root"
    root.mkdir()
    for entry in (FOLDER / "root").iterdir():
        (root / entry.name).symlink_to(entry)
    (root / "proc").mkdir()
    part, features = PROCESSORS[processor]
    (root / "proc" / "cpuinfo").write_text(
        f"processor\t: 0\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\n"
        "CPU revision\t: 3\n"
    )
    return root
