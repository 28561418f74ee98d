"""Which samples the entries of a deletion request name."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from os.path import splitext
from pathlib import PurePosixPath

from lightning_unlearn.data.tables import as_known
from lightning_unlearn.exceptions import DataError

__all__ = ["SampleNames"]

# Longer ones are positions of no sample, and too long for `int`.
_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")
# Of a hash of an image's content.
_DIGITS = 16
_COPY = re.compile(rf"([0-9a-f]{{{_DIGITS}}})#[0-9]+")
# Bad entries that a message lists.
_LISTED = 10


class SampleNames:
    """Finds samples by what a request calls them.

    Args:
        keys: Keys of the samples, all different.
        gone: Keys of samples that are no longer there: they are found by name, behind the others.
        renumbered: Whether a position may mean another sample than when the model was trained, so that only names count.
        folders: Folders of the classes, where keys begin with them.
    """

    def __init__(
        self, keys: Sequence[str], gone: Sequence[str] = (), renumbered: bool = False, folders: Sequence[str] = ()
    ) -> None:
        self.keys = [*keys, *gone]
        self.count = len(keys)
        self.renumbered = renumbered
        self.folders = folders
        self.merged = 0
        keys = self.keys
        self._by_key = {key: i for i, key in enumerate(keys)}
        self._by_content: dict[str, list[int]] = {}
        for key, i in self._by_key.items():
            if copy := _COPY.fullmatch(key):
                base = copy[1]
                self._by_content.setdefault(base, [self._by_key[base]] if base in self._by_key else []).append(i)

    @cached_property
    def _by_file_name(self) -> dict[str, list[int]]:
        return _grouped((PurePosixPath(key).name, i) for key, i in self._by_key.items())

    @cached_property
    def _by_spelling(self) -> dict[str, list[int]]:
        """Keys without what a slip changes: the case of letters, the kind of slash, the file's ending."""
        return _grouped((_spelling(key), i) for key, i in self._by_key.items())

    @cached_property
    def _by_number(self) -> bool:
        """Whether samples are called by numbers: one that no sample has is then no position."""
        numbers = [name for name in self._by_file_name if _INTEGER.fullmatch(name.strip())]
        # Of hashes of contents one in 2,000 has no letter.
        return len(numbers) == len(self._by_file_name) or any(len(number) != _DIGITS for number in numbers)

    def __contains__(self, name: object) -> bool:
        return name in self._by_key or name in self._by_content or name in self._by_file_name

    def find(self, name: str) -> list[int]:
        """Samples of one name.

        Args:
            name: A key, the hash of an image's content (which names all exact copies of it), or the last part
                of a path.

        Returns:
            Indices: none for an unknown name; all that have it, where samples of several folders share a file name.
        """
        if name in self._by_content:
            return self._by_content[name]
        if name in self._by_key:
            return [self._by_key[name]]
        return self._by_file_name.get(name, [])

    def resolve(self, entries: Sequence[str | int]) -> list[int]:
        """Samples that a request names.

        Entries are indices where all of them are integers and no sample has an integer for a name; else all of them are names.

        Args:
            entries: Indices, keys or file names; where one is not known as it stands, spaces around it do not count.

        Returns:
            Indices, each once, sorted; `merged` then counts entries that name a sample again.

        Raises:
            DataError: Entries are out of range, unknown, or ambiguous: up to ten of each kind are listed. Or they are indices
                and positions have changed.
        """
        names = [as_known(str(e), self) for e in entries]
        if all(_INTEGER.fullmatch(n) for n in names) and not self._by_number and not any(n in self for n in names):
            if self.renumbered:
                raise DataError(
                    "The request lists indices, and samples went or came since the checkpoint was trained, so an index may "
                    "mean another sample by now. Name the samples by their keys or file names."
                )
            outside = [n for n in dict.fromkeys(names) if not 0 <= int(n) < self.count]
            if outside:
                verb = "Index {} is" if len(outside) == 1 else "Indices {} are"
                raise DataError(
                    f"{verb.format(_listed(outside))} outside the training set; needed: 0 to {self.count - 1} (indices "
                    "count from 0)."
                )
            named = [[int(n)] for n in names]
        else:
            self._check(list(dict.fromkeys(names)))
            named = [self.find(n) for n in names]
        # A bare hash names its copies too; that one of these is also listed by its own key is no mistake.
        self.merged = len(names) - len({self._by_key.get(name, found[0]) for name, found in zip(names, named, strict=True)})
        return sorted({i for found in named for i in found})

    def _check(self, names: Sequence[str]) -> None:
        problems = []
        unknown = [name for name in names if not self.find(name)]
        if unknown:
            it, lines = ("it", "the line") if len(unknown) == 1 else ("them", "their lines")
            problems.append(
                f"No training sample has the key or file name {_listed(unknown, self._with_hint)}. Correct "
                f"{it}; or, where a sample was never in training, remove {lines}. A new training needs no line of a file that "
                "is gone, either."
            )
            if self._by_number and all(_INTEGER.fullmatch(name) for name in unknown):
                problems.append("Positions do not count, since samples of these data have numbers for names.")
        shared = [name for name in names if name not in self._by_content and len(self.find(name)) > 1]
        for name in shared[:_LISTED]:
            first, second = (self.keys[i] for i in self.find(name)[:2])
            problems.append(
                f"The file name {name!r} is that of {len(self.find(name))} samples, {first!r} and {second!r} among them; "
                "give their keys."
            )
        if len(shared) > _LISTED:
            problems.append(f"So it is with {len(shared) - _LISTED} further file names.")
        if problems:
            raise DataError(" ".join(problems))

    def _with_hint(self, name: str) -> str:
        """A name, with the key that it surely means: a wrong guess would delete somebody else's picture."""
        spelling = _spelling(name)
        while True:
            found = self._by_spelling.get(spelling, [])
            if len(found) == 1:
                return f"{name!r} (did you mean {self.keys[found[0]]!r}?)"
            # Folders in front, of a path on another machine; the last folder stays.
            if found or spelling.count("/") < 2:
                break
            spelling = spelling.partition("/")[2]
        # The folder of a class that is written wrongly; of other folders, a letter makes another person.
        given, _, rest = name.strip().partition("/")
        meant = [folder for folder in self.folders if _one_letter_apart(given, folder)] if given not in self.folders else []
        key = f"{meant[0]}/{rest}" if len(meant) == 1 else ""
        return f"{name!r} (did you mean {key!r}?)" if key in self._by_key else repr(name)


def _grouped(pairs: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name, i in pairs:
        found.setdefault(name, []).append(i)
    return found


def _spelling(name: str) -> str:
    return splitext(name.replace("\\", "/").strip().casefold())[0].removeprefix("./").lstrip("/")


def _one_letter_apart(one: str, other: str) -> bool:
    """Whether a letter was missed, added or mistaken."""
    short, long = sorted((one, other), key=len)
    at = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    mistaken = len(short) == len(long)
    changed = long[at : at + 1] + (short[at : at + 1] if mistaken else "")
    return short[at + mistaken :] == long[at + 1 :] and changed.isalpha()


def _listed(items: Sequence[str], show: Callable[[str], str] = str) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(map(show, items[:_LISTED])) + more
