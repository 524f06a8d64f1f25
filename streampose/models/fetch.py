"""Getting a known model: on request only, verified by its hash, resumed where it broke off, whole or not at all."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streampose import __version__
from streampose.errors import ModelError, UsageError, words_of
from streampose.models import cache
from streampose.models import manifest as manifests
from streampose.models.catalogue import KnownModel, catalogue
from streampose.models.manifest import InputSpec, Manifest, OutputSpec, sha256_of
from streampose.models.resolve import describe_pose, fetched_folder, size_in_name
from streampose.sinks.lock_file import hold, let_go

BLOCK = 1 << 16
ATTEMPTS = 5
Progress = Callable[[int, int | None], None]
"""Told the bytes that are here and the bytes that there will be, None where the server does not say."""


def fetch(
    name: str,
    *,
    source: Path | None = None,
    url: str | None = None,
    sha256: str | None = None,
    unverified: bool = False,
    folder: Path | None = None,
    timeout_s: float = 30.0,
    progress: Progress | None = None,
) -> Path:
    """Get the known model `name` into `folder` and give the path of the manifest written beside it.

    `source` is a file brought by other means, `url` another address for the same file. The content must have the hash
    of the catalogue or `sha256`; where neither is known, `unverified` must say that it does not matter. A broken
    download whose hash is known is kept as `.part` and gone on with the next time; nothing else is left. A file that
    its publisher gives no address of is called `name` here, whatever it was called before. Raises UsageError, or
    ModelError, also where the file is of another network than `name`, or another fetch is getting it.
    """
    known = catalogue().get(name)
    if known is None:
        raise UsageError(f"{name}: not a known model; `streampose models list` shows them")
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"--sha256 {sha256}: a whole sha256 is wanted, 64 hexadecimal digits")
    wanted = (sha256 or known.sha256).lower()
    if not wanted.startswith(known.sha256.lower()):
        raise UsageError(f"--sha256 {wanted[:16]}…: the published {name} has {known.sha256[:16]}")
    if not wanted and not unverified:
        raise UsageError(
            f"{name}: its publisher states no sha256; give --sha256 HEX from a source you trust, or --unverified"
        )
    if folder is None and not cache.has_home():
        raise UsageError(f"{name}: no home directory is known to keep it in; set STREAMPOSE_CACHE to a folder")
    verified = len(wanted) == 64  # by a whole hash, not by the few digits of a published file name
    folder = folder or fetched_folder()
    file_name = known.file_name or f"{name}{(source and source.suffix) or '.pth'}"
    target = folder / file_name
    with _alone(target):
        if target.is_file() and (sha256_of(target).startswith(wanted) if wanted else source is None):
            return _save(_describe(name, known, target, verified), target)
        part, before = (target.with_name(target.name + ending) for ending in (".part", ".before"))
        address = url or known.url
        if source is None and not address:
            raise UsageError(f"{name}: has no address to fetch from: {known.note}")
        if source is None and not address.startswith(("https://", "http://")):
            raise UsageError(f"--url {address}: an address that begins with https:// is wanted; --from takes a file")
        _fits_by_name(name, known, str(source or address))
        try:
            if source is not None:
                _copy(source, part)
            else:
                _download(address, _Part(part, bool(wanted)), timeout_s, progress or (lambda done, total: None))
            _verify(part, wanted, str(source or address))
            if target.is_file():
                os.replace(target, before)
            os.replace(part, target)
        except OSError as error:
            raise _cannot_write(target, error) from error
        except ModelError:
            if not wanted:
                part.unlink(missing_ok=True)  # of no use to the next time
            raise
        try:
            manifest = _describe(name, known, target, verified)
        except ModelError:
            target.unlink()  # what nobody vouched for and what is no such model goes
            if before.is_file():
                os.replace(before, target)
            raise
        before.unlink(missing_ok=True)
        return _save(manifest, target)


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Make the folder of `target` and keep other fetches from it; raises ModelError where there is one."""
    path = target.with_name(target.name + ".lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fd = hold(path)
    except OSError as error:
        raise _cannot_write(target, error) from error
    if fd is None:
        raise ModelError(f"{target}: another fetch is getting it; wait for that one")
    try:
        yield
    finally:
        let_go(path, fd)


def _cannot_write(path: Path, error: OSError) -> ModelError:
    return ModelError(f"{path}: cannot be written ({words_of(error)})")


def _fits_by_name(name: str, known: KnownModel, origin: str) -> None:
    """Raise ModelError where a file of which no hash is published says in its own name that it is of another input."""
    said = size_in_name(Path(origin).name)
    if known.task == "pose" and not known.sha256 and said is not None and said[::-1] != known.size:
        raise ModelError(
            f"{origin}: is for an input of {said[0]}x{said[1]} (height x width) by its name, {name} has "
            f"{known.size[1]}x{known.size[0]}; fetch the model that it is, or correct the file's name"
        )


def _copy(source: Path, part: Path) -> None:
    if not source.is_file():
        raise ModelError(f"{source}: no such file")
    try:
        shutil.copyfile(source, part)
    except OSError:
        part.unlink(missing_ok=True)  # half of a copy is of no use to a download
        raise


def _verify(part: Path, wanted: str, origin: str) -> None:
    found = sha256_of(part)
    if wanted and not found.startswith(wanted):
        part.unlink()
        raise ModelError(f"{origin}: is not the published file: its sha256 is {found[:16]}…, {wanted[:16]} is wanted")
    if not wanted and not _is_sound(part):
        part.unlink()
        raise ModelError(f"{origin}: is damaged, a checksum in it is wrong; get it again")


def _is_sound(file: Path) -> bool:
    """Whether every part of a zip archive, as PyTorch's checkpoints are, has the checksum that it states."""
    if not zipfile.is_zipfile(file):
        return True
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError):
        return False


