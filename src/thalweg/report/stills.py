"""Still figures as the page holds them: smaller than the files beside it, and thumbnails."""

from __future__ import annotations

import base64
import io

from PIL import Image

_THUMBNAIL = (220, 140)  # pixels, twice what is shown


def embedded(png: bytes) -> str:
    """
    Write a figure as an address that holds it whole: every pixel, in two thirds of the bytes.

    Parameters
    ----------
    png : bytes
        Content of its file.

    Returns
    -------
    str
        A ``data:`` address.
    """
    with Image.open(io.BytesIO(png)) as image:
        return _address(image.convert("RGB"), lossless=True, quality=30, method=3)


def thumbnail(png: bytes) -> str:
    """
    Make a small picture of a figure.

    Returns
    -------
    str
        A ``data:`` address; at most 220 by 140 pixels.
    """
    with Image.open(io.BytesIO(png)) as image:
        small = image.convert("RGB")
        small.thumbnail(_THUMBNAIL, Image.Resampling.LANCZOS)
        return _address(small, quality=80, method=4)


def _address(image: Image.Image, **options: object) -> str:
    written = io.BytesIO()
    image.save(written, format="WEBP", **options)
    return f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"
