"""Tests of one folder: a py_test for each file, which pytest runs."""

def pytest_files(deps = [], data = []):
    """A `py_test` for each `test_*.py` of a package, and a suite `tests` of them all.

    Args:
      deps: what the tests import beside the package and `tests/support`.
      data: what they read.
    """
    for file in native.glob(["test_*.py"]):
        native.py_test(
            name = file[:-3],
            srcs = [
                file,
                "//tests:conftest.py",
            ],
            args = [native.package_name() + "/" + file],
            data = data,
            main = "//tests:conftest.py",
            deps = deps + [
                "//pdp_keras",
                "//tests/support",
            ],
        )
    native.test_suite(name = "tests")
