"""Files of weights as they are found: read without running code, whatever their layout."""

from __future__ import annotations

import json
import logging
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from thalweg.errors import CheckpointRefused, first_line
from thalweg.problems.foreign_files import LONGEST, refuse_foreign
from thalweg.problems.harmless_globals import (
    Inert,
    InertDict,
    allowed_globals,
    harmless_globals,
    named_alone,
)
from thalweg.run.bounds import check_memory, shown_bytes
from thalweg.run.checkpoints import read_checkpoint

log = logging.getLogger("thalweg")

# Entries of entries are joined by this: {"net": {"0.bias": b}} has the name "net/0.bias".
NEST = "/"
_INDEX = ".index.json"
# What a folder of a model hub calls its weights, most trusted first.
_HUB = tuple(
    stem + ending
    for ending in (".safetensors", f".safetensors{_INDEX}", ".bin", f".bin{_INDEX}")
    for stem in ("model", "pytorch_model", "diffusion_pytorch_model", "adapter_model")
)
SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".npz", ".tar")
_SHOWN = 5
SAFE = (
    "Save the weights alone, torch.save(model.state_dict(), 'w.pt'), or as"
    " safetensors.torch.save_file(model.state_dict(), 'w.safetensors')."
)


class Contents(NamedTuple):
    """
    What a file holds.

    Attributes
    ----------
    tensors : dict of str to Tensor
        On the CPU, by name; below entries, by the entries' names and the tensor's, joined by "/".
    about : dict
        What Thalweg wrote about the checkpoint; empty for others.
    values : dict
        Plain numbers and texts beside the weights, by name.
    """

    tensors: dict[str, Tensor]
    about: dict[str, Any]
    values: dict[str, Any]


def read_weights(
    path: str | Path,
    *,
    allow: Iterable[str | type] = (),
    mapped: bool = False,
    resume: bool = True,
) -> Contents:
    """
    Read all tensors of a file or of a folder of a model hub.

    Parameters
    ----------
    path : str or Path
        A file of ``torch.save``, safetensors, an index of shards, a NumPy archive, or a folder
        that holds ``model.safetensors`` or another of a hub's names.
    allow : iterable of str or type
        Classes that may stand beside the weights in a file of ``torch.save``: their values are
        passed over, and no code of theirs is run.
    mapped : bool
        Leave the tensors of a file of ``torch.save`` in the file until they are used.
    resume : bool
        Read also what Thalweg wrote for a resume alone.

    Raises
    ------
    CheckpointRefused
        If reading would run code, or there is no file of weights that can be read.
    """
    path, allow = _file_at(Path(path)), (allow,) if isinstance(allow, str) else tuple(allow)
    if path.name.endswith(_INDEX):
        return _read_shards(path, allow)
    with path.open("rb") as file:
        start = file.read(LONGEST)
    refuse_foreign(path, start)
    if path.suffix == ".safetensors" or start[8:9] == b"{":  # 8 bytes of length, then a JSON header
        tensors, about = read_checkpoint(path, resume=resume)
        return Contents(tensors, about, {})
    if start.startswith(b"PK") and _is_numpy(path):
        return Contents(_read_numpy(path), {}, {})
    return _plain(_read_torch(path, start, allow, mapped), path)


def is_weight_file(path: Path) -> bool:
    """Say whether a path is named like a file of weights, or is a folder of a model hub."""
    if path.is_dir():
        return any((path / name).is_file() for name in _HUB)
    return path.suffix in SUFFIXES and path.is_file()


def files_of(path: Path) -> list[Path]:
    """List what `read_weights` reads at a path: the file, or an index with its shards."""
    path = _file_at(path)
    if not path.name.endswith(_INDEX):
        return [path]
    return [path, *(path.parent / name for name in sorted(set(_places(path).values())))]


def _file_at(path: Path) -> Path:
    if path.is_dir():
        path = _in_folder(path)
    if not path.is_file():
        raise CheckpointRefused(
            f"{path} is not there; give a checkpoint file (.safetensors or .pt)."
        )
    return path


