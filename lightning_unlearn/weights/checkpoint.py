"""Checkpoints: written whole or not at all, read without running anything that they hold."""

import io
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import lightning
import safetensors.torch
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.serialization import get_unsafe_globals_in_checkpoint

from lightning_unlearn.exceptions import CheckpointError
from lightning_unlearn.files import write_atomic
from lightning_unlearn.weights.mnemonic import CODES_KEY, Codes
from lightning_unlearn.weights.plain import plain_values, without_notes

__all__ = ["AtomicCheckpointIO", "load_into", "read_request", "read_saved", "read_weights", "refuse_lazy", "save_weights"]

# What wrappers put before the names of weights: DataParallel, Classifier, LightningModules, torch.compile.
PREFIXES = ("module.", "network.", "model.", "classifier.", "_orig_mod.")
STATE_KEYS = ("state_dict", "model_state_dict", "model")
REQUEST_KEY = "request"
HYPER_KEYS = ("hyper_parameters", "datamodule_hyper_parameters")
# What files of torch.save before the zip format begin with, after the pickle protocol.
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
DAMAGED = "it is cut short or damaged. Needed: the file as it was saved. Copy it again and compare its checksum."


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints as local files that survive `kill -9` and load with `weights_only=True`.

    Hyper-parameters that are not plain values are left out with a warning; anything else that only pickle
    could restore is refused when it is saved, because the run could not be resumed from it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object | None = None) -> None:
        """Save a training state.

        Args:
            checkpoint: What the Trainer collected.
            path: The file; its folder is made.
            storage_options: Must be None: files are local.

        Raises:
            CheckpointError: The state holds other than tensors and plain values, or `path` is a URL.
        """
        if storage_options is not None:
            raise CheckpointError("storage_options were given, but checkpoints are local files. Leave them out.")
        plain = {key: plain_values(checkpoint[key]) for key in HYPER_KEYS if key in checkpoint}
        _write(_local(path), {**checkpoint, **plain})

    def load_checkpoint(
        self, path: str | Path, map_location: object | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a training state onto the CPU, from where Lightning moves it.

        Args:
            path: The file.
            map_location: Not used.
            weights_only: Not used: other objects are never loaded, whatever is asked.

        Returns:
            The state.

        Raises:
            CheckpointError: The file is missing, damaged, unsafe, or holds no dictionary.
        """
        content = _read(path)
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} holds a {type(content).__name__}; needed: a checkpoint that a Trainer saved.")
        return content


def save_weights(
    path: str | Path,
    model_state: Mapping[str, Tensor],
    hyper_parameters: Mapping[str, object],
    codes: Codes | None = None,
    request: tuple[int, str] | None = None,
) -> None:
    """Save weights as a checkpoint for `read_weights` and for Lightning's `load_from_checkpoint`.

    Args:
        path: The file; its folder is made.
        model_state: State dict of the LightningModule, tensors on any device.
        hyper_parameters: Plain values by name; what is not plain is left out with a warning.
        codes: Mnemonic codes of the model; they are kept where a training keeps them.
        request: Of an unlearned model, the number of the request that it is the result of, and the hash of the ledger's line
            before. That of its own line holds the hash of this very file.
    """
    content: dict[str, Any] = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": {name: _compact(tensor) for name, tensor in model_state.items()},
        "hyper_parameters": without_notes(plain_values(hyper_parameters)),
    }
    if codes is not None:
        content["callbacks"] = {CODES_KEY: codes.state_dict()}
    if request is not None:
        content[REQUEST_KEY] = {"number": request[0], "previous": request[1]}
    _write(_local(path), content)


def read_request(path: str | Path) -> tuple[int, str] | None:
    """Which request a checkpoint is the result of.

    Args:
        path: The file.

    Returns:
        Its number and the hash of the ledger's line before, as `save_weights` was given them; None where the file names none. A
        file that cannot be read is a `CheckpointError`.
    """
    content = _read(path)
    noted = content.get(REQUEST_KEY) if isinstance(content, Mapping) else None
    if not isinstance(noted, Mapping) or not isinstance(noted.get("number"), int) or not isinstance(noted.get("previous"), str):
        return None
    return noted["number"], noted["previous"]


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights onto the CPU without running anything that the file holds.

    Understood are Lightning's checkpoints, plain state dicts and dicts with one under `state_dict`,
    `model_state_dict` or `model` (`.ckpt`, `.pt`, `.pth`, `.th`, `.bin`), and safetensors; the content
    decides, not the name.

    Args:
        path: A local file.

    Returns:
        The tensors by name, and the hyper-parameters that are plain values (empty where the file has none). A file that is
        missing, empty or damaged, or holds code or objects, or no weights, is a `CheckpointError`.
    """
    return read_saved(path)[:2]


def read_saved(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any], Codes | None]:
    """Read weights as `read_weights` does, and the mnemonic codes that the model was trained with.

    Args:
        path: A local file.

    Returns:
        The tensors by name, the hyper-parameters, and the codes (None where the file has none).

    Raises:
        CheckpointError: The file is missing, empty, damaged, holds code or objects, or holds no weights.
    """
    content = _read(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; needed: tensors by name (a state dict).")
    state = next((content[key] for key in STATE_KEYS if isinstance(content.get(key), Mapping)), content)
    wrong = [str(name) for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if wrong or not state:
        found = f"instead of tensors by name it has {_first(wrong)}" if wrong else "it is empty"
        raise CheckpointError(
            f"{path} holds no weights: {found}. Needed: a state dict, alone or under one of "
            f"{', '.join(STATE_KEYS)}. Save model.state_dict()."
        )
    hyper = content.get("hyper_parameters") if state is not content else None
    plain = plain_values(hyper, warn=False) if isinstance(hyper, Mapping) else {}
    callbacks = content.get("callbacks") if state is not content else None
    codes = Codes.from_state(callbacks.get(CODES_KEY)) if isinstance(callbacks, Mapping) else None
    return {name: value.detach() for name, value in state.items()}, without_notes(plain), codes


def refuse_lazy(model: nn.Module) -> None:
    """Refuse a model with parameters that get their shape from its first batch: nothing can be loaded into them.

    Args:
        model: The model.

    Raises:
        CheckpointError: It has some.
    """
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise CheckpointError(
            f"{type(model).__name__} has parameters whose shape is not known yet: {_first(lazy)}. Needed: a whole model. Give "
            "the layer its size (Linear in place of LazyLinear), or call the model once on a batch in its constructor."
        )


def load_into(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a model: all of them, in the right shapes, or none.

    Prefixes that wrappers add to all names (`module.`, `network.`, `model.`, `classifier.`, and `_orig_mod.` anywhere) may
    differ, and one more that all names of one side have, such as `net.`, where everything else matches. BatchNorm's counters,
    absent from checkpoints before torch 0.4.1, may be missing.

    Args:
        model: The model.
        state: Tensors by name.
        source: What to call the checkpoint in errors.

    Raises:
        CheckpointError: A name or a shape differs, a parameter of floats would get integers, or a weight is not finite; the
            model is untouched.
    """
    own = model.state_dict()
    refuse_lazy(model)
    theirs, ours = _without_prefixes(state), _without_prefixes(own)
    if any(_differing(theirs, ours)):
        # A LightningModule of the user's own may call its network as it likes.
        attempts = ((_without_first_part(theirs), ours), (theirs, _without_first_part(ours)))
        theirs, ours = next((pair for pair in attempts if not any(_differing(*pair))), (theirs, ours))
    if any(_differing(theirs, ours)):
        # A prefix is taken off where all names share it, so one name without it would make all of them differ.
        missing, unknown = _fewest([(theirs, ours), (_each_without_prefixes(state), _each_without_prefixes(own))])
        lacks = f"it lacks {_first(missing)}. " if missing else ""
        more = f"The model does not have {_first(unknown)}. " if unknown else ""
        raise CheckpointError(
            f"{source} is of another architecture than {type(model).__name__}: {lacks}{more}"
            "Needed: the same names. Give the network that was trained, with its arguments."
        )
    pairs = {ours[core]: state[name] for core, name in theirs.items()}
    differing = {name: (tensor, own[name]) for name, tensor in pairs.items() if tensor.shape != own[name].shape}
    if differing:
        raise CheckpointError(f"{source} does not fit {type(model).__name__}: {_explain_shapes(differing)}")
    parameters = dict(model.named_parameters(remove_duplicate=False))
    rounded = [
        f"{name} ({tensor.dtype})" for name, tensor in pairs.items() if name in parameters and _is_cut(tensor, own[name])
    ]
    if rounded:
        raise CheckpointError(
            f"{source} has no floating-point weights in {_first(rounded)}, where {type(model).__name__} computes with some. "
            "Needed: weights as they were trained. Quantised ones lack their scales here; give the checkpoint from before that."
        )
    broken = [name for name, tensor in pairs.items() if name in parameters and not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{source} has NaN or infinite weights in {_first(broken)}. Needed: finite weights. "
            "The training that made it diverged, or the file is damaged; use an earlier checkpoint."
        )
    # Strict only where names can be missing on purpose: everything else was checked above.
    model.load_state_dict(pairs, strict=False)


def _read(path: str | Path) -> object:
    """Content of a checkpoint, whatever its format, on the CPU."""
    file_path = _local(path)
    try:
        with open(file_path, "rb") as file:
            return _parse(file, path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; needed: a checkpoint file. Check the path.") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path} is a folder; needed: a checkpoint file. Name the file in it.") from None
    except PermissionError:
        raise CheckpointError(f"{path} may not be read by this user. Change its permissions.") from None


def _parse(file: BinaryIO, path: str | Path) -> object:
    """Decide by the first bytes, verify the checksums where the format has some, and load."""
    head = file.read(64)
    file.seek(0)
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes); needed: a checkpoint. Copy it again: its save did not end.")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a pointer of Git LFS, not the file itself. Run `git lfs pull`.")
    try:
        if head[8:9] == b"{":
            return safetensors.torch.load(file.read())
        if head.startswith(b"PK"):
            _verify_sums(file, path)
        elif not head.startswith(b"\x80"):
            raise CheckpointError(f"{path} is not a checkpoint; needed: a file of torch.save or safetensors. Check the path.")
        with warnings.catch_warnings():
            # torch remarks on newer pickle protocols; what it then cannot read is refused below.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            return torch.load(file, map_location="cpu", weights_only=True)
    except (CheckpointError, OSError):
        raise
    except Exception as error:  # whatever a parser stumbles over in a damaged or hostile file
        unsafe = re.search(r"GLOBAL ([\w.]+)", str(error))
        if unsafe is None and head.startswith(b"\x80") and _LEGACY_MAGIC not in head:
            raise CheckpointError(
                f"{path} cannot be read: it is cut short or damaged, or a plain pickle, which could run any code; nothing was "
                "loaded. Needed: a file of torch.save or safetensors. If you trust it, save model.state_dict() in its project."
            ) from error
        if unsafe is None:
            raise CheckpointError(f"{path} cannot be read: {DAMAGED}") from error
        raise CheckpointError(
            f"{path} holds the Python object {unsafe[1]}, as a whole pickled model does; restoring it could "
            "run any code, so nothing was loaded. Needed: tensors and plain values. If you trust the file, "
            "load it in the project that wrote it and save model.state_dict()."
        ) from error


def _verify_sums(file: BinaryIO, path: str | Path) -> None:
    """Compare a zip's checksums with its content; torch does not, and loads flipped bits as weights."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.filename.endswith("/constants.pkl") for member in members):
            raise CheckpointError(f"{path} is a TorchScript program; needed: weights. Save model.state_dict().")
        # torch.serialization.set_crc32_options(False) writes zeros everywhere.
        if any(member.CRC for member in members) and archive.testzip() is not None:
            raise CheckpointError(f"{path} cannot be read: {DAMAGED}")
    file.seek(0)


def _write(path: Path, content: dict[str, Any]) -> None:
    """Save atomically what `_read` can load."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    unsafe = get_unsafe_globals_in_checkpoint(buffer)
    if unsafe:
        raise CheckpointError(
            f"{path} was not saved: the state holds {_first(unsafe)}, which cannot be loaded safely again. "
            "Needed: tensors and plain values in the states of the model, optimisers and callbacks."
        )
    write_atomic(path, lambda file: file.write(buffer.getbuffer()))


def _local(path: str | Path) -> Path:
    """The path, if it is one of this machine."""
    if "://" in os.fspath(path):
        raise CheckpointError(f"{path} is a URL; needed: a local file. Download it and give its path.")
    return Path(path)


def _compact(tensor: Tensor) -> Tensor:
    """A tensor on the CPU that owns just its own memory: torch.save writes all of what a view looks into."""
    tensor = tensor.detach().cpu()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _without_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Core name -> full name, where the core lacks every known prefix that all names share."""
    full = list(names)
    cores = [name.replace("_orig_mod.", "") for name in full]
    while prefix := next((p for p in PREFIXES if cores and all(core.startswith(p) for core in cores)), None):
        cores = [core.removeprefix(prefix) for core in cores]
    return dict(zip(cores, full, strict=True))


def _without_first_part(names: dict[str, str]) -> dict[str, str]:
    """The same without what stands before the first dot, where that is the same in all."""
    firsts = {core.partition(".")[0] for core in names}
    shared = len(firsts) == 1 and all("." in core for core in names)
    return {core.partition(".")[2]: name for core, name in names.items()} if shared else names


def _differing(theirs: Mapping[str, str], ours: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Full names of ours that theirs lack, and of theirs that ours lack."""
    missing = [name for core, name in ours.items() if core not in theirs and not core.endswith("num_batches_tracked")]
    return missing, [name for core, name in theirs.items() if core not in ours]


def _each_without_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Core name -> full name, where each core lacks the known prefixes of its own name; to say what differs."""
    return {core: name for full in names for core, name in _without_prefixes([full]).items()}


def _fewest(pairs: Sequence[tuple[Mapping[str, str], Mapping[str, str]]]) -> tuple[list[str], list[str]]:
    """What differs, as `_differing` says it, in that of the pairs (theirs, ours) in which the least does, but something."""
    return min((found for pair in pairs if any(found := _differing(*pair))), key=lambda found: sum(map(len, found)))


def _is_cut(theirs: Tensor, ours: Tensor) -> bool:
    """Whether weights would silently be cast from integers, or lose an imaginary part."""
    return ours.is_floating_point() and not theirs.is_floating_point()


def _explain_shapes(differing: Mapping[str, tuple[Tensor, Tensor]]) -> str:
    """Why tensors (theirs, ours) by name differ in shape, and what to do."""
    pairs = [(tuple(a.shape), tuple(b.shape)) for a, b in differing.values()]
    name, (a, b) = next(iter(differing)), pairs[0]
    owners = {name.rpartition(".")[0] for name in differing}
    if len(owners) == 1 and max(len(p) for p, _ in pairs) <= 2 and all(p[1:] == q[1:] for p, q in pairs):
        return (
            f"head of another size: checkpoint has {a[0]} classes, the model {b[0]} ({name}). "
            f"Build the model with num_classes={a[0]}."
        )
    if len(pairs) == 1 and len(a) == 4 and len(b) == 4 and (a[0], *a[2:]) == (b[0], *b[2:]):
        return f"checkpoint takes images of {a[1]} channels, the model {b[1]} ({name}). Build the model with in_chans={a[1]}."
    listed = [f"{key} {p} for {q}" for key, (p, q) in zip(differing, pairs, strict=True)]
    return f"other shapes: {_first(listed)}. Build the model with the checkpoint's arguments."


def _first(names: list[str], count: int = 3) -> str:
    """The first few names, and how many there are more."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
