"""Compiles an int8 .tflite file for an Arm Ethos-U NPU, with Arm's compiler Vela.

`ethos-u-vela` is an optional package. What it reports are its own estimates for a
reference system; nothing runs on a device here.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import importlib.util
import pathlib
import re
import subprocess
import sys
import tempfile

ACCELERATORS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)

_MAIN = "import sys; from ethosu.vela import vela; sys.exit(vela.main())"
_ON_CPU = r"CPU operators = (\d+)"


class VelaError(RuntimeError):
    """Vela refuses a file."""


@dataclasses.dataclass(frozen=True)
class VelaReport:
    """Vela's estimate for one file on one accelerator.

    Attributes:
        accelerator: one of `ACCELERATORS`.
        path: the compiled file; empty if it was not written.
        milliseconds: of one inference.
        cycles: of one inference, waiting for memory included.
        macs: multiply-accumulates that the NPU carries out.
        weights_bytes: the weights as the NPU reads them, compressed.
        sram_bytes: on-chip memory used at most.
        off_chip_bytes: off-chip flash or memory used.
        cpu_operators: operators that the NPU cannot run.
        version: of `ethos-u-vela`.
    """

    accelerator: str
    path: str
    milliseconds: float
    cycles: float
    macs: int
    weights_bytes: int
    sram_bytes: int
    off_chip_bytes: int
    cpu_operators: int
    version: str

    def __str__(self) -> str:
        return (
            f"{self.accelerator}: {self.milliseconds:.3g} ms, {self.cycles:,.0f} "
            f"cycles, {self.macs:,} multiplications, {self.weights_bytes:,} bytes of "
            f"weights, {self.sram_bytes:,} of SRAM, {self.cpu_operators} operators on "
            f"the CPU (estimated by ethos-u-vela {self.version})"
        )


def check_accelerator(accelerator: str) -> None:
    """Checks the accelerator's name, and that Vela is there.

    Raises:
        ValueError: for another name than those of `ACCELERATORS`.
        ImportError: if `ethos-u-vela` is not installed.
    """
    if accelerator not in ACCELERATORS:
        raise ValueError(
            f"accelerator must be one of {list(ACCELERATORS)}. "
            f"Received: accelerator={accelerator!r}"
        )
    if importlib.util.find_spec("ethosu") is None:
        raise ImportError(
            "Compiling for an Ethos-U needs the package 'ethos-u-vela': "
            "`pip install ethos-u-vela`. Without `accelerator` the file is written "
            "and not compiled."
        )


def compile_for_ethos_u(data: bytes, accelerator: str) -> tuple[bytes, VelaReport]:
    """Compiles a file.

    Args:
        data: the content of a full int8 .tflite file with a fixed batch.
        accelerator: one of `ACCELERATORS`: the NPU and its multiplications a cycle.

    Returns:
        The content of the compiled file, and Vela's figures.

    Raises:
        ValueError, ImportError: see `check_accelerator`.
        VelaError: if Vela refuses the file.
    """
    check_accelerator(accelerator)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        source = folder / "model.tflite"
        source.write_bytes(data)
        # In a process of its own: Vela keeps state and may end the process.
        done = subprocess.run(
            [
                sys.executable,
                *("-c", _MAIN, str(source)),
                f"--accelerator-config={accelerator}",
                f"--output-dir={folder}",
            ],
            capture_output=True,
            text=True,
        )
        summaries = list(folder.glob("model_summary_*.csv"))
        if done.returncode or not summaries:
            raise VelaError(
                "Vela must be able to compile the file. It said: "
                f"{(done.stderr or done.stdout).strip()[-1000:]}"
            )
        (row,) = csv.DictReader(summaries[0].read_text().splitlines())
        compiled = (folder / "model_vela.tflite").read_bytes()

    def number(name: str) -> float:
        return float(row.get(name) or 0)

    return compiled, VelaReport(
        accelerator,
        "",
        1000 * number("inference_time"),
        number("cycles_total"),
        int(number("nn_macs")),
        int(number("total_npu_encoded_weights")),
        int(1024 * number("sram_memory_used")),
        int(1024 * (number("off_chip_flash_memory_used") + number("dram_memory_used"))),
        int(on_cpu[1]) if (on_cpu := re.search(_ON_CPU, done.stdout)) else 0,
        importlib.metadata.version("ethos-u-vela"),
    )
