"""How pages are made of templates: escaped, strict about what is missing, with pictures in themselves."""

from __future__ import annotations

import jinja2

from mmattn.reports.thumbnails import thumbnail

__all__ = ["template_environment"]


def template_environment() -> jinja2.Environment:
    """For the templates of this folder; a page adds its own filters."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("mmattn.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["thumbnail"] = thumbnail
    return made
