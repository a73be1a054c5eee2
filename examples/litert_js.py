"""Runs .tflite files in a real browser: LiteRT.js in headless Chromium, one thread."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parent / "web"
"""The pages, and beside them the JavaScript packages once they are installed."""

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class BrowserError(RuntimeError):
    """The browser is missing, or a file does not run in it."""


@dataclasses.dataclass(frozen=True)
class BrowserRun:
    """What a file did in the browser.

    Attributes:
        milliseconds: the median of one inference, reading the outputs included.
        outputs: for each batch output name → flat array, float64.
        version: of Chromium.
    """

    milliseconds: float
    outputs: list[dict[str, np.ndarray]]
    version: str


def missing() -> str:
    """What the browser runs lack on this machine, and how to get it; empty if nothing.

    The environment variable CHROMIUM names another browser of Chromium's kind.
    """
    if lacking := _missing_node():
        return lacking
    if chromium() is None:
        return "Chromium is needed: `apt-get install chromium`, or set CHROMIUM"
    return ""


def _missing_node() -> str:
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "Node.js 20 with npm is needed: `apt-get install nodejs npm`"
    return ""


def chromium() -> str | None:
    names = [os.environ["CHROMIUM"]] if "CHROMIUM" in os.environ else list(_NAMES)
    return next((path for name in names if (path := shutil.which(name))), None)


def install() -> None:
    """Installs the pinned JavaScript packages into `FOLDER`, once.

    Raises:
        BrowserError: if Node.js or npm is missing, or npm fails.
    """
    if lacking := _missing_node():
        raise BrowserError(lacking)
    wanted = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    # Tests run in several processes; one of them installs.
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all(_installed(name) == version for name, version in wanted.items()):
            return
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True)
        if done.returncode:
            raise BrowserError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


def _installed(name: str) -> str | None:
    path = FOLDER / "node_modules" / name / "package.json"
    return json.loads(path.read_text())["version"] if path.exists() else None


def run_files(
    files: Sequence[bytes],
    batches: Sequence[Mapping[str, np.ndarray]],
    *,
    rounds: int = 1,
    runs: int = 1,
    timeout: float = 600,
) -> list[BrowserRun]:
    """Runs files in one page, timed turn by turn.

    Args:
        files: contents of .tflite files with the same float32 inputs.
        batches: input name → array, of the files' fixed shape.
        rounds: how often each file has its turn.
        runs: inferences a turn.
        timeout: seconds for everything.

    Returns:
        One `BrowserRun` for each file; its time is the median over the turns of the
        median within a turn.

    Raises:
        BrowserError: if something is missing, or a file does not load or run.
    """
    if lacking := missing():
        raise BrowserError(lacking)
    install()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        paths = [folder / f"{i}.tflite" for i in range(len(files))]
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(data)
        job = {
            "chromium": chromium(),
            "files": [str(path) for path in paths],
            "batches": [_plain(batch) for batch in batches],
            "rounds": rounds,
            "runs": runs,
            "output": str(folder / "output.json"),
        }
        (folder / "job.json").write_text(json.dumps(job))
        try:
            done = subprocess.run(
                ["node", str(FOLDER / "measure.mjs"), str(folder / "job.json")],
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise BrowserError(f"The browser did not end in {timeout} s") from error
        if done.returncode:
            raise BrowserError(
                f"A file must run in the browser: {done.stderr.strip()[-2000:]}"
            )
        answer = json.loads((folder / "output.json").read_text())
    return [
        BrowserRun(
            float(np.median(result["times"])),
            [{k: np.array(v, float) for k, v in o.items()} for o in result["outputs"]],
            answer["version"],
        )
        for result in answer["results"]
    ]


def _plain(batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {
        name: {
            "values": np.asarray(values, "float32").ravel().tolist(),
            "shape": list(np.shape(values)),
        }
        for name, values in batch.items()
    }
