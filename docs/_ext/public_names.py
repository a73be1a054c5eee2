"""Fails the build where a public name is not documented, or has no example."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pdp_keras
import pdp_keras.plot

# The tests read the names where Sphinx is not installed.
if TYPE_CHECKING:
    from sphinx.application import Sphinx


def public_names() -> dict[str, Any]:
    """Every public name with its object: the package's, its methods', its plots'."""
    package = {
        f"pdp_keras.{name}": getattr(pdp_keras, name) for name in pdp_keras.__all__
    }
    methods = {
        f"pdp_keras.methods.{method.__name__}": method
        for method in pdp_keras.methods.METHODS.values()
    }
    plots = {
        f"pdp_keras.plot.{name}": function
        for name, function in vars(pdp_keras.plot).items()
        if name.startswith("plot_") and inspect.isfunction(function)
    }
    return {
        **package,
        **methods,
        **plots,
        "pdp_keras.methods.get": pdp_keras.methods.get,
    }


def faults(documented: set[str]) -> list[str]:
    """What is wrong with the documentation of public names.

    Args:
        documented: the names that the reference has.
    """
    found = []
    for name, value in sorted(public_names().items()):
        if name not in documented:
            found.append(f"{name} is public and stands nowhere in the reference")
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        if ">>>" not in (inspect.getdoc(value) or ""):
            found.append(f"{name} has no example in its docstring")
    return found


def _check(app: Sphinx, env: Any) -> None:
    from sphinx.util import logging

    entries = env.domaindata["py"]["objects"].items()
    reference = {name for name, at in entries if at.docname.startswith("reference/")}
    for fault in faults(reference):
        logging.getLogger(__name__).warning(fault, type="public_names")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True, "version": "1"}
