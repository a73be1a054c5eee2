"""The examples: data from every source, and the training script from end to end."""

import gzip
import importlib
import json
import os
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def example(name):
    """Imports an example as Python finds it when it runs as a script."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES))


data = example("data")
fashion_mnist_tfds = example("fashion_mnist_tfds")
train = example("train")

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def idx_bytes(array, kind=0x08):
    header = struct.pack(">HBB", 0, kind, array.ndim)
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return header + shape + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_mnist(folder, size=28, train_examples=60, test_examples=20, ending=""):
    """Four files in which every image is filled with 20 times its label."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {"train": train_examples, "test": test_examples}
    for key, name in data.IDX_FILES.items():
        labels = (np.arange(counts[key[2:]]) % 3).astype(np.uint8)
        array = labels
        if key.startswith("x"):
            array = np.broadcast_to(
                20 * labels[:, None, None], (len(labels), size, size)
            )
        content = idx_bytes(array)
        if ending == ".gz":
            content = gzip.compress(content)
        (folder / f"{name}{ending}").write_bytes(content)
    return folder


def assert_valid(images):
    for split in ("train", "val", "test"):
        x, y = getattr(images, f"x_{split}"), getattr(images, f"y_{split}")
        assert x.dtype == np.float32 and y.dtype == np.int32
        assert x.ndim == 4 and len(x) == len(y) > 0
        assert x.min() >= 0 and x.max() <= 1
        assert set(np.unique(y)) == set(range(images.num_classes))


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (IMAGES, 0x08),
        (np.array([-3, 5], np.int8), 0x09),
        (np.array([[-300, 5]], np.int16), 0x0B),
        (np.array([70_000, -1], np.int32), 0x0C),
        (np.array([0.5, -2.0], np.float32), 0x0D),
        (np.array([[0.1]], np.float64), 0x0E),
        (np.zeros((0, 28, 28), np.uint8), 0x08),
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_idx_round_trip(tmp_path, array, kind, compress):
    path = tmp_path / "file"
    path.write_bytes(compress(idx_bytes(array, kind)))
    found = data.read_idx(path)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "two zero bytes.*first bytes=''", id="empty"),
        pytest.param(b"\0\0\x08", "two zero bytes", id="3 bytes"),
        pytest.param(b"\x89PNG\r\n", "first bytes='89 50 4e 47'", id="png"),
        pytest.param(
            idx_bytes(IMAGES, 0x0A), "one of 0x08, .*Received: type=0x0a", id="type"
        ),
        pytest.param(
            idx_bytes(IMAGES)[:-1], "must have 40 bytes. Received: 39", id="short"
        ),
        pytest.param(
            idx_bytes(IMAGES) + b"\0", "must have 40 bytes. Received: 41", id="long"
        ),
        pytest.param(
            idx_bytes(IMAGES)[:10], "at least 16 bytes. Received: 10", id="header"
        ),
        pytest.param(
            gzip.compress(idx_bytes(IMAGES))[:-9], "complete and undamaged", id="cut"
        ),
        pytest.param(b"\x1f\x8b" + bytes(30), "complete and undamaged", id="not gzip"),
    ],
)
def test_damaged_idx_is_an_error(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.read_idx(path)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
def test_idx_folder(tmp_path, ending, name):
    images = data.load(name, write_mnist(tmp_path, ending=ending))
    assert_valid(images)
    assert images.x_train.shape == (54, 28, 28, 1)
    assert images.x_val.shape == (6, 28, 28, 1)
    assert images.x_test.shape == (20, 28, 28, 1)
    np.testing.assert_allclose(
        images.x_train[:, 5, 5, 0], 20 * images.y_train / 255, rtol=1e-6
    )


def test_idx_folder_names_the_missing_file(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte.*Received"):
        data.load("fashion_mnist", tmp_path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(59, np.uint8), "one label for each image.*images=60, labels=59"),
        (np.zeros((60, 1), np.uint8), r"1 dimension.*shape=\(60, 1\)"),
    ],
)
def test_idx_folder_must_fit_together(tmp_path, array, message):
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(array))
    with pytest.raises(ValueError, match=message):
        data.load("fashion_mnist", tmp_path)


