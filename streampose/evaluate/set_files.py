"""Where the files of a labelled set lie: its annotations and its pictures, in a folder or in a zip.

A JSON names pictures as its tool saw them: from where it lies itself, from a folder near it, or by a path of another
machine. So a set has one place from which all its names count: where they point if the pictures are there, else the one
folder in the set where most of them are found by the ends of their paths.
"""

from __future__ import annotations

import logging
import lzma
import os
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import basename, dirname, normpath

from streampose.errors import DataError, words_of

log = logging.getLogger(__name__)

ANNOTATIONS = "annotations.json"
NO_SET = f"no such file; a set is a folder or zip with {ANNOTATIONS}, or a JSON, also one of a zip (mine.zip/valid)"
SAMPLES = 20
"""So many pictures are looked for, to find the folder in which all lie."""
DEPTH = 4
"""So many folders deep is looked: `annotations/a.json` may lie in somebody's home."""
UNREADABLE = (RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)
"""What reading a zip may end in: encrypted or of an unknown method (RuntimeError), damaged, cut, or the disk's fault."""


def archive_of(path: Path) -> tuple[Path, str]:
    """The zip of the set `path` and what of it is meant: `mine.zip/valid` is a JSON or folder in mine.zip. Where nothing in
    a zip is meant, `path` itself and ""."""
    if not path.exists():
        for above in path.parents:
            if above.suffix.lower() == ".zip" and above.is_file():
                return above, path.relative_to(above).as_posix()
    return path, ""


def set_name(path: Path) -> str:
    """What a set is called in records: its file's or folder's name, from the zip on where it is a part of one."""
    archive, part = archive_of(path)
    return f"{archive.name}/{part}" if part else path.name


