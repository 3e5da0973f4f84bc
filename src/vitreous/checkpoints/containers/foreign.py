"""What a file is that holds no tensors, by its first bytes: a download that went wrong, or another format."""

from __future__ import annotations

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was not fetched; run git lfs pull"),
    (b"\x89PNG", "a PNG image; give the path of a model"),
    (b"\xff\xd8\xff", "a JPEG image; give the path of a model"),
    (b"GIF8", "a GIF image; give the path of a model"),
    (b"RIFF", "a WebP image or a sound; give the path of a model"),
    (b"%PDF", "a PDF document; give the path of a model"),
    (b"\x1f\x8b", "compressed with gzip; unpack it with gunzip"),
    (b"BZh", "compressed with bzip2; unpack it with bunzip2"),
    (b"\xfd7zXZ", "compressed with xz; unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it with unzstd"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"PK\5\6", "an empty zip archive; download it again"),
    (b"\x89HDF", "an HDF5 file, as Keras writes them; save the model as safetensors"),
    (b"\x93NUMPY", "a single NumPy array; save a model's arrays with numpy.savez"),
    (b"GGUF", "a GGUF file, for llama.cpp; look for the same model as safetensors"),
)
_TAR = slice(257, 262)


def name_of_foreign(start: bytes) -> str | None:
    """What a file is and what to do with it, or None where its first 512 bytes do not tell."""
    if start[_TAR] == b"ustar":
        return "a tar archive; unpack it, and give the path of the model in it"
    for mark, name in _STARTS:
        if start.startswith(mark):
            return name
    text = b"" if b"\0" in start else start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        return "an HTML or XML page: a login or an error in place of the file; download it again"
    if text.startswith((b"{", b"[")):
        return "a JSON text; give the path of the weights beside it"
    return None
