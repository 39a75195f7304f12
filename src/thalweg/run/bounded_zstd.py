"""A codec of results that looks at what a chunk unpacks to before it is unpacked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zarr.codecs.zstd import ZstdCodec
from zarr.registry import register_codec

from thalweg.errors import DamagedFile
from thalweg.run.bounds import check_memory, shown_bytes

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer

# RFC 8878, 3.1.1: a frame begins with this number and its header, of at most 14 bytes.
_MAGIC = b"\x28\xb5\x2f\xfd"
_HEADER = 18


def content_size(head: bytes) -> int | None:
    """
    Read off the header of a Zstandard frame how many bytes it unpacks to.

    Parameters
    ----------
    head : bytes
        The first 18 bytes of the frame; fewer where it is shorter.

    Returns
    -------
    int or None
        None where the frame does not say, or is none.

    References
    ----------
    RFC 8878, section 3.1.1.1.
    """
    if head[:4] != _MAGIC or len(head) < 5:
        return None
    descriptor = head[4]
    flag, single = descriptor >> 6, descriptor >> 5 & 1
    width = 1 << flag if flag or single else 0
    start = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    field = head[start : start + width]
    if not width or len(field) < width:
        return None
    return int.from_bytes(field, "little") + (256 if flag == 1 else 0)


@dataclass(frozen=True)
class BoundedZstd(ZstdCodec):
    """Zstandard, of frames that say how long they are, and are no longer than their chunk."""

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        size = content_size(chunk_bytes[:_HEADER].to_bytes())
        if size is None:
            raise DamagedFile("A chunk of the result is no Zstandard frame that says its length.")
        width = getattr(chunk_spec.dtype, "item_size", None)
        if width is None:
            return self._decode_text(chunk_bytes, chunk_spec, size)
        if size != (room := math.prod(chunk_spec.shape) * width):
            raise DamagedFile(
                f"A chunk of the result is damaged: it unpacks to {shown_bytes(size)}, and has"
                f" {shown_bytes(room)}."
            )
        return super()._decode_sync(chunk_bytes, chunk_spec)

    def _decode_text(self, chunk_bytes: Buffer, chunk_spec: ArraySpec, size: int) -> Buffer:
        """Unpack text: of any length, in as many pieces as the chunk has."""
        check_memory(size, "A chunk of text in the result", "It is no result of a study.")
        unpacked = super()._decode_sync(chunk_bytes, chunk_spec)
        pieces = int.from_bytes(unpacked[:4].to_bytes(), "little")
        if pieces != math.prod(chunk_spec.shape):
            raise DamagedFile(f"A chunk of text in the result is damaged: it has {pieces} pieces.")
        return unpacked


CODEC = f"{BoundedZstd.__module__}.{BoundedZstd.__qualname__}"
register_codec("zstd", BoundedZstd, qualname=CODEC)
