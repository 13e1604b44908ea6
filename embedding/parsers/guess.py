"""Which legacy encoding some bytes without a declaration are in. Owns the guess alone; decoding is encoding.py's.

The detector is the one that browsers use for old pages (chardetng): it knows the encodings people wrote files in and
leans to windows-1252. Two kinds of short text that it takes for another language are put right by their letters.
"""

from __future__ import annotations

import codecs
import re

import webencodings
from chardetng_py import EncodingDetector  # type: ignore[import-untyped]

# Enough to tell languages apart; the guess's cost grows with its input.
_SAMPLE = 128 * 1024
_LETTERS = 16 * 1024

_WESTERN = (
    "àâæçéèêëîïôœùûüÿ",  # French
    "äöüß",
    "áéíñóúüçºª",  # Spanish, Galician, Basque
    "àáâãçéêíóôõúºª",  # Portuguese
    "àèéìíîòóùú",  # Italian
    "àçèéíïòóúü·",  # Catalan
    "áàéèêëíïóöüç",  # Dutch, Afrikaans
    "åäöéàü",  # Swedish, Finnish
    "åæøéòôóèüä",  # Danish, Norwegian
    "áéíóúýðþæö",  # Icelandic, Irish
    "äöõüšž",  # Estonian
    "ëçéèêïñöüæœ",  # Albanian, loan words in English
)
_CENTRAL = (
    "ąćęłńóśźż",  # Polish
    "áčďéěíňóřšťúůýž",  # Czech
    "áäčďéíĺľňóôŕšťúýž",  # Slovak
    "áéíóöőúüű",  # Hungarian
    "ăâîşţ",  # Romanian
    "čćđšž",  # Croatian, Slovene, Serbian in Latin letters
)
_BALTIC = ("ąčęėįšųūž", "āčēģīķļņōŗšūž", "äöõüšž")
_TURKISH = ("çğıöşüâîûİ",)

# In the order of how often files have them; the first that fits is taken.
_ALPHABETS = {
    "cp1252": _WESTERN,
    "cp1250": _CENTRAL,
    "iso8859_2": _CENTRAL,
    "cp1257": _BALTIC,
    "cp1254": _TURKISH,
    "iso8859_15": _WESTERN,
    "mac_roman": _WESTERN,
    "cp850": _WESTERN,
    "cp852": _CENTRAL,
}
_FITTING = {
    codec: tuple(frozenset(letters + letters.upper()) for letters in alphabets)
    for codec, alphabets in _ALPHABETS.items()
}
# The detector knows Icelandic; its letters are where Lithuanian has its most usual ones.
_RARE = next(letters for letters in _FITTING["cp1252"] if "þ" in letters)

# A sign inside a word or a foreign letter at a digit is a letter or a currency sign of another code page.
_ODD = re.compile(
    r"(?<=[^\W\d_])[\x80-\x9f¡-©«-´¶-¹»-¿×÷€‚„…†‡ˆ‰‹•˜™›¤ﬁﬂ∂∆∏∑√∞∫≈≠≤≥◊░-▓█▀▄■│-╬˝˛ˇ˘](?=[^\W\d_])"
    r"|[^\x00-\xbf×÷\W](?=\d)|[¼-¾](?=[^\W\d_]{4})|¤"
)

# Signs of windows-1252 where people write them; other code pages have letters there, which stand in words.
_SIGN = re.compile(
    r"(?<=\d)[£¥](?!\w)|(?<=\d )[£¥](?!\w)|(?<!\w)[£¥](?= ?\d)|(?<![^\W\d_])[¼-¾](?![^\W\d_])|(?<![^\W\d_])±(?= ?\d)"
    r"|(?<![^\W\d_])µ(?=[mslgAVFW][ol]?(?!\w))|(?<=\w)[²³](?!\w)|°(?!\d)|[§©®×÷€™‘’‚“”„…–—•]|«(?=[^«»]+»)|»"
)
_HIGH = re.compile(r"[^\x00-\x7f]")
# A Baltic text has a letter above ASCII in every other word.
_BALTIC_LETTERS = 20


def guess_codec(data: bytes) -> str:
    """Return the Python name of the likeliest codec of bytes that are no UTF-8; always one, right or wrong."""
    # A long plain-ASCII beginning says nothing: start where the first byte above it is.
    first = re.search(rb"[\x80-\xff]", data)
    begin = max(0, first.start() - 2048) if first else 0
    sample = data[begin : begin + _SAMPLE]
    for codec in ("euc_jp", "cp932"):
        if _is_kana(sample, codec):
            return codec
    if _is_signs(sample[:_LETTERS]):
        return "cp1252"
    detector = EncodingDetector()
    detector.feed(sample, last=begin + len(sample) == len(data))
    name = detector.guess(tld=None, allow_utf8=False)
    found = webencodings.lookup(name)
    codec = found.codec_info.name if found is not None else codecs.lookup(name).name
    return _by_letters(sample[:_LETTERS], codec.replace("-", "_"))


def _by_letters(sample: bytes, codec: str) -> str:
    """Return another Latin codec where the guess's letters are no language's and the other's are."""
    if codec not in _ALPHABETS:
        return codec
    if (own := _fit(sample, codec)) >= 0.9:
        # One foreign word in an English text: the letters of both fit, and there are too few for a Baltic one.
        rare = codec == "cp1257" and _is_rare(sample) and _fit(sample, "cp1252", _RARE) >= 0.98
        return "cp1252" if rare else codec
    others = (other for other in _ALPHABETS if other != codec)
    return next((other for other in others if _fit(sample, other, _RARE) >= max(0.98, own)), codec)


def _is_signs(sample: bytes) -> bool:
    """Whether all that is above ASCII are signs that stand where signs do ("5 µm", "£20"), none of them a letter."""
    text = sample.decode("cp1252", "replace")
    return len(_SIGN.findall(text)) == len(_HIGH.findall(text))


def _is_rare(sample: bytes) -> bool:
    letters = [character for character in sample.decode("cp1257", "replace") if character.isalpha()]
    return sum(1 for letter in letters if letter > "\x7f") * _BALTIC_LETTERS < len(letters)


def _fit(sample: bytes, codec: str, without: frozenset[str] = frozenset()) -> float:
    """Return the share of the letters above ASCII that one language of the codec has; 0 where it cannot decode."""
    try:
        text = sample.decode(codec)
    except UnicodeDecodeError:
        return 0.0
    # A capital behind a small letter ("CafŽ") is a small letter of another code page.
    pairs = zip(" " + text, text, strict=False)
    letters = [
        now for before, now in pairs if now > "\x7f" and now.isalpha() and not (now.isupper() and before.islower())
    ]
    odd = len(_ODD.findall(text)) + sum(1 for now in text if now > "\x7f" and now.isalpha()) - len(letters)
    if not letters:
        return 0.0 if odd else 1.0
    alphabets = (alphabet for alphabet in _FITTING[codec] if alphabet != without)
    best = max(sum(1 for letter in letters if letter in alphabet) for alphabet in alphabets)
    return best / (len(letters) + odd)


def _is_kana(sample: bytes, codec: str) -> bool:
    """Whether bytes are mostly kana: a few look like Thai or Cyrillic to a detector that counts single bytes."""
    try:
        text = codecs.getincrementaldecoder(codec)().decode(sample[:_LETTERS])
    except UnicodeDecodeError:
        return False
    kana = sum(1 for character in text if "\u3041" <= character <= "\u30fe")
    return kana >= 3 and kana * 2 >= sum(1 for character in text if character > "\x7f")
