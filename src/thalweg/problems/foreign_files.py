"""Files that are no checkpoints: told by how they begin, with what to give instead."""

from __future__ import annotations

from pathlib import Path

from thalweg.errors import CheckpointRefused

_AGAIN = "Download it again, and look at what the server says"
_UNPACK = "Unpack it first"
_OWN = "Write the weights of the PyTorch model: torch.save(model.state_dict(), 'w.pt')"
_BY_BEGINNING = {
    b"GGUF": "is a GGUF file: weights quantized for inference under other names. Give the"
    " checkpoint it was made from (.safetensors or .pt)",
    b"\x1f\x8b": f"is compressed by gzip. {_UNPACK}",
    b"BZh": f"is compressed by bzip2. {_UNPACK}",
    b"\xfd7zXZ": f"is compressed by xz. {_UNPACK}",
    b"\x28\xb5\x2f\xfd": f"is compressed by zstd. {_UNPACK}",
    b"\x89HDF": f"is an HDF5 file, as Keras writes them. {_OWN}",
    b"\x93NUMPY": "holds one array without a name. Write np.savez(path, **arrays), with the names"
    " of the model's state_dict",
    b"version https://git-lfs": "is a pointer of Git LFS in the place of the file. Fetch the file:"
    " git lfs pull",
    b"<!doctype": f"is a web page in the place of the file. {_AGAIN}",
    b"<html": f"is a web page in the place of the file. {_AGAIN}",
    b"<?xml": f"is an XML text in the place of the file. {_AGAIN}",
}
_BY_SUFFIX = {
    ".onnx": f"is an ONNX graph. {_OWN}",
    ".msgpack": f"is a file of Flax. {_OWN}",
    ".tflite": f"is a file of TensorFlow Lite. {_OWN}",
    ".pb": f"is a file of TensorFlow. {_OWN}",
}
# A tar archive says so here.
_TAR = slice(257, 262)
LONGEST = 512


def refuse_foreign(path: Path, start: bytes) -> None:
    """
    Refuse a file that is known to be no checkpoint of torch.

    Parameters
    ----------
    path : Path
        Whose name may tell, too.
    start : bytes
        Its first `LONGEST` bytes.

    Raises
    ------
    CheckpointRefused
        With what it is, and what to give instead.
    """
    begins = start.lower()
    for beginning, words in _BY_BEGINNING.items():
        if begins.startswith(beginning.lower()):
            raise CheckpointRefused(f"{path} {words}.")
    if start[_TAR] == b"ustar":
        raise CheckpointRefused(f"{path} is a tar archive. {_UNPACK}.")
    if words := _BY_SUFFIX.get(path.suffix, ""):
        raise CheckpointRefused(f"{path} {words}.")
