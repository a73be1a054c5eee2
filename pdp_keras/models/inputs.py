"""What goes into an exported model: its inputs, and samples for them."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Row = list[Array]  # one sample: for each input an array without the batch axis
Batch = dict[str, Array]  # input name → array with the batch axis

_DTYPES = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32"),
    *("int64", "float16", "float32", "float64"),
)


@dataclasses.dataclass(frozen=True)
class ModelInput:
    """One input of the exported model: `shape` is without the batch axis."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class ModelInputs:
    """All inputs of a model, flat, and how its call takes them.

    Attributes:
        flat: the inputs in the order of `keras.tree.flatten`.
        structure: what `model(...)` takes, with anything in its leaves.
    """

    flat: tuple[ModelInput, ...]
    structure: Any

    def packed(self, batch: Mapping[str, Any]) -> Any:
        """The model's call argument made of a dict of input name → tensor."""
        values = [batch[one.name] for one in self.flat]
        return keras.tree.pack_sequence_as(self.structure, values)


def model_inputs(model: keras.Model, input_signature: Any = None) -> ModelInputs:
    """Reads the inputs of a built model.

    Args:
        model: Functional, Sequential, or subclassed and called at least once.
        input_signature: a structure as the model's call takes it, whose leaves
            have a `shape`, batch axis first, like `keras.InputSpec`; overrides what
            the model says, which decides where a leaf has no `dtype` or `name`.

    Raises:
        ValueError: a size other than the batch is not fixed, a dtype is not a
            number, or the model's call takes several arguments.
    """
    structure = input_signature
    if structure is None:
        structure = _declared_structure(model)
    leaves = keras.tree.flatten_with_path(structure)
    own = getattr(model, "inputs", None) or ()
    if len(own) != len(leaves):
        own = [keras.InputSpec(dtype="float32")] * len(leaves)
    names = unique_names(
        ["_".join(map(str, path)) for path, _ in leaves]
        if isinstance(structure, Mapping)
        else [
            _given_name(leaf) or _given_name(x) or "input"
            for (_, leaf), x in zip(leaves, own, strict=True)
        ]
    )
    flat = [
        _model_input(name, leaf, str(x.dtype))
        for name, (_, leaf), x in zip(names, leaves, own, strict=True)
    ]
    return ModelInputs(tuple(flat), structure)


def _declared_structure(model: keras.Model) -> Any:
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    if getattr(model, "inputs", None):
        return model.input
    # A subclassed model records the shapes, not the dtypes, of its first call.
    shapes = dict(model.get_build_config() or {})
    if len(shapes) != 1:
        raise ValueError(
            "The call of a subclassed model must take one argument (an array, or a "
            "list, tuple or dict of arrays), and the model must have been called "
            f"once, or `input_signature` be given. Received: recorded shapes={shapes}"
        )
    (shape,) = shapes.values()
    return keras.tree.map_shape_structure(
        lambda s: keras.InputSpec(shape=tuple(s), dtype="float32"), shape
    )


def _given_name(leaf: Any) -> str:
    """The name that the user gave; Keras' own count tensors of the session."""
    name = getattr(leaf, "name", None) or ""
    return "" if re.fullmatch(r"keras_tensor(_\d+)?", name) else name


def _model_input(name: str, leaf: Any, default_dtype: str) -> ModelInput:
    shape = tuple(leaf.shape)[1:]
    if any(size is None for size in shape):
        raise ValueError(
            "Every size but the batch must be fixed in a .tflite file. Build the "
            "model for fixed sizes, or give `export_tflite` or `deploy_check` an "
            "`input_signature`, in the structure of the model's input, for instance "
            f"`keras.InputSpec(shape={_fixed_example(shape)})`. "
            f"Received: input {name!r} with shape={tuple(leaf.shape)}"
        )
    dtype = str(getattr(leaf.dtype, "name", leaf.dtype) or default_dtype)
    if dtype not in _DTYPES:
        raise ValueError(
            "The inputs of a .tflite file must be numbers or booleans. "
            f"Received: input {name!r} with dtype={dtype}"
        )
    return ModelInput(name, tuple(int(size) for size in shape), dtype)


