# SPDX-License-Identifier: GPL-3.0-or-later
"""What many images a day need: nodes, store traffic, money. The tables of docs/scaling.md.

    python benchmarks/scaling.py [--images 1000000] [NAME=VALUE ...]

Every number of `Assumptions` can be replaced by your own, e.g. ``segment_core_s=2.1
usd_per_core_hour=0.03``.
"""

import argparse
import sys
from dataclasses import dataclass, fields, replace

DAY_S = 86_400.0
MONTH_DAYS = 30.4


@dataclass(frozen=True)
class Assumptions:
    """Measured where docs/performance.md has the figure, else assumed; see `NOTES`."""

    segment_core_s: float = 3.2
    """Of one 2048 x 2048 px image: reading, network, instances, writing."""
    network_share: float = 0.3
    """Of it in the model server."""
    analyze_core_s: float = 2.9
    """Of one image with 1,000 particles: measuring, overlay, outlines, masks."""
    render_core_s: float = 2.2
    """Of one `sio2` scene of 507 px."""
    image_mb: float = 4.5
    """An uploaded 8-bit TIFF."""
    results_mb: float = 21.1
    """Labels, tables, overlays, outlines, masks of one image."""
    reread_mb: float = 2.5
    """Of the results: labels, tables and masks, which the analysis and its report read."""
    scene_mb: float = 1.5
    """Everything that is stored of one scene."""
    requests_per_image: float = 46.0
    """PUT, LIST and DELETE."""
    reads_per_image: float = 51.0
    """GET and HEAD."""
    use: float = 0.7
    """Share of a node's time that is planned with."""
    peak: float = 2.0
    """Busiest hour over the mean of the day."""
    gpu_speedup: float = 50.0
    """Of the network, over one core. Not measured."""
    node_cores: float = 16.0
    keep_days: float = 30.0
    """How long images and results stay."""
    usd_per_core_hour: float = 0.04
    usd_per_gpu_hour: float = 0.80
    usd_per_gb_month: float = 0.023
    usd_per_1000_writes: float = 0.005
    usd_per_1000_reads: float = 0.0004


NOTES = {
    "segment_core_s": "measured", "network_share": "measured", "analyze_core_s": "measured",
    "render_core_s": "measured", "image_mb": "measured", "results_mb": "measured",
    "reread_mb": "measured", "scene_mb": "measured",
    "requests_per_image": "counted", "reads_per_image": "counted",
    "use": "assumed", "peak": "assumed", "gpu_speedup": "**assumed, not measured**",
    "node_cores": "assumed", "keep_days": "assumed",
}  # fmt: skip
"""Where each figure is from; prices are assumed."""


def cores(core_s: float, images: float, given: Assumptions) -> float:
    """Cores that do so many images a day, in the busiest hour."""
    return images * core_s * given.peak / DAY_S / given.use


def nodes_table(images: float, given: Assumptions) -> list[str]:
    """Cores and nodes by part, with the network on cores or on GPUs."""
    network_s = given.segment_core_s * given.network_share
    rows = [
        ("segmenting without the network", given.segment_core_s - network_s),
        ("the network (model servers)", network_s),
        ("analysing", given.analyze_core_s),
    ]
    lines = ["| part | core seconds an image | cores | nodes |", "|---|---|---|---|"]
    total = 0.0
    for name, core_s in rows:
        needed = cores(core_s, images, given)
        total += needed
        lines.append(f"| {name} | {core_s:.1f} | {needed:,.0f} | {needed / given.node_cores:.0f} |")
    lines.append(
        f"| **all on cores** | {given.segment_core_s + given.analyze_core_s:.1f} | {total:,.0f} | "
        f"{total / given.node_cores:.0f} |"
    )
    gpus = cores(network_s, images, given) / given.gpu_speedup
    rest = total - cores(network_s, images, given)
    unit = "GPU" if round(gpus) == 1 else "GPUs"
    lines.append(
        f"| with the network on GPUs | | {rest:,.0f} and {gpus:.0f} {unit} | "
        f"{rest / given.node_cores:.0f} |"
    )
    return lines


