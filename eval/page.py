"""The self-contained page that reports are written on: one file, no request to anywhere, light and dark."""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from eval.store import write_text

_TEMPLATE = Template((Path(__file__).parent / "report.template.html").read_text())


def write_page(
    path: Path, title: str, system: str, finished: str, introduction: str, tally: str, sections: Mapping[str, str]
) -> Path:
    """Write a page.

    Args:
        path: Of the page.
        title: Its heading.
        system: What was judged.
        finished: When, in ISO format, UTC.
        introduction: HTML of the first paragraph.
        tally: HTML of the line below it.
        sections: Heading -> HTML; empty ones are left out.
    """
    body = "\n".join(f"<section><h2>{name}</h2>{content}</section>" for name, content in sections.items() if content)
    when = finished.replace("T", " ").removesuffix("+00:00")
    words = {"title": escape(title), "system": escape(system), "finished": escape(when)}
    write_text(_TEMPLATE.substitute(words, introduction=introduction, tally=tally, body=body), path)
    return path


def picture(path: Path, width: int) -> str:
    """Return an image or playing video as HTML that holds its content."""
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:image/{path.suffix[1:]};base64,{content}" width="{width}" alt="">'


def details(versions: Mapping[str, str], settings: Any) -> str:
    """Return versions and settings as HTML."""
    line = " · ".join(f"{name} {number}" for name, number in versions.items())
    shown = escape(json.dumps(settings, indent=2))
    return f'<p class="soft">{line}</p><details><summary>settings</summary><pre>{shown}</pre></details>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of HTML cells; the second column holds the values."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(_cell(i, cell) for i, cell in enumerate(row))}</tr>" for row in rows)
    return f'<div class="scroll"><table class="numbers"><tr>{top}</tr>{body}</table></div>'


def _cell(column: int, content: str) -> str:
    return f'<td class="value">{content}</td>' if column == 1 else f"<td>{content}</td>"
