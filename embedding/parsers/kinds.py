"""Kinds of file that hold nothing to read: pictures, sound, fonts, archives, programs, databases.

The content alone decides. Bytes that are not known are no kind of their own: they may be a document that was damaged.
"""

from __future__ import annotations

import struct

# Media type to (offset, any of these bytes).
_SIGNATURES: dict[str, tuple[int, tuple[bytes, ...]]] = {
    # pictures
    "image/png": (0, (b"\x89PNG",)),
    "image/jpeg": (0, (b"\xff\xd8\xff",)),
    "image/gif": (0, (b"GIF87a", b"GIF89a")),
    "image/tiff": (0, (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")),
    "image/jp2": (0, (b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51")),
    "image/jxl": (0, (b"\x00\x00\x00\x0cJXL ",)),
    "image/vnd.adobe.photoshop": (0, (b"8BPS\x00",)),
    "image/x-xcf": (0, (b"gimp xcf ",)),
    "image/x-exr": (0, (b"\x76\x2f\x31\x01",)),
    "image/vnd.djvu": (0, (b"AT&TFORM",)),
    "image/wmf": (0, (b"\xd7\xcd\xc6\x9a",)),
    "image/emf": (40, (b" EMF\x00",)),
    "image/icns": (0, (b"icns\x00",)),
    "image/x-eps": (0, (b"\xc5\xd0\xd3\xc6",)),
    "image/vnd.dwg": (0, (b"AC1012\x00", b"AC1015\x00", b"AC1018\x00", b"AC1021\x00", b"AC1024\x00", b"AC1027\x00")),
    "application/dicom": (128, (b"DICM",)),
    # sound and film
    "audio/flac": (0, (b"fLaC\x00",)),
    "audio/midi": (0, (b"MThd\x00",)),
    "audio/amr": (0, (b"#!AMR",)),
    "audio/basic": (0, (b".snd\x00",)),
    "audio/mpeg": (0, (b"ID3\x02\x00", b"ID3\x03\x00", b"ID3\x04\x00")),
    "application/ogg": (0, (b"OggS\x00",)),
    "video/x-matroska": (0, (b"\x1a\x45\xdf\xa3",)),
    "video/x-ms-asf": (0, (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",)),
    "video/x-flv": (0, (b"FLV\x01",)),
    "video/mpeg": (0, (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")),
    # fonts
    "font/otf": (0, (b"OTTO\x00",)),
    "font/collection": (0, (b"ttcf\x00",)),
    "font/woff": (0, (b"wOFF\x00", b"wOFFOTTO", b"wOFFtrue")),
    "font/woff2": (0, (b"wOF2\x00", b"wOF2OTTO", b"wOF2true", b"wOF2ttcf")),
    "application/x-font-type1": (0, (b"\x80\x01",)),
    # archives, packages and images of disks
    "application/gzip": (0, (b"\x1f\x8b",)),
    "application/x-bzip2": (4, (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")),
    "application/x-xz": (0, (b"\xfd7zXZ\x00",)),
    "application/zstd": (0, (b"\x28\xb5\x2f\xfd",)),
    "application/x-lz4": (0, (b"\x04\x22\x4d\x18",)),
    "application/x-compress": (0, (b"\x1f\x9d",)),
    "application/x-7z-compressed": (0, (b"7z\xbc\xaf",)),
    "application/vnd.rar": (0, (b"Rar!\x1a",)),
    "application/x-tar": (257, (b"ustar\x00", b"ustar  \x00")),
    "application/vnd.ms-cab-compressed": (0, (b"MSCF\x00",)),
    "application/x-archive": (0, (b"!<arch>\n",)),
    "application/x-rpm": (0, (b"\xed\xab\xee\xdb",)),
    "application/x-xar": (0, (b"xar!\x00",)),
    "application/x-iso9660-image": (0x8001, (b"CD001",)),
    "application/x-squashfs": (0, (b"hsqs",)),
    "application/x-qemu-disk": (0, (b"QFI\xfb",)),
    "application/x-chrome-extension": (0, (b"Cr24\x02", b"Cr24\x03")),
    "application/x-git-pack": (0, (b"PACK\x00\x00\x00\x02",)),
    "application/zip": (0, (b"PK\x05\x06",)),
    # programs
    "application/x-elf": (0, (b"\x7fELF",)),
    "application/x-mach-binary": (
        0,
        (b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe"),
    ),
    "application/java-vm": (0, (b"\xca\xfe\xba\xbe",)),
    "application/wasm": (0, (b"\x00asm",)),
    "application/vnd.android.dex": (0, (b"dex\n03",)),
    "application/x-python-code": (2, (b"\r\r\n",)),
    # databases and tables of numbers
    "application/vnd.sqlite3": (0, (b"SQLite format 3\x00",)),
    "application/msaccess": (4, (b"Standard Jet DB\x00", b"Standard ACE DB\x00")),
    "application/vnd.apache.parquet": (0, (b"PAR1",)),
    "application/vnd.apache.arrow.file": (0, (b"ARROW1\x00",)),
    "application/vnd.apache.avro": (0, (b"Obj\x01",)),
    "application/x-hdf5": (0, (b"\x89HDF\r\n\x1a\n",)),
    "application/x-netcdf": (0, (b"CDF\x01", b"CDF\x02", b"CDF\x05")),
    "application/x-npy": (0, (b"\x93NUMPY",)),
    "application/x-matlab-data": (0, (b"MATLAB 5.0 MAT-file",)),
    "application/x-gguf": (0, (b"GGUF\x02\x00", b"GGUF\x03\x00")),
    "application/vnd.tcpdump.pcap": (0, (b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x0a\x0d\x0d\x0a")),
    "application/x-keepass": (0, (b"\x03\xd9\xa2\x9a",)),
    # what file managers leave in shared folders
    "application/x-ds-store": (0, (b"\x00\x00\x00\x01Bud1",)),
    "application/applefile": (0, (b"\x00\x05\x16\x00", b"\x00\x05\x16\x07")),
    "application/x-ms-shortcut": (0, (b"\x4c\x00\x00\x00\x01\x14\x02\x00",)),
    "application/x-bplist": (0, (b"bplist00",)),
}
# A note may begin with the letters of a signature; none holds one of these.
_CONTROLS = frozenset(range(9)) | frozenset(range(14, 27))

_BY_PLACE: dict[int, list[tuple[bytes, str]]] = {}
for _kind, (_place, _magics) in _SIGNATURES.items():
    _BY_PLACE.setdefault(_place, []).extend((magic, _kind) for magic in _magics)

_RIFF = {
    b"WAVE": "audio/wav",
    b"AVI ": "video/x-msvideo",
    b"WEBP": "image/webp",
    b"ACON": "image/x-ani",
    b"RMID": "audio/midi",
}
_PICTURE_BRANDS = frozenset([b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx "])
_SOUND_BRANDS = frozenset([b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B "])
_BMP_HEADERS = frozenset([12, 16, 40, 52, 56, 64, 108, 124])


def kind_without_text(data: bytes) -> str | None:
    """Return the media type of a kind that has no text for us, or None for anything else."""
    for place, magics in _BY_PLACE.items():
        for magic, kind in magics:
            if data.startswith(magic, place) and not (magic.isascii() and _reads_as_text(data)):
                return kind
    return _container(data) or _by_fields(data)


def _reads_as_text(data: bytes) -> bool:
    return _CONTROLS.isdisjoint(data[:512])


def _container(data: bytes) -> str | None:
    """Formats whose first bytes name a family and later ones the member."""
    if data[:4] in (b"RIFF", b"RIFX"):
        return _RIFF.get(data[8:12])
    if data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        return "audio/aiff"
    box, brand = data[4:8], data[8:12]
    if box == b"ftyp" and data[:2] == b"\x00\x00":
        if brand in _PICTURE_BRANDS:
            return "image/heif"
        return "audio/mp4" if brand in _SOUND_BRANDS else "video/mp4"
    if box in (b"moov", b"mdat", b"wide", b"pnot") and data[:1] == b"\x00":
        return "video/quicktime"
    return None


def _by_fields(data: bytes) -> str | None:
    """Formats whose signature is too short to be believed without a look at the fields behind it."""
    if len(data) < 64:
        return None
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS and not data[17]:
        return "image/bmp"
    if data[:4] in (b"\x00\x00\x01\x00", b"\x00\x00\x02\x00") and data[4] and not data[5] and not data[9]:
        return "image/vnd.microsoft.icon"
    if data[:2] == b"MZ":
        at = struct.unpack_from("<I", data, 0x3C)[0]
        return "application/vnd.microsoft.portable-executable" if data[at : at + 2] in (b"PE", b"NE", b"LE") else None
    if (
        data[:4] in (b"\x00\x01\x00\x00", b"true")
        and data[4] == 0
        and data[12:16].replace(b"/", b"").rstrip().isalnum()
    ):
        return "font/ttf"
    if data[0] == 0x47 and len(data) > 564 and all(data[188 * n] == 0x47 for n in range(4)):
        return "video/mp2t" if b"\x00" in data[:188] or b"\xff" in data[:188] else None
    if data[:3] in (b"FWS", b"CWS", b"ZWS") and 0 < data[3] < 64 and not chr(data[3]).isspace():
        return "application/x-shockwave-flash"
    return "audio/mpeg" if _is_mp3(data) else None


def _is_mp3(data: bytes) -> bool:
    """Whether a frame of MPEG audio is followed by another one where its own length says."""
    at = 0
    for _ in range(2):
        if len(data) < at + 4 or data[at] != 0xFF or data[at + 1] & 0xE6 != 0xE2:
            return False  # no sync, or not layer III
        version, rate, sampling = data[at + 1] >> 3 & 3, data[at + 2] >> 4, data[at + 2] >> 2 & 3
        if version == 1 or rate in (0, 15) or sampling == 3:
            return False
        full = version == 3
        kilobits = (
            (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
            if full
            else (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
        )[rate - 1]
        hertz = (44100, 48000, 32000)[sampling] >> {3: 0, 2: 1, 0: 2}[version]
        at += (144 if full else 72) * kilobits * 1000 // hertz + (data[at + 2] >> 1 & 1)
    return True
