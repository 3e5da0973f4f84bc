"""The list of members at the end of a zip archive, checked before any member is read.

Stricter than the format: the list ends the file, or nothing but a JSON object follows, no two members share bytes, and
no name is said twice. What NumPy and PyTorch write is of this kind; what fools a reader that is less strict is not.

Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from vitreous.checkpoints.containers.contract import MOST_TENSORS, shown_name, why_not_a_name
from vitreous.checkpoints.containers.regular_file import RegularFile
from vitreous.errors import CheckpointError

STORED, DEFLATED = 0, 8

_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_LISTED = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_IN_64_BITS = 0xFFFFFFFF  # stands where a number follows in the extra field
_ENCRYPTED = 1 | 1 << 6 | 1 << 13
_UTF_8 = 1 << 11
_LARGEST_LIST = 8 * 2**20  # bytes
_LONGEST_COMMENT = 65_535  # bytes
_PIECE = 2**20


@dataclass(frozen=True)
class Member:
    """One file in the archive.

    Attributes:
        name: as listed; checked.
        method: how it is compressed: STORED, DEFLATED, or a number that nothing here reads.
        start: of its bytes, in the archive.
        packed: bytes in the archive.
        size: bytes after inflating, by its own claim.
        crc: checksum of the inflated bytes, by its own claim.
    """

    name: str
    method: int
    start: int
    packed: int
    size: int
    crc: int


def read_members(file: RegularFile) -> dict[str, Member]:
    """Every member by name.

    Raises:
        CheckpointError: if the archive is damaged, encrypted, or built to mislead.
    """
    count, list_start, list_end = _find_list(file)
    if count > MOST_TENSORS or list_end - list_start > _LARGEST_LIST:
        raise _broken(file, f"it lists {count:,} members; {MOST_TENSORS:,} are the most")
    content = file.read(list_start, list_end - list_start)
    members: dict[str, Member] = {}
    ends: dict[int, int] = {}
    place = 0
    for _ in range(count):
        member, local_start, place = _read_listed(file, content, place)
        if member.name in members:
            raise _broken(file, f"it has {shown_name(member.name)} twice")
        members[member.name] = located = _locate(file, member, local_start, list_start)
        ends[local_start] = located.start + located.packed
    if place != len(content):
        raise _broken(file, f"its list of members is longer than the {count:,} it announces")
    _check_apart(file, ends)
    return members


def read_comment(file: RegularFile) -> str:
    """What stands behind the list of members, if it is a JSON object, as vitreous writes; empty where nothing does."""
    start = max(0, file.size - _END.size - _LONGEST_COMMENT)
    tail = file.read(start, file.size - start)
    begin = tail.find(b"{", max(tail.rfind(b"PK\5\6"), 0) + _END.size)
    ends = begin >= _END.size and tail[begin - _END.size : begin].startswith(b"PK\5\6")
    if not ends or int.from_bytes(tail[begin - 2 : begin], "little") != len(tail) - begin:
        return ""
    try:
        return tail[begin:].decode()
    except UnicodeDecodeError:
        return ""


def read_stored(file: RegularFile, member: Member) -> bytes:
    """The bytes of a small member that is not compressed; the caller has looked at its size."""
    check_stored(file, member)
    content = file.read(member.start, member.size)
    check_crc(file, member, zlib.crc32(content))
    return content


def check_stored(file: RegularFile, member: Member) -> None:
    """Nothing, if a member stands in the archive byte for byte."""
    if member.method != STORED or member.packed != member.size:
        raise file.refusal(
            f"its member {shown_name(member.name)} is compressed; PyTorch never does that, and it can hide any size",
            "unpack it and save it again with torch.save",
        )


def check_crc(file: RegularFile, member: Member, crc: int) -> None:
    """Nothing, if the checksum is the member's."""
    if crc != member.crc:
        raise file.refusal(f"its member {shown_name(member.name)} is damaged: its checksum does not match")


def crc_of(file: RegularFile, start: int, length: int) -> int:
    """Checksum of a stretch of the file, of which little is in memory at a time."""
    crc, room = 0, memoryview(bytearray(min(length, _PIECE)))
    for begin in range(0, length, _PIECE):
        piece = room[: min(_PIECE, length - begin)]
        file.fill(piece, start + begin)
        crc = zlib.crc32(piece, crc)
    return crc


def inflate(file: RegularFile, member: Member, take: Callable[[bytes], bool]) -> None:
    """Gives the inflated bytes of a member to `take`, piece by piece and never more than its size in all.

    Args:
        file: the archive.
        member: DEFLATED.
        take: gets up to 1 MiB; returns whether it wants more.

    Raises:
        CheckpointError: if the bytes are damaged, or are not as many as claimed.
    """
    decoder, crc, given = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    unread, place = b"", member.start
    while not decoder.eof:
        if not unread:
            unread = file.read(place, min(_PIECE, member.start + member.packed - place))
            place += len(unread)
        try:
            piece = decoder.decompress(unread, _PIECE)
        except zlib.error as cause:
            raise file.refusal(f"its member {shown_name(member.name)} cannot be inflated") from cause
        at_end = not unread and not piece
        unread = decoder.unconsumed_tail
        crc, given = zlib.crc32(piece, crc), given + len(piece)
        if given > member.size or (at_end and not decoder.eof):
            raise file.refusal(
                f"its member {shown_name(member.name)} does not inflate to the {member.size:,} bytes claimed"
            )
        if piece and not take(piece):
            return
    if given != member.size:
        raise file.refusal(f"its member {shown_name(member.name)} inflates to {given:,} bytes, not {member.size:,}")
    check_crc(file, member, crc)


