"""Image classification data as numpy arrays.

`load(name)` knows three kinds of sources:

- `digits`: scikit-learn's 1797 handwritten digits of 8×8 pixels, no download;
- `fashion_mnist`, `mnist`, `kmnist` from the four IDX files of their authors, where
  a folder with these files is given (or Debian's `dataset-fashion-mnist` is
  installed), no download;
- any other name: the image classification data set of that name in TensorFlow
  Datasets, which downloads it on first use.

Whatever the source, a validation split is held out of the training data, so that
nothing needs to be tuned on the test data.
"""

from __future__ import annotations

import dataclasses
import gzip
import math
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

FASHION_MNIST_FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts the IDX files."""

IDX_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}

_IDX_NAMES = ("fashion_mnist", "mnist", "kmnist")

_IDX_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """Images and labels, split into training, validation and test data.

    Attributes:
        name: the name of the data set.
        x_train, x_val, x_test: float32 arrays of shape `(examples, height, width,
            channels)` with values in [0, 1].
        y_train, y_val, y_test: int32 arrays of shape `(examples,)` with values in
            `[0, num_classes)`.
        num_classes: how many classes there are.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int


def load(
    name: str,
    data_dir: str | pathlib.Path | None = None,
    *,
    image_size: int | None = None,
    validation_fraction: float = 0.1,
) -> ImageData:
    """The image classification data set of this name.

    Args:
        name: `"digits"`, or the name of an image classification data set of
            TensorFlow Datasets, like `"fashion_mnist"` or `"cifar10"`.
        data_dir: a folder with the four IDX files (plain or gzipped) for the
            MNIST-like sets, otherwise the folder of TensorFlow Datasets. By
            default Debian's folder for Fashion-MNIST where it exists, and
            `~/tensorflow_datasets` for the others.
        image_size: height and width in pixels to which the images of TensorFlow
            Datasets are resized. By default their own, or 64 where the images
            differ in size.
        validation_fraction: the share of the training data that is held out,
            the same in every class. Not used where the data set has a validation
            split beside its test split.

    Returns:
        An `ImageData`; the same arguments always give the same split.

    Raises:
        ValueError: if the name is unknown, is not image classification, or a file
            is damaged.
        OSError: if the data set cannot be downloaded or read.

    Example:

    >>> data = load("digits")
    >>> data.x_train.shape, data.x_val.shape, data.x_test.shape
    ((1295, 8, 8, 1), (143, 8, 8, 1), (359, 8, 8, 1))
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(
            "validation_fraction must lie strictly between 0 and 1. "
            f"Received: validation_fraction={validation_fraction}"
        )
    if image_size is not None and image_size < 1:
        raise ValueError(
            f"image_size must be at least 1. Received: image_size={image_size}"
        )
    if name == "digits":
        splits = _digits()
    elif folder := _idx_folder(name, data_dir):
        splits = _idx_splits(folder)
    else:
        splits = _tfds_splits(name, data_dir, image_size)
    return _image_data(name, splits, validation_fraction)


def read_idx(path: str | pathlib.Path) -> np.ndarray:
    """The array in an IDX file, plain or gzipped.

    IDX is the format of MNIST: two zero bytes, a byte for the type, a byte for the
    number of dimensions, each dimension as a big-endian uint32, then the values.

    Args:
        path: the file. Whether it is gzipped is seen from its content.

    Returns:
        An array of the file's shape and type, in native byte order.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or is not IDX.
    """
    content = pathlib.Path(path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"A gzipped IDX file must be complete and undamaged ({error}). "
                f"Received: path={str(path)!r}"
            ) from error
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(
            "An IDX file must start with two zero bytes, its type and its number "
            f"of dimensions. Received: first bytes={content[:4].hex(' ')!r}, "
            f"path={str(path)!r}"
        )
    kind, rank = content[2], content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise ValueError(
            f"An IDX file of {rank} dimensions must have at least {start} bytes. "
            f"Received: {len(content)} bytes, path={str(path)!r}"
        )
    if kind not in _IDX_DTYPES:
        known = ", ".join(f"{code:#04x}" for code in _IDX_DTYPES)
        raise ValueError(
            f"The type of an IDX file must be one of {known}. "
            f"Received: type={kind:#04x}, path={str(path)!r}"
        )
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], ">u4"))
    dtype = _IDX_DTYPES[kind]
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise ValueError(
            f"An IDX file of shape {shape} and type {dtype.name} must have "
            f"{expected} bytes. Received: {len(content)} bytes, path={str(path)!r}"
        )
    values = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def read_idx_folder(folder: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The four arrays of an MNIST-like folder, as they are in the files.

    Args:
        folder: holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
            `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte`, each plain or
            with the ending `.gz`.

    Returns:
        `x_train` and `x_test`: uint8 of shape `(examples, height, width)`;
        `y_train` and `y_test`: uint8 of shape `(examples,)`.

    Raises:
        FileNotFoundError: if one of the files is missing.
        ValueError: if one is damaged, or images and labels do not fit together.
    """
    arrays = {}
    for key, file_name in IDX_FILES.items():
        path = _idx_file(pathlib.Path(folder), file_name)
        if path is None:
            raise FileNotFoundError(
                f"The folder must hold {file_name} or {file_name}.gz. "
                f"Received: folder={str(folder)!r}"
            )
        array = read_idx(path)
        rank = 3 if key.startswith("x") else 1
        if array.dtype != np.uint8 or array.ndim != rank:
            raise ValueError(
                f"{file_name} must hold uint8 values in {rank} dimension(s). "
                f"Received: dtype={array.dtype.name}, shape={array.shape}, "
                f"path={str(path)!r}"
            )
        arrays[key] = array
    for split in ("train", "test"):
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if len(images) != len(labels) or not len(images):
            raise ValueError(
                f"The {split} files must hold one label for each image, and at "
                f"least one image. Received: images={len(images)}, "
                f"labels={len(labels)}, folder={str(folder)!r}"
            )
    return arrays


