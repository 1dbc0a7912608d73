"""ZIP archives with uncompressed members, as torch and Keras write them; they are checked before anything is read.

Members are mapped inside the archive, never extracted. Names that lead out of the archive are refused nevertheless, as
are compressed members and sizes beyond the end of the file.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rembert.bridge.tensors import check_layout, map_file
from rembert.common.errors import CheckpointError
from rembert.common.files import open_regular

MAX_MEMBERS = 200_000
# What `zipfile` raises for damaged archives.
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(IndexError, OverflowError, RuntimeError, ValueError),
)


@dataclass(frozen=True)
class Member:
    """The position of a member's bytes in the archive, and their checksum."""

    start: int
    size: int
    crc: int


class Archive:
    """The members of a ZIP file, by name.

    Raises:
        CheckpointError: the file is not such an archive; names the file, the member and the reason.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members: dict[str, Member] = {}
        try:
            with open_regular(path, CheckpointError) as file, zipfile.ZipFile(file) as archive:
                listed = archive.infolist()
                if len(listed) > MAX_MEMBERS:
                    raise zipfile.BadZipFile(f"it has more than {MAX_MEMBERS} members")
                for info in listed:
                    self._add(info, _data_start(archive, info))
        except CheckpointError:
            raise
        except DAMAGE as problem:
            raise CheckpointError(f"{path}: this is not a readable ZIP archive: {problem}.") from None
        spans = {name: (member.start, member.start + member.size) for name, member in self.members.items()}
        check_layout(path, spans, 0, path.stat().st_size)
        self._unverified = list(self.members)

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a small member.

        Raises:
            CheckpointError: it is missing, or larger than `limit` bytes.
        """
        member = self.members.get(name)
        if member is None or member.size > limit:
            size = "no such member" if member is None else f"{member.size} bytes"
            raise CheckpointError(f"{self.path}: member `{name}` must have at most {limit} bytes. Received: {size}.")
        with self.path.open("rb") as file:
            file.seek(member.start)
            return file.read(member.size)

    def verify(self) -> None:
        """Compare every member with its checksum. Later calls do nothing.

        Raises:
            CheckpointError: a member is damaged.
        """
        if not self._unverified:
            return
        mapped = map_file(self.path)
        while self._unverified:
            name = self._unverified[-1]
            member = self.members[name]
            if zlib.crc32(mapped[member.start : member.start + member.size].data) != member.crc:
                raise CheckpointError(
                    f"{self.path}: member `{name}` does not match its checksum. The file is damaged."
                )
            self._unverified.pop()

    def _add(self, info: zipfile.ZipInfo, start: int) -> None:
        name = PurePosixPath(info.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in info.filename or ":" in info.filename:
            raise CheckpointError(
                f"{self.path}: member `{info.filename:.200}` has a name that leads out of the archive."
            )
        if info.filename in self.members:
            raise CheckpointError(f"{self.path}: member `{info.filename:.200}` occurs twice.")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise CheckpointError(
                f"{self.path}: member `{info.filename:.200}` is compressed or encrypted, which neither torch nor "
                "Keras writes. Unpack the archive and store it without compression."
            )
        self.members[info.filename] = Member(start, info.file_size, info.CRC)


def _data_start(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """The start of a member's bytes, after its own header, which alone contains its length."""
    file = archive.fp
    assert file is not None
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"member `{info.filename:.200}` has no header")
    name, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
    return info.header_offset + 30 + name + extra
