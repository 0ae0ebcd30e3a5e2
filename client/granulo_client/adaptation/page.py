# SPDX-License-Identifier: Apache-2.0
"""The page that shows the overlays before and after side by side."""

from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from granulo_client.adaptation.report import Report

_PAGE = Template("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>$title</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto;
    max-width: 1500px; padding: 0 1em; }
  h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin: 2em 0 .4em; }
  .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1em; }
  figure { margin: 0; } img { width: 100%; display: block; }
  figcaption { color: #555; }
</style>
<h1>$title</h1>
$lines
$pairs
</html>
""")


def write_page(report: Report, folder: Path) -> str:
    """Make the page.

    Parameters
    ----------
    report : Report
    folder : Path
        Where the page will lie; pictures are named relative to it.

    Returns
    -------
    str
        HTML.
    """
    return _PAGE.substitute(
        title=escape(f"{report.asked.model}: before and after"),
        lines="\n".join(f"<p>{escape(line)}</p>" for line in report.lines()),
        pairs="\n".join(_pair(image, folder) for image in report.images()),
    )


def _pair(image: dict[str, Any], folder: Path) -> str:
    page = f", page {image['page']}" if image["page"] else ""
    name = escape(f"{Path(image['image']).name}{page}")
    figures = "".join(_figure(image[when], when, folder) for when in ("before", "after"))
    same = f"{image['agreement_ap50']:.2f}"
    return f'<h2>{name}: agreement AP50 {same}</h2>\n<div class="pair">{figures}</div>'


def _figure(found: dict[str, Any], when: str, folder: Path) -> str:
    told = f"{when}: {found['particle_count']} particles"
    if found["overlay"] is None:
        return f"<figure><figcaption>{told}, no overlay</figcaption></figure>"
    path = quote(Path(found["overlay"]).relative_to(folder).as_posix())
    return (
        f'<figure><a href="{path}"><img src="{path}" alt="{told}"></a>'
        f"<figcaption>{told}</figcaption></figure>"
    )