def takes_images(path: Path) -> bool:
    """Whether the pictures of the set `path` may lie in a folder named apart: it is a JSON, and not in a zip."""
    return not path.is_dir() and archive_of(path)[0].suffix.lower() != ".zip"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where names count from: `folder`; of a name only the last parts are taken where `dropped` are to be left out."""

    folder: str
    dropped: int | None = None

    def __call__(self, name: str) -> str:
        """The path of the picture `name`, from the root of the set."""
        tail = name.replace("\\", "/") if self.dropped is None else _tail(name, self.dropped)
        return normpath(f"{self.folder}/{tail}" if self.folder else tail)


class SetFiles:
    """The files of the set `path`: a folder, a zip or a part of one, or a JSON whose pictures lie in the folder `images`, or
    beside it, or beside its folder `annotations`.

    Call `close` in the end. Raises DataError, in one line.
    """

    def __init__(self, path: Path, images: Path | None = None) -> None:
        self._path = path
        self._json = path
        self._root = path.parent
        self._archive: zipfile.ZipFile | None = None
        self._entries: dict[str, str] = {}
        zipped, part = archive_of(path)
        self._part = _composed(part)
        expected, self._searched, self._named = [""], True, False
        if path.is_dir():
            self._json, self._root = path / ANNOTATIONS, path
        elif zipped.suffix.lower() == ".zip":
            self._archive = self._opened(zipped)
            entries = [info for info in self._archive.infolist() if not info.is_dir()]
            self._entries = {normpath(_composed(_called(info)).replace("\\", "/")): info.filename for info in entries}
        elif images is not None:
            self._root, self._named = images, True
        elif path.absolute().parent.name == "annotations":
            self._root, expected = path.absolute().parent.parent, ["annotations", ""]
        else:
            self._searched = False  # it could lie at the top of a disk
        self._expected = expected
        self._place = _Place(expected[0])

    def annotations(self) -> bytes:
        """The JSON as it lies there."""
        try:
            if self._archive is None:
                return self._json.read_bytes()
            name = self._annotations_in()
            self._expected = [dirname(name), ""]
            return self._archive.read(self._entries[name])
        except FileNotFoundError as error:
            raise DataError(f"{self._json}: {NO_SET}") from error
        except UNREADABLE as error:
            raise DataError(f"{self._path}: annotations cannot be read ({words_of(error)})") from error

    def find(self, names: Sequence[str]) -> list[str]:
        """Settle from where the pictures `names` count; those that are not there.

        Raises DataError where they could be those of two folders.
        """
        self._place, missing = self._settle(list(dict.fromkeys(names)))
        if self._named and self._place.folder:
            log.warning("%s: its pictures are taken from %s", self._path, self._root / self._place.folder)
        return missing

    def read(self, name: str) -> bytes:
        """The file of the picture `name` as it lies there."""
        path = self._place(name)
        try:
            if self._archive is None:
                return (self._on_disk(path) or self._root / path).read_bytes()
            return self._archive.read(self._entries[_composed(path)])
        except (KeyError, FileNotFoundError) as error:
            raise DataError(f"{name} is missing") from error
        except UNREADABLE as error:
            raise DataError(f"{name} cannot be read ({words_of(error)})") from error

    def close(self) -> None:
        """Close the archive."""
        if self._archive is not None:
            self._archive.close()

    def _opened(self, path: Path) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise DataError(f"{self._path}: {NO_SET}") from error
        except UNREADABLE as error:
            raise DataError(f"{path}: not a zip ({words_of(error)})") from error

    def _annotations_in(self) -> str:
        """The JSON of the archive: `annotations.json` at its top, else the only one of that name, else the only one; of its
        part that is meant, where there is one."""
        if self._part in self._entries:
            return self._part
        below = f"{self._part}/" if self._part else ""
        names = [name for name in self._entries if name.lower().endswith(".json") and not _hidden(name)]
        names = [name for name in names if name.startswith(below)]
        called = [name for name in names if basename(name) == ANNOTATIONS]
        found = [below + ANNOTATIONS] if below + ANNOTATIONS in called else called if len(called) == 1 else names
        if not found:
            raise DataError(f"{self._path}: no {ANNOTATIONS} in it, and no other JSON")
        if len(found) > 1:
            some = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
            one = set_name(self._path / found[0].removeprefix(below))
            raise DataError(f"{self._path}: has {len(found)} JSON files ({some}); each is a set: name one, as {one}")
        return found[0]

    def _settle(self, names: list[str]) -> tuple[_Place, list[str]]:
        """The place from which most of `names` are found, and those that are not."""
        places = [_Place(folder) for folder in self._expected]
        missing, place = min(((self._missing(names, each), each) for each in places), key=lambda pair: len(pair[0]))
        if not missing or not self._searched:
            return place, missing
        samples = [name for name in missing[:SAMPLES] if _parts(name)]
        below = self._below({_composed(_parts(name)[-1]) for name in samples})
        for dropped in range(max((len(_parts(name)) for name in samples), default=0)):
            folders = {folder for name in samples for folder in _folders(_tail(name, dropped), below)}
            tried = {
                each: self._missing(names, each) for each in (_Place(folder, dropped) for folder in sorted(folders))
            }
            fewest = min(map(len, tried.values()), default=len(missing))
            if fewest < len(missing):
                best = [each for each, lost in tried.items() if len(lost) == fewest]
                if len(best) > 1:
                    some = ", ".join(each.folder or "." for each in best[:4])
                    raise DataError(f"{self._path}: its pictures could be those of any of {some}")
                place, missing = best[0], tried[best[0]]
        return place, missing

    def _missing(self, names: list[str], place: _Place) -> list[str]:
        if self._archive is not None:
            return [name for name in names if _composed(place(name)) not in self._entries]
        return [name for name in names if self._on_disk(place(name)) is None]

    def _on_disk(self, path: str) -> Path | None:
        """The file at `path` below the root, in whichever form of Unicode its name lies there; None where there is none."""
        forms = (path, _composed(path), unicodedata.normalize("NFD", path))
        return next((self._root / form for form in forms if os.path.isfile(self._root / form)), None)

    def _below(self, wanted: set[str]) -> dict[str, list[str]]:
        """The paths of the files in the set that are called as one of `wanted`, by what they are called."""
        found: dict[str, list[str]] = {}
        for path in self._entries if self._archive is not None else self._walk():
            name = _composed(basename(path))
            if name in wanted and not _hidden(path):
                found.setdefault(name, []).append(path)
        return found

    def _walk(self) -> Iterator[str]:
        seen: set[str] = set()
        for folder, below, files in os.walk(self._root, followlinks=True):
            place = os.path.relpath(folder, self._root)
            if (real := os.path.realpath(folder)) in seen or place.count(os.sep) >= DEPTH:
                below.clear()
            if real not in seen:
                yield from (normpath(os.path.join(place, file)) for file in files)
            seen.add(real)


def _called(info: zipfile.ZipInfo) -> str:
    """The name of an entry: UTF-8 also where the zip does not say so, as those made by macOS do not."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _composed(name: str) -> str:
    """The one form of a name in which an ü is one character, under which names are compared: macOS writes it as two."""
    return unicodedata.normalize("NFC", name)


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]


def _tail(name: str, dropped: int) -> str:
    """`name` without its first `dropped` folders."""
    parts = _parts(name)
    return "/".join(parts[min(dropped, len(parts) - 1) :])


def _folders(tail: str, below: dict[str, list[str]]) -> Iterator[str]:
    """The folders from which `tail` leads to one of the files `below`."""
    count = tail.count("/") + 1
    for path in below.get(_composed(basename(tail)), ()):
        parts = path.split("/")
        if _composed("/".join(parts[-count:])) == _composed(tail):
            yield "/".join(parts[:-count])


def _hidden(name: str) -> bool:
    """Whether a system left it there (`__MACOSX/._a.json`)."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
