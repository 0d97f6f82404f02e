"""The Jinja templates of the pages."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates(folder: str) -> Environment:
    """Return the templates in a folder of `reports`; values are escaped, none may be missing."""
    return Environment(
        loader=PackageLoader("pytest_lmstrix.reports", folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