def store_table(images: float, given: Assumptions) -> list[str]:
    """Traffic and size of the store."""
    written_tb = images * (given.image_mb + given.results_mb) / 1e6
    writes = images * given.requests_per_image / DAY_S * given.peak
    reads = images * given.reads_per_image / DAY_S * given.peak
    # An image is read three times: looked at, segmented, measured.
    read_tb = images * (3 * given.image_mb + given.reread_mb) / 1e6
    return [
        "| store | a day | in the busiest hour |",
        "|---|---|---|",
        f"| written | {written_tb:.1f} TB | {written_tb * 1e6 / DAY_S * given.peak:,.0f} MB/s |",
        f"| read | {read_tb:.1f} TB | {read_tb * 1e6 / DAY_S * given.peak:,.0f} MB/s |",
        f"| PUT, LIST | {images * given.requests_per_image / 1e6:.0f} million | {writes:,.0f}/s |",
        f"| GET, HEAD | {images * given.reads_per_image / 1e6:.0f} million | {reads:,.0f}/s |",
        f"| kept for {given.keep_days:.0f} days | {written_tb * given.keep_days:,.0f} TB | |",
    ]


def money_table(images: float, given: Assumptions) -> list[str]:
    """Cost of a day; cores and GPUs are paid by what is used, not by the peak."""
    core_s = images * (given.segment_core_s + given.analyze_core_s)
    network_s = images * given.segment_core_s * given.network_share
    hours = core_s / 3600 / given.use
    kept_gb = images * (given.image_mb + given.results_mb) / 1e3 * given.keep_days
    each = given.requests_per_image * given.usd_per_1000_writes
    each += given.reads_per_image * given.usd_per_1000_reads
    requests = images * each / 1000
    storage = kept_gb * given.usd_per_gb_month / MONTH_DAYS
    on_cores = hours * given.usd_per_core_hour
    on_gpus = (core_s - network_s) / 3600 / given.use * given.usd_per_core_hour
    on_gpus += network_s / given.gpu_speedup / 3600 / given.use * given.usd_per_gpu_hour
    lines = ["| US$ a day | all on cores | network on GPUs |", "|---|---|---|"]
    lines.append(f"| computing | {on_cores:,.0f} | {on_gpus:,.0f} |")
    lines.append(f"| keeping for {given.keep_days:.0f} days | {storage:,.0f} | {storage:,.0f} |")
    lines.append(f"| requests | {requests:,.0f} | {requests:,.0f} |")
    totals = [part + storage + requests for part in (on_cores, on_gpus)]
    lines.append(f"| **all** | **{totals[0]:,.0f}** | **{totals[1]:,.0f}** |")
    thousand = [1000 * total / images for total in totals]
    lines.append(f"| a thousand images | {thousand[0]:.2f} | {thousand[1]:.2f} |")
    return lines


def scenes_table(scenes: float, given: Assumptions) -> list[str]:
    """What so many rendered scenes take, without a peak: renders can wait."""
    hours = scenes * given.render_core_s / 3600 / given.use
    stored_tb = scenes * given.scene_mb / 1e6
    usd = hours * given.usd_per_core_hour
    usd += stored_tb * 1000 * given.usd_per_gb_month
    return [
        "| scenes | core hours | on 256 cores | stored | US$, with a month in the store |",
        "|---|---|---|---|---|",
        f"| {scenes:,.0f} | {hours:,.0f} | {hours / 256:.1f} h | {stored_tb:.1f} TB | {usd:,.0f} |",
    ]


def assumptions_table(given: Assumptions) -> list[str]:
    """All parameters."""
    lines = ["| parameter | value | from |", "|---|---|---|"]
    for item in fields(given):
        value = getattr(given, item.name)
        lines.append(f"| `{item.name}` | {value:g} | {NOTES.get(item.name, 'assumed price')} |")
    return lines


def document(images: float, given: Assumptions) -> str:
    """The tables between their titles, as they stand in docs/scaling.md."""
    parts = [
        nodes_table(images, given),
        store_table(images, given),
        money_table(images, given),
        scenes_table(images, given),
        assumptions_table(given),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--images", type=float, default=1e6, help="a day")
    parser.add_argument("given", nargs="*", metavar="NAME=VALUE")
    options = parser.parse_args()
    changes = {name: float(value) for name, _, value in (x.partition("=") for x in options.given)}
    sys.stdout.write(document(options.images, replace(Assumptions(), **changes)) + "\n")


if __name__ == "__main__":
    main()
