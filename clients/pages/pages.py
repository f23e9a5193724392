"""Pages for people: HTML files that hold all they show. No script, nothing loaded from elsewhere."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape


def render_page(template: str, **content: Any) -> bytes:
    """Fill a template of `clients/pages/templates`; every value is escaped.

    In templates the filter `code` sets what stands between back-ticks as code.
    """
    environment = Environment(loader=PackageLoader("clients.pages"), autoescape=True, undefined=StrictUndefined)
    environment.filters["code"] = mark_code
    return environment.get_template(template).render(**content).encode()


def mark_code(text: str) -> Markup:
    """Set every other part of a text, the one between back-ticks, as code.

    Example:
        >>> mark_code("run `a < b` now")
        Markup('run <code>a &lt; b</code> now')
    """
    parts = [
        Markup("<code>{}</code>").format(part) if at % 2 else escape(part) for at, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)
