# SPDX-License-Identifier: GPL-3.0-or-later
"""Which reader an image file needs: its content decides, not its name.

Readers beyond TIFF and pictures are imported when the first such file comes, because a server's
start should not pay for them.
"""

from granulo_core.imaging.reading.pictures import PICTURE_MAGIC, PictureFile
from granulo_core.imaging.reading.plane import ImageFile
from granulo_core.imaging.reading.problems import unreadable
from granulo_core.imaging.reading.source import Source
from granulo_core.imaging.reading.tiff import TIFF_MAGIC, TiffImageFile

_HEAD_BYTES = 1024


def open_picture(source: Source) -> ImageFile | None:
    """Open a TIFF, PNG, BMP or JPEG; None for anything else."""
    head = source.head(_HEAD_BYTES)
    if head[:4] in TIFF_MAGIC:
        return TiffImageFile(source)
    for magic, kind in PICTURE_MAGIC.items():
        if head.startswith(magic):
            return PictureFile(source, kind)
    return None


def open_image_file(source: Source) -> ImageFile:
    """Open an image file of any format that Granulo reads.

    Raises
    ------
    GranuloError
        IMAGE_UNREADABLE where the content is none of them, or is damaged.
    """
    found = open_picture(source) or _open_instrument_file(source)
    if found is None:
        raise unreadable(
            source.name,
            "is of no format that Granulo reads (TIFF, PNG, BMP, JPEG, DM3, DM4, SER, Velox EMD, "
            "MRC, OME-Zarr), whatever its name says; export it as TIFF or PNG",
        )
    return found


def _open_instrument_file(source: Source) -> ImageFile | None:
    head = source.head(_HEAD_BYTES)
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        from granulo_core.imaging.reading.velox import VeloxFile

        return VeloxFile(source)
    if source.is_folder or head[:4] == b"PK\x03\x04":
        from granulo_core.imaging.reading.omezarr import OmeZarrFile

        return OmeZarrFile(source)
    if head[:4] in (b"II\x97\x01", b"JK\x00\x02"):
        from granulo_core.imaging.reading.tia import SER_MAGIC, EmiFile, SerFile

        return SerFile(source) if head.startswith(SER_MAGIC) else EmiFile(source)
    if head[208:211] == b"MAP":
        from granulo_core.imaging.reading.mrc import MrcFile

        return MrcFile(source)
    if head[:3] == b"\0\0\0":
        from granulo_core.imaging.reading.gatan import GatanFile, is_gatan

        return GatanFile(source) if is_gatan(head) else None
    return None