def _idx_file(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _idx_folder(name: str, data_dir: str | pathlib.Path | None) -> pathlib.Path | None:
    """The folder from which this data set can be read as IDX files, if any."""
    if name not in _IDX_NAMES:
        return None
    if data_dir is not None:
        folder = pathlib.Path(data_dir).expanduser()
    elif name == "fashion_mnist":
        folder = FASHION_MNIST_FOLDER
    else:
        return None
    # One of the four is enough: that a second one is missing is then an error
    # and not a reason to download everything.
    found = any(_idx_file(folder, file_name) for file_name in IDX_FILES.values())
    return folder if found else None


@dataclasses.dataclass(frozen=True, eq=False)
class _Splits:
    """What a source provides: `(x, y)` for each split that it has."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray] | None
    test: tuple[np.ndarray, np.ndarray] | None
    num_classes: int


def _digits() -> _Splits:
    from sklearn import datasets

    digits = datasets.load_digits()
    x = (digits.images[..., np.newaxis] / 16.0).astype(np.float32)
    return _Splits(
        train=(x, digits.target.astype(np.int32)),
        validation=None,
        test=None,
        num_classes=10,
    )


def _idx_splits(folder: pathlib.Path) -> _Splits:
    arrays = read_idx_folder(folder)
    pairs = {
        split: (
            arrays[f"x_{split}"][..., np.newaxis].astype(np.float32) / 255.0,
            arrays[f"y_{split}"].astype(np.int32),
        )
        for split in ("train", "test")
    }
    num_classes = 1 + max(int(y.max()) for _, y in pairs.values())
    return _Splits(pairs["train"], None, pairs["test"], num_classes)


def _tfds_splits(
    name: str, data_dir: str | pathlib.Path | None, image_size: int | None
) -> _Splits:
    # Slow to import, and not needed for the other sources.
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"Data set {name!r} comes from TensorFlow Datasets: "
            "`pip install tensorflow-datasets importlib_resources`."
        ) from error

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        raise ValueError(
            "The data set must be 'digits' or an image classification data set of "
            "TensorFlow Datasets (https://www.tensorflow.org/datasets/catalog). "
            f"Received: dataset={name!r}"
        ) from error
    features = dict(getattr(builder.info.features, "items", dict)())
    if not isinstance(features.get("image"), tfds.features.Image) or not isinstance(
        features.get("label"), tfds.features.ClassLabel
    ):
        raise ValueError(
            "The data set must be image classification: examples with one 'image' "
            "and one class 'label'. "
            f"Received: dataset={name!r} with features {sorted(features)}"
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # Any of a dozen types, by downloader and by server.
        raise OSError(
            f"Data set {name!r} could not be downloaded to {builder.data_dir}: {error}"
        ) from error
    size = image_size
    if size is None and None in features["image"].shape:
        size = 64

    def read(split: str) -> tuple[np.ndarray, np.ndarray] | None:
        if split not in builder.info.splits:
            return None
        return _read_tfds(builder, split, size)

    train, validation, test = read("train"), read("validation"), read("test")
    if train is None:
        raise ValueError(
            "The data set must have a split 'train'. "
            f"Received: dataset={name!r} with splits {list(builder.info.splits)}"
        )
    if test is None:
        # What the authors hold out decides; validation data we hold out ourselves.
        validation, test = None, validation
    return _Splits(train, validation, test, features["label"].num_classes)


def _read_tfds(
    builder: Any, split: str, size: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """All examples of one split, resized to `size` pixels a side if that is given."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    largest = np.iinfo(builder.info.features["image"].np_dtype).max

    def convert(example: dict[str, Any]) -> tuple[Any, Any]:
        image = tf.cast(example["image"], tf.float32) / float(largest)
        if size is not None:
            image = tf.image.resize(image, (size, size), antialias=True)
        return image, tf.cast(example["label"], tf.int32)

    dataset = builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders=tfds.decode.PartialDecoding({"image": True, "label": True}),
    )
    batches: Iterator[tuple[np.ndarray, np.ndarray]] = iter(
        tfds.as_numpy(dataset.map(convert, tf.data.AUTOTUNE).batch(1024))
    )
    images, labels = zip(*batches, strict=True)
    x, y = np.concatenate(images), np.concatenate(labels)
    if y.min() < 0:
        raise ValueError(
            "Every example must have a label. Received: "
            f"dataset={builder.name!r}, whose split {split!r} has none"
        )
    # Antialiasing overshoots by a rounding error.
    return np.clip(x, 0.0, 1.0), y


def _image_data(name: str, splits: _Splits, validation_fraction: float) -> ImageData:
    train, validation, test = splits.train, splits.validation, splits.test
    if test is None:
        train, test = _hold_out(name, train, 0.2, seed=1)
    if validation is None:
        train, validation = _hold_out(name, train, validation_fraction, seed=2)
    return ImageData(name, *train, *validation, *test, splits.num_classes)


def _hold_out(
    name: str, examples: tuple[np.ndarray, np.ndarray], fraction: float, seed: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Splits off the same fraction of every class; the rest keeps its order."""
    x, y = examples
    held = np.zeros(len(y), bool)
    random = np.random.default_rng(seed)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        held[random.permutation(members)[: round(fraction * len(members))]] = True
    if not held.any() or held.all():
        raise ValueError(
            "The data set must be large enough to hold out a fraction of each "
            f"class. Received: dataset={name!r} with {len(y)} training examples, "
            f"fraction={fraction}"
        )
    return (x[~held], y[~held]), (x[held], y[held])