def _fixed_example(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    return (None, *(224 if size is None else size for size in shape))


def unique_names(names: Iterable[str]) -> list[str]:
    """Names as the signature of a .tflite file takes them: identifiers, distinct."""
    result: list[str] = []
    for name in names:
        base = re.sub(r"\W", "_", name)
        numbered = (f"{base}_{i}" for i in itertools.count(1))
        result.append(
            next(
                n
                for n in (base, *itertools.islice(numbered, len(result)))
                if n not in result
            )
        )
    return result


def representative_rows(
    dataset: Any, inputs: Sequence[ModelInput], limit: int
) -> list[Row]:
    """Reads samples in any of the usual forms.

    Args:
        dataset: an array with the samples along its first axis; a dict of such
            arrays by input name; or an iterable, or a callable that returns one
            (a generator function, a `tf.data.Dataset`), of elements. An element
            is a sample or a batch: an array, a list or tuple with one array for
            each input, a dict by input name, or `(x, y)` and `(x, y, weight)` as
            `fit` takes them, of which x is used.
        inputs: the model's inputs.
        limit: how many samples to read at most, so that an endless data set ends.

    Returns:
        The samples, in the inputs' dtypes.

    Raises:
        TypeError: the data set is not one of these.
        ValueError: it is empty, or an element does not fit the inputs.
    """
    if callable(dataset):
        dataset = dataset()
    if isinstance(dataset, Mapping) or hasattr(dataset, "__array__"):
        dataset = [dataset]
    if isinstance(dataset, str | bytes) or not isinstance(dataset, Iterable):
        raise TypeError(
            "`representative_dataset` must be an array, a dict of arrays, an iterable "
            "of samples or batches, or a callable that returns one of them. "
            f"Received: representative_dataset={dataset!r}"
        )
    rows = list(itertools.islice(_rows(dataset, inputs), limit))
    if not rows:
        raise ValueError(
            "`representative_dataset` must yield at least one sample. "
            f"Received: representative_dataset={dataset!r}"
        )
    return rows


def _rows(dataset: Iterable[Any], inputs: Sequence[ModelInput]) -> Iterator[Row]:
    for element in dataset:
        arrays = [
            _checked_array(np.asarray(value), one)
            for value, one in zip(_by_input(element, inputs), inputs, strict=True)
        ]
        sizes = {len(array) for array in arrays}
        if len(sizes) > 1:
            raise ValueError(
                "All inputs of one element of `representative_dataset` must have the "
                f"same number of samples. Received: sizes={sorted(sizes)}"
            )
        yield from (list(row) for row in zip(*arrays, strict=True))


def _by_input(element: Any, inputs: Sequence[ModelInput]) -> list[Any]:
    """The element's values, one for each input."""
    names = [one.name for one in inputs]
    labelled = isinstance(element, tuple) and len(element) in (2, 3)
    if labelled and (
        len(inputs) == 1 or isinstance(element[0], Mapping | tuple | list)
    ):
        element = element[0]
    if isinstance(element, Mapping):
        if sorted(element) != sorted(names):
            raise ValueError(
                "A dict in `representative_dataset` must have the model's input "
                f"names, {names}, as keys. Received: keys={sorted(element)}"
            )
        return [element[name] for name in names]
    values = list(element) if isinstance(element, tuple | list) else [element]
    if len(values) != len(inputs):
        raise ValueError(
            "Each element of `representative_dataset` must have one array for each "
            f"of the model's inputs, {names}. Received: {len(values)} arrays"
        )
    return values


def _checked_array(values: Array, one: ModelInput) -> Array:
    """The values with a batch axis and in the input's dtype."""
    if values.shape == one.shape:
        values = values[None]
    if values.shape[1:] != one.shape:
        raise ValueError(
            "A sample of `representative_dataset` must have the input's shape, "
            f"{one.shape} for input {one.name!r}, or that with a batch axis before. "
            f"Received: shape={values.shape}"
        )
    wanted = np.dtype(one.dtype)
    if not np.can_cast(values.dtype, wanted, "same_kind"):
        raise ValueError(
            "A sample of `representative_dataset` must be castable to the input's "
            f"dtype, {one.dtype} for input {one.name!r}, without loss of kind. "
            f"Received: dtype={values.dtype}"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(
            "The samples of `representative_dataset` must be finite. "
            f"Received: NaN or infinity for input {one.name!r}"
        )
    return values.astype(wanted)


def random_rows(
    model: keras.Model, inputs: Sequence[ModelInput], count: int
) -> list[Row]:
    """Draws samples for a check without data, the same ones each time.

    Floats come from N(0, 1). Integers stay below the smallest `input_dim` of the
    model's Embedding layers, as an index past a table's end is undefined; without
    one they are 0 or 1, but uint8, which is an image, has its whole range.
    """
    random = np.random.default_rng(0)
    tables = [
        layer.input_dim
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Embedding)
    ]
    highest = min(tables, default=2)
    draws: dict[str, Callable[[ModelInput], Array]] = {
        "f": lambda one: random.standard_normal(one.shape),
        "i": lambda one: random.integers(0, highest, one.shape),
        "u": lambda one: random.integers(0, highest if tables else 256, one.shape),
        "b": lambda one: random.integers(0, 2, one.shape),
    }
    return [
        [np.asarray(draws[np.dtype(o.dtype).kind](o)).astype(o.dtype) for o in inputs]
        for _ in range(count)
    ]


def batches(
    rows: Sequence[Row], inputs: Sequence[ModelInput], size: int
) -> list[Batch]:
    """Groups samples into batches of one size; the last is filled from the first."""
    filled = [*rows, *itertools.islice(itertools.cycle(rows), -len(rows) % size)]
    return [
        {
            one.name: np.stack([row[i] for row in filled[start : start + size]])
            for i, one in enumerate(inputs)
        }
        for start in range(0, len(filled), size)
    ]