def _find_list(file: RegularFile) -> tuple[int, int, int]:
    """How many members are listed, and from where to where the list goes."""
    end_start = file.size - _END.size - len(read_comment(file).encode())
    if end_start < 0:
        raise _broken(file, f"it has only {file.size} bytes")
    mark, *disks, here, count, size, start, _ = _END.unpack(file.read(end_start, _END.size))
    if mark != b"PK\5\6":
        raise _broken(file, "it does not end with its list of members; it is cut, or something was put behind it")
    list_end = end_start
    if _has_end64(file, end_start):
        _, disk, end64_start, _ = _LOCATOR64.unpack(file.read(end_start - _LOCATOR64.size, _LOCATOR64.size))
        list_end = end_start - _LOCATOR64.size - _END64.size
        if end64_start != list_end:
            raise _broken(file, "its list of members is not where it says")
        mark, _, _, _, *disks, here, count, size, start = _END64.unpack(file.read(end64_start, _END64.size))
        disks.append(disk)
        if mark != b"PK\6\6":
            raise _broken(file, "its list of members is not where it says")
    if any(disks) or here != count:
        raise _broken(file, "it is one of several parts")
    if start + size != list_end:
        raise _broken(file, "its list of members is not where it says")
    return count, start, list_end


def _has_end64(file: RegularFile, end_start: int) -> bool:
    start = end_start - _LOCATOR64.size
    return start >= _END64.size and file.read(start, 4) == b"PK\6\7"


def _read_listed(file: RegularFile, content: bytes, place: int) -> tuple[Member, int, int]:
    """A member of the list, without its start, where its local header is, and the next place in the list."""
    if place + _LISTED.size > len(content) or content[place : place + 4] != b"PK\1\2":
        raise _broken(file, "its list of members is damaged")
    fields = _LISTED.unpack_from(content, place)
    _, _, _, flags, method, _, _, crc, packed, size, name_size, extra_size, note_size, disk, _, _, start = fields
    place += _LISTED.size
    name = _decode_name(file, content[place : place + name_size], flags)
    extra = content[place + name_size : place + name_size + extra_size]
    if flags & _ENCRYPTED:
        raise file.refusal(f"its member {shown_name(name)} is encrypted", "decrypt it first")
    size, packed, start = _widen(file, extra, [size, packed, start])
    if disk or (method == STORED and packed != size):
        raise _broken(file, f"the sizes of {shown_name(name)} contradict each other")
    return Member(name, method, 0, packed, size, crc), start, place + name_size + extra_size + note_size


def _locate(file: RegularFile, member: Member, local_start: int, list_start: int) -> Member:
    """The member with its start, found through its local header, which must tell the same as the list."""
    label = shown_name(member.name)
    if local_start + _LOCAL.size > list_start:
        raise _broken(file, f"{label} starts at byte {local_start:,}, outside of the archive")
    fields = _LOCAL.unpack(file.read(local_start, _LOCAL.size))
    mark, _, flags, method, _, _, crc, packed, size, name_size, extra_size = fields
    start = local_start + _LOCAL.size + name_size + extra_size
    if mark != b"PK\3\4" or start + member.packed > list_start:
        raise _broken(file, f"{label} reaches from byte {local_start:,} out of the archive")
    tail = file.read(local_start + _LOCAL.size, name_size + extra_size)
    same = _decode_name(file, tail[:name_size], flags) == member.name and method == member.method
    if not flags & 1 << 3:  # else the sizes stand behind the member, and here are zeros
        size, packed = _widen(file, tail[name_size:], [size, packed])
        same = same and (size, packed, crc) == (member.size, member.packed, member.crc)
    if flags & _ENCRYPTED or not same:
        raise _broken(file, f"{label} is described in two ways that contradict each other")
    return Member(member.name, member.method, start, member.packed, member.size, member.crc)


def _widen(file: RegularFile, extra: bytes, numbers: list[int]) -> list[int]:
    """Sizes and places, of which those too large for 32 bits stand in the extra field."""
    if _IN_64_BITS not in numbers:
        return numbers
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, place)
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{min(length, len(extra) - place - 4) // 8}Q", extra, place + 4))
            return [next(wide, number) if number == _IN_64_BITS else number for number in numbers]
        place += 4 + length
    raise _broken(file, "a size in its list of members is missing")


def _check_apart(file: RegularFile, ends: dict[int, int]) -> None:
    reached = 0
    for start in sorted(ends):
        if start < reached:
            raise _broken(file, f"two of its members share the bytes from {start:,} on")
        reached = ends[start]


def _decode_name(file: RegularFile, name: bytes, flags: int) -> str:
    try:
        decoded = name.decode("utf-8" if flags & _UTF_8 else "ascii")
    except UnicodeDecodeError as cause:
        raise _broken(file, f"it has a member with the name {shown_name(repr(name))}") from cause
    if wrong := why_not_a_name(decoded):
        raise _broken(file, f"it has a member with {wrong}")
    return decoded


def _broken(file: RegularFile, cause: str) -> CheckpointError:
    return file.refusal(f"not a whole zip archive: {cause}")
