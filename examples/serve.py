"""Serves the page that runs a dense and a sparse file side by side in the browser.

    python examples/mobile.py     # writes the files
    python examples/serve.py      # then open the address that it prints

Needs Node.js with npm, once, to install LiteRT.js.
"""

from __future__ import annotations

import functools
import http.server
import pathlib
import sys

import litert_js
from absl import app, flags

_FOLDER = flags.DEFINE_string(
    "folder", "pdp_output/mobile", "Where `mobile.py` wrote its files."
)
_PORT = flags.DEFINE_integer(
    "port", 8000, "Of this machine; 0 takes a free one.", lower_bound=0
)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of the page, and under /models/ those of a folder."""

    extensions_map = {  # noqa: RUF012 (the base class has it so)
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *arguments: object, models: pathlib.Path, **options: object):
        self.models = models
        super().__init__(*arguments, directory=str(litert_js.FOLDER), **options)

    def translate_path(self, path: str) -> str:
        """The file for the path of an address, `..` resolved as the base class does."""
        found = pathlib.Path(super().translate_path(path))
        below = found.relative_to(litert_js.FOLDER)
        if below.parts[:1] == ("models",):
            return str(self.models.joinpath(*below.parts[1:]))
        return str(found)

    def end_headers(self) -> None:
        """Asks for no caching: the files change when `mobile.py` runs again."""
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing of every file that is read."""


def server(folder: pathlib.Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of the page, not yet running.

    Args:
        folder: with `page.json`, `dense.tflite` and `sparse.tflite`.
        port: 0 takes a free one; see `server_port` of the result.

    Raises:
        FileNotFoundError: if the folder lacks a file.
        OSError: if the port is taken.
        litert_js.BrowserError: if LiteRT.js cannot be installed.
    """
    for name in ("page.json", "dense.tflite", "sparse.tflite"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                "The folder must hold what `python examples/mobile.py` writes. "
                f"Received: folder={str(folder)!r} without {name}"
            )
    litert_js.install()
    handler = functools.partial(Handler, models=folder.resolve())
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise OSError(
            f"The port must be free. Received: port={port} ({error})"
        ) from error


def main(argv: list[str]) -> None:
    """Serves until Ctrl-C."""
    if len(argv) > 1:
        raise app.UsageError(f"Only flags are understood. Received: {argv[1:]}")
    try:
        with server(pathlib.Path(_FOLDER.value).expanduser(), _PORT.value) as page:
            print(
                f"http://localhost:{page.server_port}/   (Ctrl-C ends it)", flush=True
            )
            page.serve_forever()
    except KeyboardInterrupt:
        pass
    except (OSError, litert_js.BrowserError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