@dataclass(slots=True)
class _Part:
    """The file of a download. `hashed`: what comes out is held to a hash, so whatever was begun before may be gone on with.
    Otherwise only what is of one version, by the `tag` that this fetch was given for it."""

    path: Path
    hashed: bool
    tag: str = ""

    @property
    def have(self) -> int:
        """Bytes that can be gone on with."""
        return self.path.stat().st_size if (self.hashed or self.tag) and self.path.exists() else 0


def _download(url: str, part: _Part, timeout_s: float, progress: Progress) -> None:
    """Bring `part` to its full length, in as many requests as it takes while each one brings something."""
    idle = most = 0  # of a server that knows no ranges every request begins at the start again
    reason = "the server sent nothing"
    while idle < ATTEMPTS:
        before = part.have
        most = max(most, before)
        try:
            if _request(url, part, timeout_s, progress):
                return
            reason = "the connection ended early"
        except (ValueError, http.client.InvalidURL) as error:
            raise UsageError(f"{url}: is no address that can be asked ({error})") from error
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {_one_line(error.reason)}"
            if error.code < 500:
                raise ModelError(f"{url}: {reason}") from error
        except urllib.error.URLError as error:
            reason = f"cannot be reached ({_one_line(error.reason)})"
            if not before:
                raise ModelError(f"{url}: {reason}; without a network, use --from FILE") from error
        except _ConnectionLost as error:
            reason = str(error)
        idle = 0 if part.have > most else idle + 1
    got = part.path.stat().st_size if part.path.exists() else 0
    again = "goes on from there" if part.hashed else "begins again"
    raise ModelError(f"{url}: stopped after {got} bytes ({reason}); the same command {again}")


def _one_line(said: object) -> str:
    """What a server or urllib said of it, as part of one line: theirs may have several."""
    return f"{' '.join(str(said).split()):.120}"


def _request(url: str, part: _Part, timeout_s: float, progress: Progress) -> bool:
    """One request for what is missing; whether `part` is then whole, as far as the server says how long it is."""
    request = urllib.request.Request(url, headers={"User-Agent": f"streampose/{__version__}"})
    have = part.have
    if have:
        request.add_header("Range", f"bytes={have}-")
        if part.tag:
            request.add_header("If-Range", part.tag)
    try:
        with _connection():
            response = _opener().open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing, or the file is another than the one begun
            if error.headers.get("Content-Range", "") == f"bytes */{have}":
                return True
            part.path.unlink()
            return False
        raise
    with response:
        total = _total(response, have)
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        done = have if resumed else 0
        if not resumed:
            tag = response.headers.get("ETag", "")
            part.tag = "" if tag.startswith("W/") else tag  # a weak one does not say that all bytes are the same
        with part.path.open("ab" if resumed else "wb") as file:
            while True:
                with _connection():
                    block = response.read1(BLOCK)
                if not block:
                    break
                file.write(block)
                done += len(block)
                progress(done, total)
    return done == total if total is not None else True


class _ConnectionLost(Exception):
    """A request or an answer broke off, in words for a line."""


@contextlib.contextmanager
def _connection() -> Iterator[None]:
    """Around what speaks to the server: what fails there is no fault of the disk."""
    try:
        yield
    except (urllib.error.URLError, http.client.InvalidURL):  # it cannot be reached at all, or answers so
        raise
    except (OSError, http.client.HTTPException) as error:
        said = words_of(error)
        name = type(error).__name__
        raise _ConnectionLost(_one_line(name if said == name else f"{name}: {said}")) from error


def _total(response: Any, have: int) -> int | None:
    """Length of the whole file, as the headers of an answer say; None where they do not."""
    if response.status == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        return int(total) if total.isdigit() else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


class _StaySecure(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise ModelError(f"{req.full_url}: sends us on to {newurl}, which is not encrypted; refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_StaySecure())


def _describe(name: str, known: KnownModel, target: Path, verified: bool) -> Manifest:
    """The manifest of a fetched file. Raises ModelError where that is no such model."""
    if known.task == "pose":
        manifest = describe_pose(target)
        architectures = {"network": known.network, "joints": known.joints}, manifest.architecture
        if architectures[0] != architectures[1]:
            wanted, found = (f"{each['network']} of {each['joints']} joints" for each in architectures)
            raise ModelError(f"{name}: is {wanted}, this file is {found}; give the file of that network")
        width, height = known.size
        spec = manifest.input.model_copy(update={"width": width, "height": height})
        manifest = manifest.model_copy(update={"input": spec})
    else:
        if not zipfile.is_zipfile(target):
            raise ModelError(f"{target.name}: is no PyTorch checkpoint, as {name} is")
        manifest = Manifest(
            name=name,
            task="detect",
            architecture={"builder": "ultralytics-pt", "trust": verified},
            weights=target.name,
            sha256=sha256_of(target),
            input=InputSpec(width=known.size[0], height=known.size[1]),
            output=OutputSpec(kind="yolo_end2end" if name.startswith("yolo26") else "yolo"),
            licence=known.licence,
        )
    return manifest.model_copy(
        update={
            "name": name,
            "licence": known.licence,
            "origin": known.url or known.note,
            "measured": {"published AP": known.ap, "of": known.ap_of},
        }
    )


def _save(manifest: Manifest, target: Path) -> Path:
    """Write the manifest beside the fetched file, so that its name works from now on; the file stays in any case."""
    path = target.parent / f"{manifest.name}.yaml"
    try:
        manifests.save(manifest, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path
