"""jsonargparse's errors in one line: what was given, what is needed, what to do."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from lightning_unlearn.config.introspection import Argument, class_arguments, class_at, subclass_names
from lightning_unlearn.config.names import hint

__all__ = ["core_of", "explain", "place"]

_KEY = re.compile(r'Parser key "([^"]+)"')
_CLASS = re.compile(r"Problem with given class_path '([^']+)'|Namespace\(class_path='([^']+)'")
_UNKNOWN_OPTION = re.compile(r"Option '([^']+)' is not accepted")
_UNKNOWN_KEY = re.compile(r"does not accept option '([^']+)'")
_UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_NO_MODULE = re.compile(r"(?:class_path '([^']+)': )?(?:No module named|[Mm]odule '[^']+' has no attribute) '([^']+)'")
_REQUIRED = re.compile(r"the following arguments are required: ([\w., ]+?)(?= - |$)")
_CHOICE = re.compile(r"Expected a typing\.Literal\[(.+?)\]\. Got value: (.+?)(?= - |$)")
_TYPE = re.compile(r"Expected a <class '(\w+)'>\. Got value: (.+?)(?= - |$)")
_UNRECOGNIZED = re.compile(r"unrecognized arguments: (\S+)")
_UNION = re.compile(r"Errors: - (.+?) - Expected a <class 'NoneType'>")
_NO_SUBCLASS = re.compile(
    r"Import path (\S*) ?does not correspond to a subclass of (\w+)|Not a valid subclass of (\w+)\. Got value: (\S+)"
)
_ALTERNATIVES = re.compile(r".*Errors: - (.+?) Given value type: .*?Given value: (.+?)(?= - Expected a |$)")
_EXPECTED = re.compile(r"Expected a (?:<class '(?:\w+\.)*(\w+)'>|typing\.Literal\[(.+)\])$")
_WORDS = re.compile(r"Expected a typing\.Literal\[([^\]]+)\]")
_LONGEST = 300
_OF_THE_CALL = ("--config", "--name", "--output", "--run", "--resume", "--debug", "--help", "--help.all")
_REMEDIES = {
    "data.dataset": "Give -c data/digits, or --data.dataset with a class.",
    "stages": "Give -c method/fine_tune, or a list of stages in a config.",
    "methods": "Give --methods [fine_tune,selective_forgetting].",
}


class _Source(NamedTuple):
    files: Sequence[Path]
    typed: Sequence[str]


def explain(message: str, known: Sequence[Argument], command: str, files: Sequence[Path], typed: Sequence[str] = ()) -> str:
    """Say in one line what is wrong with a call or a file.

    Args:
        message: What jsonargparse says.
        known: The arguments that there are.
        command: What has them: the command.
        files: Where values come from, to say where something stands.
        typed: What was typed, which stands in no file.

    Returns:
        One line.
    """
    text = " ".join(message.split())
    source = _Source(files, typed)
    keys = _KEY.findall(text)
    classes = [a or b for a, b in _CLASS.findall(text)]
    where = f"{keys[0]}: " if keys else ""
    if found := _UNKNOWN_OPTION.search(text):
        kind = class_at(_nearest_class(text, found.start()) or "")
        names = [] if kind is None else [argument.name for argument in class_arguments(kind)]
        owner = "" if kind is None else f"{kind.__name__} "
        own = found[1] == "network" and keys == ["model"] and kind is not None
        remedy = " It has its own network; --model Classifier beside --model.network takes another." if own else ""
        return f"{where}{owner}has no argument {found[1]!r}.{remedy or hint(found[1], names)}{_place(found[1], source)}"
    if found := _UNKNOWN_KEY.search(text):
        return f"{command} has no argument {found[1]!r}.{_near_key(found[1], known)}{_place(found[1].split('.')[-1], source)}"
    if found := _UNKNOWN_CLASS.search(text):
        names = subclass_names(_annotation(keys, classes, known))
        words = [word for listed in _WORDS.findall(text) for word in _listed(listed)]
        nor = f", nor is it {' or '.join(map(repr, words))}" if words else ""
        return f"{where}no class is called {found[1]!r}{nor}.{hint(found[1], names + words)}{_place(found[1], source)}"
    if found := _NO_MODULE.search(text):
        path = found[1] or (classes[-1] if classes else found[2])
        names = subclass_names(_annotation(keys, classes, known))
        searched = f" Searched: this folder ({Path.cwd()}) and the installed packages." if "No module" in found[0] else ""
        return (
            f"{where}there is no {path}: {found[0].split(': ')[-1]}.{searched}{hint(path.split('.')[-1], names, 0)}"
            f"{_place(path, source)}"
        )
    if found := _REQUIRED.search(text):
        missing = [name.strip().removeprefix(f"{command}.") for name in found[1].split(",")]
        owner = f" of {classes[-1].split('.')[-1]}" if classes else ""
        return (
            f"{where}{', '.join(missing)}{owner} must be given. {' '.join(_REMEDIES.get(name, '') for name in missing)}".strip()
        )
    if found := _CHOICE.search(text):
        choices = _listed(found[1])
        return (
            f"{keys[-1]} is {found[2]!r}; needed: {', '.join(choices)}.{hint(found[2], choices, 0)}{_place(found[2], source)}"
        )
    wrong = next((match for match in _TYPE.finditer(text) if match[1] != "NoneType"), None)
    if wrong is not None:
        needed = f"list, such as [{wrong[2]}]" if wrong[1] == "list" else wrong[1]
        return f"{keys[-1] if keys else 'A value'} is {wrong[2]!r}; needed: {needed}.{_place(wrong[2], source)}"
    if found := _UNRECOGNIZED.search(text):
        given = found[1].partition("=")[0]
        if not given.startswith("-"):
            return f"{given!r} belongs to no argument. Needed: --name value pairs after {command}."
        return f"{command} has no argument {given}.{_near_key(given, known)}"
    if found := _NO_SUBCLASS.search(text):
        given, base = found[1] or found[4] or (classes[-1] if classes else _typed(keys, source)), found[2] or found[3]
        names = subclass_names(_annotation(keys, classes, known))
        if base == "LightningModule":
            remedy = f" Give an nn.Module as --model.network{f' {given}' if '.' in given else ''}."
        else:
            remedy = hint(given.split(".")[-1], names)
        return f"{where}{given} is no {base}.{remedy}{_place(given, source)}"
    if found := _ALTERNATIVES.match(text):
        wanted = [_EXPECTED.match(part) for part in found[1].split(" - ")]
        if all(wanted) and keys:
            kinds = [match[1] or match[2].replace("'", "") for match in wanted if match and match[1] != "NoneType"]
            return f"{keys[-1]} is {found[2]!r}; needed: {' or '.join(kinds)}.{_place(found[2], source)}"
    return core_of(text)


def _typed(keys: Sequence[str], source: _Source) -> str:
    """The class that was typed for an argument, where the parser does not name it."""
    options = [f"--{key}" for key in keys[:1]]
    return next((after for option, after in pairwise(source.typed) if option in options), "the class")


def _listed(choices: str) -> list[str]:
    """The words of `'a', 'b'`."""
    return [choice.strip("' \"") for choice in choices.split(",")]


def core_of(message: str) -> str:
    """The reason in a long message of jsonargparse.

    Args:
        message: The message.

    Returns:
        One line of at most 300 letters.
    """
    text = " ".join(message.split())
    inner = _UNION.search(text)
    text = inner[1] if inner else text
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _nearest_class(text: str, position: int) -> str | None:
    """The class that an "is not accepted" speaks of: named right after it in a factory, else before it."""
    after = re.match(r"[^-]*?Got value: Namespace\(class_path='([^']+)'", text[position:])
    if after:
        return after[1]
    before = [a or b for a, b in _CLASS.findall(text[:position])]
    return before[-1] if before else None


def _annotation(keys: Sequence[str], classes: Sequence[str], known: Sequence[Argument]) -> object:
    """The type of the innermost key that an error names."""
    arguments = list(known)
    found: object = None
    for i, key in enumerate(keys):
        if i > 0:
            kind = class_at(classes[i - 1]) if i <= len(classes) else None
            arguments = [] if kind is None else class_arguments(kind)
        found = next((argument.type for argument in arguments if argument.name == key), None)
    return found


def _near_key(given: str, known: Sequence[Argument]) -> str:
    dashes = "--" if given.startswith("-") else ""
    names = [dashes + argument.name for argument in known]
    # A group, such as `data`, is a right name too, above all for something in it.
    groups = [name.rpartition(".")[0] for name in names if "." in name]
    return hint(given, [*names, *groups, *(_OF_THE_CALL if dashes else ())], 0)


def _place(token: str, source: _Source) -> str:
    return place(token, source.files, source.typed)


def place(token: str, files: Sequence[Path], typed: Sequence[str]) -> str:
    """The file and the line where something stands, if it is in a config.

    Args:
        token: What is looked for.
        files: The configs.
        typed: What was typed, which stands in no file.

    Returns:
        ` (file, line 3)`, or nothing.
    """
    pattern = re.compile(rf"(?<![\w.]){re.escape(token)}(?!\w)")
    if any(re.search(rf"(?<!\w){re.escape(token)}(?!\w)", text) for text in typed):
        return ""
    for path in reversed(files):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        for number, line in enumerate(lines, start=1):
            if pattern.search(line.partition("#")[0]):
                return f" ({path}, line {number})"
    return ""