def _in_folder(folder: Path) -> Path:
    """Find the weights in a folder of a model hub."""
    for name in _HUB:
        if (folder / name).is_file():
            return folder / name
    if any(folder.glob("*.distcp")):
        raise CheckpointRefused(
            f"{folder} is a distributed checkpoint; turn it into one file first: python -m"
            " torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER w.pt."
        )
    names = sorted(path.name for path in folder.iterdir() if is_weight_file(path))
    if len(names) == 1:
        return folder / names[0]
    contents = f" and holds {len(names)} files of weights ({few(names)})" if names else ""
    raise CheckpointRefused(
        f"{folder} is a folder{contents}; give a checkpoint file (.safetensors or .pt) or a folder"
        " with model.safetensors."
        + (" All of them are a trajectory: --run FOLDER." if len(names) > 1 else "")
    )


def _read_shards(index: Path, allow: Iterable[str | type]) -> Contents:
    """Read the files that an index names, all from its own folder."""
    places = _places(index)
    files = sorted(set(places.values()))
    tensors: dict[str, Tensor] = {}
    for name in files:
        tensors |= read_weights(index.parent / name, allow=allow).tensors
    absent = [name for name in places if name not in tensors]
    if absent:
        raise CheckpointRefused(
            f"{index} names {len(absent)} tensors that its files do not hold ({few(absent)});"
            " copy or download them again."
        )
    return Contents(tensors, {}, {})


def _places(index: Path) -> dict[str, str]:
    """Read which file beside an index holds which tensor."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        places = {str(name): str(file) for name, file in content["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointRefused(
            f"{index} is no index of shards ({error!r}); expected JSON with a weight_map of names"
            " to files."
        ) from None
    files = sorted(set(places.values()))
    missing = [name for name in files if not (index.parent / name).is_file()]
    if missing or any(Path(name).name != name for name in files):
        raise CheckpointRefused(
            f"{index} names {len(files)} files, of which {len(missing)} are not beside it"
            f" ({few(missing or files)}); copy or download all of them into one folder."
        )
    return places


def _members(path: Path) -> list[zipfile.ZipInfo]:
    """List what an archive holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise CheckpointRefused(
            f"{path} is damaged: its list of contents cannot be read ({error}). Copy or download it"
            " again."
        ) from None


