"""Settings of the documentation: `bash docs/build.sh` builds it.

Sphinx with furo and MyST: of the well-kept generators it is the one that checks links
and references itself (`-W --nitpicky`), reads docstrings by importing the package,
executes notebooks that are kept as text (myst-nb), and needs no network.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]
# Kernels of notebooks are processes of their own.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), os.environ.get("PYTHONPATH", "")]
).rstrip(os.pathsep)

import house  # noqa: E402

import pdp_keras  # noqa: E402

house.write()

project = "pdp_keras"
author = "The pdp_keras authors"
copyright = "The pdp_keras authors, Apache-2.0"
version = release = pdp_keras.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "plain_docstrings",
    "public_names",
]
exclude_patterns = ["_build", "_ext"]
nitpicky = True
# Without a network there is no inventory of NumPy's names.
nitpick_ignore = [("py:class", "numpy.ndarray")]
# Single backquotes in docstrings are code.
default_role = "code"

autodoc_typehints = "none"  # the docstrings say it in words
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "docs" / "_build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True
nb_render_markdown_format = "myst"  # or tables stay text

html_theme = "furo"
# Furo's own choice underlines the names of modules, as if they were links.
pygments_dark_style = "monokai"
html_title = f"pdp_keras {release}"
html_static_path = ["_static"]
html_css_files = ["wide_tables.css"]
html_show_sphinx = False
templates_path: list[str] = []
copybutton_exclude = ".linenos, .gp, .go"
