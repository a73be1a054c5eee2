"""The example from training to a fast file."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

import pdp_keras

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

mobile = importlib.import_module("mobile")


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", [(8, 8, 1), pytest.param((28, 30, 3), marks=pytest.mark.slow)]
)
def test_the_network_could_run_sparse_on_images_of_any_size(shape):
    model = mobile.build_model("mobilenetv2", shape, 7, 64, 0.35)
    assert model.output_shape == (None, 7)
    check = pdp_keras.deploy_check(model, "xnnpack")
    assert len(check.prunable) == 34 and check.turned


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(None, (16, 1, 6)), (32, (32, 2, 12)), (4, (4, 1, 2)), (8, (8, 1, 3))],
)
def test_other_epochs_keep_their_proportions(epochs, expected):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(epochs=epochs):
        recipe = mobile.recipe_from_flags()
    assert (recipe.epochs, recipe.warmup_epochs, recipe.ramp_epochs) == expected


def run_script(*arguments):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / "mobile.py"), *arguments],
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_too_little_sparsity_ends_the_script_before_any_training(tmp_path):
    run = run_script("--sparsity=0.5", f"--output_dir={tmp_path / 'output'}")
    assert run.returncode == 1
    assert "error: The sparsity must be above 0.6667 for target 'xnnpack'" in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_script(tmp_path):
    run = run_script(
        "--epochs=4", "--alpha=0.35", "--images=320", f"--output_dir={tmp_path}"
    )
    assert run.returncode == 0, run.stderr
    assert "they run sparse" in run.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    rows = {row["file"]: row for row in results["files"]}
    kinds = ("", "_float16", "_int8")
    assert list(rows) == [f"{n}{k}.tflite" for n in ("dense", "sparse") for k in kinds]
    models = {"dense.keras", "sparse.keras"}
    others = {"page.json", "results.json"}
    assert {p.name for p in tmp_path.iterdir()} == {*rows, *models, *others}
    for kind in kinds[:2]:
        dense, sparse = rows[f"dense{kind}.tflite"], rows[f"sparse{kind}.tflite"]
        assert sparse["sparse_encoding"] and not dense["sparse_encoding"]
        assert sparse["size_bytes"] < 0.6 * dense["size_bytes"]
    for name in ("dense", "sparse"):
        assert rows[f"{name}.tflite"]["test_accuracy"] == pytest.approx(
            results["test_accuracy"][name], abs=0.006
        )
    page = json.loads((tmp_path / "page.json").read_text())
    assert page["shape"] == [8, 8, 1] and len(page["samples"]) == 96
