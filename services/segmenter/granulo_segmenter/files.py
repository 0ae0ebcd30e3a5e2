# SPDX-License-Identifier: GPL-3.0-or-later
"""What child processes do with users' files; they import nothing else of the segmenter."""

from pathlib import Path

from granulo_core.imaging.read import MIN_SIDE_PX, count_pages, open_micrograph, read_micrograph


def check_pages(file: Path, *, name: str, max_px: int, memory_px: int) -> int:
    """Read every page of a file once.

    Parameters
    ----------
    file : Path
    name : str
        What the user calls the file.
    max_px : int
        Largest accepted number of pixels of a page.
    memory_px : int
        Of larger pages whose format lets parts be read only the header is read.

    Returns
    -------
    int
        How many pages there are.

    Raises
    ------
    GranuloError
        What is wrong with the first page that cannot be segmented; see `read_micrograph`.
    """
    pages = count_pages(file, name=name)
    for page in range(pages):
        with open_micrograph(file, page=page, max_px=max_px, name=name) as micrograph:
            height, width = micrograph.shape
            large = micrograph.streams and height * width > memory_px
        if min(height, width) < MIN_SIDE_PX or not large:
            read_micrograph(file, page=page, max_px=max_px, name=name)
    return pages
