"""Hooks of MkDocs (``mkdocs.yml``): what stands in the repository and not on the site."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.hooks.maskring")

OUTSIDE = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>\.\./[^)#]+)\)")
ROLE = re.compile(r":(?:class|meth|func|data|attr|mod):(?=<code>|`)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links to source files become their names: the site holds pages alone. A dead one is a warning."""
    folder = Path(page.file.abs_src_path).parent

    def name(link: re.Match[str]) -> str:
        target = folder / link["target"]
        if not target.exists():
            log.warning("%s links to %s, which does not exist", page.file.src_uri, link["target"])
        return link["text"]

    return OUTSIDE.sub(name, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings mark names in Sphinx's way; the site needs no marks."""
    return ROLE.sub("", html)