def _is_numpy(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    names = [member.filename for member in _members(path)]
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_numpy(path: Path) -> dict[str, Tensor]:
    unpacked = sum(member.file_size for member in _members(path))
    check_memory(2 * unpacked, f"what {path} unpacks to", "It is not the weights of a model here.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(np.array(archive[name])) for name in archive.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointRefused(
            f"{path} cannot be read: truncated, or arrays of other things than numbers, whose"
            f" pickles would run code ({error}). Write np.savez of numbers alone."
        ) from None


def _read_torch(path: Path, start: bytes, allow: Iterable[str | type], mapped: bool) -> Any:
    zipped = zipfile.is_zipfile(path)
    if start.startswith(b"PK") and not zipped:
        raise CheckpointRefused(
            f"{path} is truncated: a torch file without its end. Copy or download it again."
        )
    if not (zipped or start.startswith(b"\x80")):
        kind = "no file of torch.save: no archive and no pickle"
        what = kind if start else "empty: truncated, or never written"
        raise CheckpointRefused(f"{path} is {what}. {SAFE}")
    if zipped:
        _check_plain(path)
    reason = ""
    # An allowed class may be a kind of dict, which cannot be told without importing it.
    for stand_in in (Inert, InertDict) if allow else (Inert,):
        globals_ = harmless_globals() + allowed_globals(allow, stand_in)
        try:
            with warnings.catch_warnings(), named_alone(globals_):
                # Of pickle protocols torch does not write; what cannot be read is refused below.
                warnings.filterwarnings("ignore", message="Detected pickle protocol")
                warnings.filterwarnings("ignore", message="TypedStorage is deprecated")
                return torch.load(
                    path, map_location="cpu", weights_only=True, mmap=mapped and zipped
                )
        except pickle.UnpicklingError as error:
            reason = reason or str(error)
        except (EOFError, RuntimeError, ValueError, KeyError, IndexError, AttributeError,
                TypeError, OSError) as error:  # fmt: skip
            raise CheckpointRefused(
                f"{path} cannot be read: truncated, or no checkpoint ({_in_words(error)}). {SAFE}"
            ) from None
    if "Unsupported operand" in reason:
        raise CheckpointRefused(
            f"{path} is a pickle of another protocol than torch.save's own, 2, and cannot be read"
            f" without running code from it. {SAFE}"
        )
    raise CheckpointRefused(_why_refused(path, allow))


def _check_plain(path: Path) -> None:
    members = _members(path)
    names = {member.filename.rpartition("/")[2] for member in members}
    if "archive_format" in names:
        raise CheckpointRefused(
            f"{path} is an exported program with its weights. Save the weights alone:"
            f" torch.save(torch.export.load({path.name!r}).state_dict, 'w.pt')."
        )
    if "constants.pkl" in names:
        raise CheckpointRefused(
            f"{path} is a TorchScript archive: a program with its weights. Save the weights alone:"
            f" torch.save(torch.jit.load({path.name!r}).state_dict(), 'w.pt')."
        )
    packed = [member for member in members if member.compress_type != zipfile.ZIP_STORED]
    if packed:
        size = sum(member.file_size for member in packed)
        raise CheckpointRefused(
            f"{path} is compressed ({shown_bytes(path.stat().st_size)}, of which"
            f" {shown_bytes(size)} would be unpacked); torch.save never compresses. {SAFE}"
        )


def _why_refused(path: Path, allow: Iterable[str | type]) -> str:
    """Say what a pickle holds besides tensors, by name where that can be read off."""
    try:
        with torch.serialization.safe_globals(harmless_globals() + allowed_globals(allow, Inert)):
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # not a file of torch.save: nothing can be read off
        names = []
    head = f"{path} is a pickle that holds more than tensors, and loading it would run code from it"
    if not names:
        return f"{head}. {SAFE}"
    return (
        f"{head}: {few(names)}. {SAFE} Values of classes beside the weights can be passed over:"
        f" allow={names[:_SHOWN]} ({' '.join(f'--allow {name}' for name in names[:2])})."
    )


def _in_words(error: Exception) -> str:
    """Quote an error, but for torch's advice to load in a way that runs code."""
    line = first_line(error)
    return "not what torch.save writes" if "weights_only" in line else line


def _plain(content: Any, path: Path) -> Contents:
    contents = flattened(content)
    if not contents.tensors:
        raise CheckpointRefused(
            f"{path} holds a {type(content).__name__} without named tensors; expected a"
            f" state_dict, by itself or under an entry such as 'state_dict' or 'model'. {SAFE}"
        )
    return contents


def flattened(content: Any) -> Contents:
    """Name all tensors of nested entries."""
    return Contents(dict(_named(content, "", ())), {}, dict(_values(content)))


def _named(content: Any, nest: str, above: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    for key, value in _items(content):
        if isinstance(value, Tensor):
            yield f"{nest}{key}", value if value.layout == torch.strided else value.to_dense()
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiubc":
            yield f"{nest}{key}", torch.from_numpy(np.array(value))
        elif id(value) not in above:  # an entry may hold itself
            yield from _named(value, f"{nest}{key}{NEST}", (*above, id(value)))


def _items(content: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(content, Mapping):
        return content.items()
    if isinstance(content, list | tuple):
        # Tensors in a list have no names; state dicts in one have.
        return ((i, element) for i, element in enumerate(content) if isinstance(element, Mapping))
    return ()


def _values(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            plain = value.item() if isinstance(value, np.generic) else value
            if isinstance(plain, Tensor) and plain.numel() == 1:
                plain = plain.item()
            if isinstance(plain, bool | int | float | str):
                yield str(key), plain


def few(names: Iterable[str]) -> str:
    """
    List the first of many names.

    Examples
    --------
    >>> few("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
