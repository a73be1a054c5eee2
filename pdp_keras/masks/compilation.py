"""Runs a pure function of tensors as one program, where the backend has a compiler.

TensorFlow's graphs run one operation after the other, each over the whole of a large
kernel; XLA makes one loop of them. A graph may hold parts that XLA compiles, so the
user's model need not be compiled for it. Inside a model that is, and in PyTorch,
which compiles for the CPU only with a C++ compiler, the function runs as it is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import keras
from keras.src.backend.common.stateless_scope import in_stateless_scope

Tensor = Any
Function = TypeVar("Function", bound=Callable[..., Any])

# From so many values on, one program is faster than TensorFlow's own operations.
MANY = 1 << 16


def compiled(least: int = 0) -> Callable[[Function], Function]:
    """A decorator for functions whose arguments are all tensors, with static shapes.

    Args:
        least: how many values the first argument must have for the compilation,
            a fraction of a second for each set of shapes, to be worth it. With fewer
            it is as with `traced_once`.
    """

    def maker_for(x: Tensor) -> Callable[..., Any] | None:
        if math.prod(x.shape) >= least:
            return _compiler()
        return _trace if is_compiled_apart() else None

    def decorate(function: Function) -> Function:
        return _with_programs(function, maker_for)

    return decorate


def traced_once(function: Function) -> Function:
    """A decorator like `compiled`, for functions that call compiled ones.

    In a TensorFlow graph each set of shapes is traced once and not in every layer; JAX
    compiles it, which counts in code that runs step by step.
    """

    def maker_for(_: Tensor) -> Callable[..., Any] | None:
        return _trace if is_compiled_apart() else _compiler()

    return _with_programs(function, maker_for)


def _with_programs(
    function: Function, maker_for: Callable[[Tensor], Callable[..., Any] | None]
) -> Function:
    programs: dict[Any, Callable[..., Any]] = {}

    @functools.wraps(function)
    def run(*tensors: Tensor) -> Any:
        maker = maker_for(tensors[0])
        if maker is None:
            return function(*tensors)
        key = maker, *((tuple(t.shape), str(t.dtype)) for t in tensors)
        if key not in programs:
            programs[key] = maker(function)
        return programs[key](*tensors)

    return cast(Function, run)


def may_update() -> bool:
    """Whether a call that trains nothing may update a variable.

    JAX would have it keep a tracer where somebody compiles such a call by himself.
    """
    return keras.backend.backend() != "jax" or in_stateless_scope()


def compiles_with_xla() -> bool:
    """Whether this is the tracing of a TensorFlow function that XLA compiles."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    # TensorFlow has no public way to ask this while a function is being traced.
    return bool(
        not tf.executing_eagerly()
        and control_flow_util.GraphOrParentsInXlaContext(
            tf.compat.v1.get_default_graph()
        )
    )


def is_compiled_apart() -> bool:
    """Whether programs are compiled by themselves, in a graph that is not compiled.

    TensorFlow's eager code is not: where time counts, nobody runs it.
    """
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly() and not compiles_with_xla() and has_xla()


def _compiler() -> Callable[..., Any] | None:
    backend = keras.backend.backend()
    if backend == "jax":
        return _compile_with_jax
    return _compile_with_tensorflow if is_compiled_apart() else None


def _compile_with_jax(function: Callable[..., Any]) -> Callable[..., Any]:
    import jax

    return jax.jit(function)


def _compile_with_tensorflow(function: Callable[..., Any]) -> Callable[..., Any]:
    import tensorflow as tf

    program = tf.function(function, autograph=False, jit_compile=True)

    def run(*tensors: Tensor) -> Any:
        # A variable would become part of the program.
        return program(*map(tf.convert_to_tensor, tensors))

    return run


def _trace(function: Callable[..., Any]) -> Callable[..., Any]:
    """One operation in the graph for each call.

    Not put in line, so that TensorFlow optimizes a deep network's many calls once; and
    not called as a `tf.function`, which takes several times as long, and longer under a
    gradient tape. So the calls have no gradient of their own.
    """
    import tensorflow as tf

    program = tf.function(
        function, autograph=False, experimental_attributes={"_noinline": True}
    )
    traced: list[Any] = []

    def run(*tensors: Tensor) -> Any:
        tensors = tuple(map(tf.convert_to_tensor, tensors))
        if not traced:
            with tf.init_scope():
                specs = [tf.TensorSpec(t.shape, t.dtype) for t in tensors]
                traced.append(program.get_concrete_function(*specs))
        (concrete,) = traced
        concrete.add_to_graph(tf.compat.v1.get_default_graph())
        types = [output.dtype for output in concrete.outputs]
        outputs = tf.raw_ops.PartitionedCall(args=tensors, Tout=types, f=concrete)
        for output, known in zip(outputs, concrete.outputs, strict=True):
            output.set_shape(known.shape)
        return tf.nest.pack_sequence_as(concrete.structured_outputs, outputs)

    return run


@functools.cache
def has_xla() -> bool:
    """Whether this TensorFlow was built with XLA for the CPU."""
    import tensorflow as tf

    with tf.init_scope(), tf.device("CPU:0"):
        try:
            tf.function(lambda x: x + 1.0, jit_compile=True)(tf.constant(1.0))
        except (tf.errors.OpError, ValueError):
            return False
    return True
