"""The jinja environment of the HTML pages: autoescaped, strict about undefined names, with inlined images."""

from __future__ import annotations

import jinja2

from mmattn.reports.thumbnails import thumbnail

__all__ = ["template_environment"]


def template_environment(package: str = "mmattn.reports") -> jinja2.Environment:
    """Return the environment for the templates of a package and the shared ones of the reports.

    A page adds its own filters and globals to the result.

    Args:
        package: package with a `templates` folder; its templates take precedence over the shared ones.

    Example:
        >>> template_environment().from_string("{{ title }}").render(title="<b>")
        '&lt;b&gt;'
    """
    packages = dict.fromkeys((package, "mmattn.reports"))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in packages]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thumbnail"] = thumbnail
    return environment
