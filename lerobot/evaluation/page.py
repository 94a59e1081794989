"""The parts of a page that stands alone in one HTML file: frame, tables, facts, figures; light and dark.

Every text that comes in is escaped; what is already HTML (a chart) is marked by the name `body`.
"""

import base64
import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path


def document(title: str, subtitle: str, body: Sequence[str]) -> str:
    """A whole page."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{html.escape(title)}</h1>\n<p class="soft">{html.escape(subtitle)}</p>\n'
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def section(title: str, *bodies: str) -> str:
    """A headed part of the page, or nothing when there is nothing in it."""
    inside = "\n".join(body for body in bodies if body)
    return f"<h2>{html.escape(title)}</h2>\n{inside}" if inside else ""


def paragraph(text: str) -> str:
    """A few words of explanation."""
    return f'<p class="soft">{html.escape(text)}</p>'


def headline(number: str, text: str, *, body: str = "") -> str:
    """The one number that the page is about."""
    return (
        f'<div class="headline"><div class="number">{html.escape(number)}</div>'
        f'<div class="words">{body}<p>{html.escape(text)}</p></div></div>'
    )


def facts(rows: Mapping[str, str]) -> str:
    """Names and values."""
    inside = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in rows.items())
    return f'<dl class="facts">{inside}</dl>' if rows else ""


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, marks: Mapping[str, str] | None = None
) -> str:
    """A table; cells whose text is in `marks` get that class."""
    marks = marks or {}
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = []
    for row in rows:
        cells = (
            f' class="{marks[cell]}">' + html.escape(cell) if cell in marks else ">" + html.escape(cell)
            for cell in row
        )
        lines.append("<tr>" + "".join(f"<td{cell}</td>" for cell in cells) + "</tr>")
    body = "\n".join(lines)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def grid(bodies: Sequence[str], *, is_wide: bool = False) -> str:
    """Figures side by side, as many as fit."""
    inside = "\n".join(body for body in bodies if body)
    return f'<div class="grid-of{" wide" if is_wide else ""}">\n{inside}\n</div>' if inside else ""


def video(path: Path, caption: str, *, relative_to: Path, is_embedded: bool, is_waiting: bool = False) -> str:
    """A video that plays on the page, inside the file or beside it; one that is waiting loads when played."""
    if is_embedded:
        source = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    else:
        source = html.escape(Path(os.path.relpath(path, relative_to)).as_posix())
    preload = "none" if is_waiting else "metadata"
    return (
        f'<figure><video controls muted loop playsinline preload="{preload}" src="{source}"></video>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def folded(title: str, text: str) -> str:
    """A long text behind a click."""
    return fold(title, f"<pre>{html.escape(text)}</pre>")


def fold(title: str, *bodies: str) -> str:
    """A part of the page behind a click, or nothing when there is nothing in it."""
    inside = "\n".join(body for body in bodies if body)
    return f"<details><summary>{html.escape(title)}</summary>\n{inside}</details>" if inside else ""


STYLE = """\
:root {
  --ink: #1b2430; --soft: #5d6b7c; --line: #dfe4ea; --paper: #ffffff; --card: #f5f7f9; --good: #15803d;
  --bad: #b42318; --c0: #2563eb; --c1: #e07b00; --c2: #15803d; --c3: #9333ea; --c4: #0e7490; --c5: #be185d;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e7ecf2; --soft: #9aa8b8; --line: #2f3a47; --paper: #12171e; --card: #1a212b; --good: #4ade80;
    --bad: #f87171; --c0: #60a5fa; --c1: #fbbf24; --c2: #4ade80; --c3: #c084fc; --c4: #22d3ee; --c5: #f472b6;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 1000px; padding: 32px 20px 60px; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif;
}
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 40px 0 12px; }
p { margin: 6px 0; }
.soft { color: var(--soft); }
.headline {
  display: flex; flex-wrap: wrap; gap: 8px 28px; align-items: center; margin-top: 24px; padding: 22px;
}
.headline, .facts { background: var(--card); border-radius: 12px; }
.headline .number { font-size: 56px; font-weight: 700; line-height: 1; }
.headline .words { flex: 1 1 320px; }
.facts {
  display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin-top: 12px; padding: 16px 22px;
}
.facts dt { color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.grid-of { display: grid; grid-template-columns: repeat(auto-fill, minmax(290px, 1fr)); gap: 16px; }
.grid-of.wide { grid-template-columns: repeat(auto-fill, minmax(min(400px, 100%), 1fr)); gap: 24px 16px; }
figure { margin: 0; }
figcaption { font-size: 14px; color: var(--soft); }
video { width: 100%; border-radius: 8px; background: #000; display: block; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
th { color: var(--soft); font-weight: 500; }
.good { color: var(--good); }
.bad { color: var(--bad); }
details { margin-top: 16px; }
summary { cursor: pointer; }
pre { background: var(--card); padding: 14px; border-radius: 8px; overflow-x: auto; font-size: 13px; }
svg.chart { width: 100%; height: auto; }
svg.interval { width: 100%; max-width: 420px; height: 24px; }
svg .title { font: 600 14px system-ui, sans-serif; fill: var(--ink); }
svg .tick { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg .grid { stroke: var(--line); }
.line0 { stroke: var(--c0); } .line1 { stroke: var(--c1); }
.line2 { stroke: var(--c2); } .line3 { stroke: var(--c3); }
.line4 { stroke: var(--c4); } .line5 { stroke: var(--c5); }
.dot0 { fill: var(--c0); } .dot1 { fill: var(--c1); } .dot2 { fill: var(--c2); } .dot3 { fill: var(--c3); }
.dot4 { fill: var(--c4); } .dot5 { fill: var(--c5); }
svg .fill0 { fill: var(--c0); } svg .fill1 { fill: var(--c1); }
svg .fill2 { fill: var(--c2); } svg .fill3 { fill: var(--c3); }
svg .fill4 { fill: var(--c4); } svg .fill5 { fill: var(--c5); }
.track { fill: var(--line); } .done { fill: var(--c0); } .whisker { stroke: var(--ink); stroke-width: 2; }
@media (max-width: 560px) {
  body { padding: 20px 14px 40px; }
  .facts { grid-template-columns: 1fr; gap: 0; padding: 14px 16px; }
  .facts dd { margin-bottom: 8px; }
  .grid-of:not(.wide) { grid-template-columns: 1fr 1fr; gap: 12px; }
  .headline { padding: 16px; }
  .headline .number { font-size: 44px; }
  .headline .words { flex-basis: 200px; }
}
@media print { details { display: none; } figure, svg.chart { break-inside: avoid; } }
"""