def test_digits():
    images = data.load("digits")
    assert_valid(images)
    assert images.x_train.shape[1:] == (8, 8, 1)
    assert images.num_classes == 10
    lengths = [len(y) for y in (images.y_train, images.y_val, images.y_test)]
    assert lengths == [1295, 143, 359]
    # No image is in two splits, and the same call splits in the same way.
    everything = np.concatenate([images.x_train, images.x_val, images.x_test])
    assert len(np.unique(everything.reshape(1797, -1), axis=0)) == 1797
    np.testing.assert_array_equal(images.y_test, data.load("digits").y_test)
    # Every class is held out in proportion.
    assert set(np.bincount(images.y_test)) <= {35, 36, 37}


def test_too_little_data_to_hold_out(tmp_path):
    folder = write_mnist(tmp_path, train_examples=3)
    with pytest.raises(ValueError, match=r"large enough.*Received: .*3 training"):
        data.load("fashion_mnist", folder)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_validation_fraction_is_checked(fraction):
    with pytest.raises(ValueError, match="Received: validation_fraction="):
        data.load("digits", validation_fraction=fraction)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_set", "must be 'digits' or.*Received: dataset='no_such_set'"),
        ("imdb_reviews", "must be image classification.*Received: dataset='imdb"),
    ],
)
def test_tfds_names_are_checked(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        data.load(name, tmp_path)


def test_fashion_mnist_through_tfds(tmp_path):
    idx = write_mnist(tmp_path / "idx")
    builder = fashion_mnist_tfds.prepare_fashion_mnist(idx, tmp_path / "tfds")
    assert builder.info.splits["train"].num_examples == 60

    import tensorflow_datasets as tfds

    # The original builder finds it, and has nothing left to download.
    original = tfds.load("fashion_mnist", data_dir=tmp_path / "tfds", download=False)
    assert set(original) == {"train", "test"}

    images = data.load("fashion_mnist", tmp_path / "tfds")
    assert_same_images(images, data.load("fashion_mnist", idx), num_classes=10)
    small = data.load("fashion_mnist", tmp_path / "tfds", image_size=14)
    assert small.x_train.shape[1:] == (14, 14, 1)


def assert_same_images(images, others, num_classes):
    """The same test images, and as many of each class, in whatever order."""
    assert images.num_classes == num_classes
    assert images.x_test.dtype == np.float32 and images.y_test.dtype == np.int32
    for split in ("train", "val", "test"):
        counts = [np.bincount(getattr(d, f"y_{split}")) for d in (images, others)]
        np.testing.assert_array_equal(*counts)

    def ordered(d):
        rows = np.c_[d.y_test, d.x_test.reshape(len(d.x_test), -1)]
        return rows[np.lexsort(rows.T)]

    np.testing.assert_array_equal(ordered(images), ordered(others))


def test_tfds_wants_28_pixels(tmp_path):
    with pytest.raises(ValueError, match=r"28×28 pixels. Received: size=\(8, 8\)"):
        fashion_mnist_tfds.prepare_fashion_mnist(
            write_mnist(tmp_path, size=8), tmp_path
        )


needs_fashion_mnist = pytest.mark.skipif(
    not data.FASHION_MNIST_FOLDER.exists(),
    reason="Debian's package dataset-fashion-mnist is not installed",
)


@needs_fashion_mnist
def test_real_fashion_mnist():
    images = data.load("fashion_mnist")
    assert_valid(images)
    lengths = [len(x) for x in (images.x_train, images.x_val, images.x_test)]
    assert lengths == [54_000, 6_000, 10_000]
    assert list(np.bincount(images.y_test)) == [1000] * 10


@pytest.mark.slow
@needs_fashion_mnist
def test_real_fashion_mnist_through_tfds(tmp_path):
    fashion_mnist_tfds.prepare_fashion_mnist(data.FASHION_MNIST_FOLDER, tmp_path)
    images = data.load("fashion_mnist", tmp_path)
    assert_valid(images)
    assert_same_images(images, data.load("fashion_mnist"), num_classes=10)


@pytest.mark.parametrize(
    ("shape", "convolutions"),
    [((8, 8, 1), 3), ((28, 28, 1), 3), ((5, 7, 3), 3), ((128, 96, 3), 4)],
)
def test_network_fits_any_image(shape, convolutions):
    model = train.build_model(shape, 7)
    assert model.output_shape == (None, 7)
    assert sum("conv" in layer.name for layer in model.layers) == convolutions


@pytest.mark.slow
def test_training_script(tmp_path):
    output = tmp_path / "output"
    run = run_script(
        "--epochs=3",
        "--warmup_epochs=0",
        "--ramp_epochs=1",
        "--sparsity=0.75",
        "--quantize=none,int8",
        f"--output_dir={output}",
    )
    assert run.returncode == 0, run.stderr
    assert "Test accuracy in percent" in run.stdout
    assert "difference" in run.stdout

    kinds = ["", "_int8"]
    names = [f"{model}{kind}.tflite" for kind in kinds for model in ("dense", "pruned")]
    plots = ["sparsity.png", "training.png", "weights.png"]
    assert {path.name for path in output.iterdir()} == {
        *names,
        *plots,
        "pruned.keras",
        "results.json",
    }
    results = json.loads((output / "results.json").read_text())
    assert results["report"]["sparsity"] == pytest.approx(0.75, abs=1e-3)
    assert results["history"]["sparsity"][-1] == pytest.approx(0.75, abs=1e-3)
    assert [row["file"] for row in results["files"]] == names
    accuracy = results["test_accuracy_percent"]
    assert len(accuracy["dense"]["by_seed"]) == 1
    assert accuracy["dense"]["mean"] > 50
    # The float32 files say what the Keras models of the first seed say.
    for row in results["files"][:2]:
        model = row["file"].removesuffix(".tflite")
        expected = accuracy[model]["by_seed"][0]
        assert 100 * row["test_accuracy"] == pytest.approx(expected, abs=0.3)
    dense, pruned = results["files"][:2]
    assert pruned["size_bytes"] < 0.6 * dense["size_bytes"]
    assert pruned["gzip_bytes"] < 0.6 * dense["gzip_bytes"]


def test_summary_over_seeds(capsys):
    accuracy = train.summary({"dense": [0.90, 0.92], "pruned": [0.91, 0.92]})
    assert accuracy["difference"]["by_seed"] == pytest.approx([1.0, 0.0])
    assert accuracy["difference"]["mean"] == pytest.approx(0.5)
    assert accuracy["dense"]["std"] == pytest.approx(np.sqrt(2))
    train.print_summary(accuracy, [])
    printed = capsys.readouterr().out
    assert "dense          91.00 ± 1.41   (seeds: 90.00  92.00)" in printed
    assert "difference     +0.50 ± 0.71   (seeds: +1.00  +0.00)" in printed


@pytest.mark.slow
def test_wrong_flag_ends_the_script_without_traceback():
    run = run_script("--epochs=3", "--warmup_epochs=2", "--ramp_epochs=5")
    assert run.returncode == 1
    assert run.stdout == ""
    error = run.stderr.splitlines()[-1]
    assert error.startswith("error: ") and "Received: " in error
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sparsity": 1.0}, "Received: sparsity=1.0"),
        ({"sparsity": -0.1}, "Received: sparsity=-0.1"),
        ({"temperature": 0.0}, "Received: temperature=0.0"),
        ({"dataset": "no_such_set"}, "Received: dataset='no_such_set'"),
        ({"quantize": ["none", "int4"]}, "Received: quantize='int4'"),
    ],
)
def test_wrong_flags_are_explained(monkeypatch, tmp_path, capsys, wrong, message):
    monkeypatch.chdir(tmp_path)  # Should it write anything after all.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(**wrong), pytest.raises(SystemExit) as stopped:
        train.main(["train.py"])
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""
    assert not list(tmp_path.iterdir())


def run_script(*arguments):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, str(EXAMPLES / "train.py"), *arguments],
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
