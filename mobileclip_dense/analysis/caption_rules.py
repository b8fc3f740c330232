"""Rules that detect captions without use for training.

    file name        contains a file name (IMG_2041.jpg), or consists of a camera's file number (DSC 0412)
    URL              contains a web address (http://..., www..., example.com)
    boilerplate      contains a phrase of shops or galleries that does not describe the picture: _BOILERPLATE
    names nothing    has no noun apart from file names, addresses, boilerplate and words for pictures (photo, image).
                     Nouns for invisible things (quality, thing) count as nouns, so the share is a lower bound

The rules are made for English captions. For other languages, only the first two are of use.
"""

import re
import unicodedata

from mobileclip_dense.analysis.parts_of_speech import tag_words

WORD = re.compile(r"[^\W_]+(?:['\u2019\-][^\W_]+)*")
"""A word: letters and digits, with apostrophes and hyphens inside."""
_ENDINGS = "jpe?g|png|gif|webp|bmp|tiff?|svg|heic|raw|pdf|psd|mp4|mov"
# The patterns match only at the start of a word, so that a search takes time linear in the length of the caption.
_FILE = re.compile(rf"(?<!\S)\S+\.(?:{_ENDINGS})\b", re.IGNORECASE)
_CAMERA = re.compile(
    r"(?:img|dscn?|dscf|pict?|p|pxl|mvimg|screenshot|image|photo|scan)?[ _\-]*\d[\d _\-().]*", re.IGNORECASE
)
_URL = re.compile(
    r"(?:https?://|www\.)\S+|(?<![\w.\-])[a-z0-9\-][a-z0-9.\-]*\.(?:com|net|org|info|co\.uk|de|fr|ru|cn|io|shop|biz)\b\S*",
    re.IGNORECASE,
)
_BOILERPLATE = re.compile(
    r"\b(?:click (?:here|to|for|on)(?: \w+)?|(?:shop|buy|order|book|call) (?:now|online|today)|add to (?:cart|basket)|"
    r"(?:best|low|lowest|great) prices?|free (?:shipping|delivery|download|returns)|for sale|on sale|(?:\d+ ?% )off|"
    r"discounts?|new collection(?: \d+)?|in stock|out of stock|sold out|stock (?:photos?|images?|pictures?|vectors?)|"
    r"royalty[ \-]free|(?:hd|4k|desktop|free) wallpapers?|wallpapers? (?:hd|4k|free|download)|downloads?|"
    r"all rights reserved|copyright|(?:view|see|read) (?:more|larger|full|all)|photo gallery|thumbnails?|"
    r"image \d+ of \d+|page \d+|no (?:image|photo|description)(?: available)?|image (?:not available|may contain)|"
    r"untitled|placeholder|profile (?:photo|picture)|posted (?:by|on)|share (?:on|this)|related (?:posts|products))\b"
    r"|©|™|®",
    re.IGNORECASE,
)
_PICTURE_WORDS = {
    "photo", "photos", "photograph", "photographs", "picture", "pictures", "pic", "pics", "image", "images", "img",
    "render", "shot", "shots", "view", "views", "illustration", "graphic", "graphics", "hd", "3d", "2d", "4k", "file",
    "copy",
}  # fmt: skip
RULES = ("file name", "URL", "boilerplate", "names nothing")


def split_words(caption: str) -> list[str]:
    """The words of a caption, unchanged."""
    return WORD.findall(caption)


def normalized(caption: str) -> str:
    """The caption for comparing near duplicates: NFKC, without case and punctuation, and with 0 for every number."""
    words = WORD.findall(unicodedata.normalize("NFKC", caption).casefold())
    return re.sub(r"\d+", "0", " ".join(words))


def broken_rules(caption: str) -> set[str]:
    """The rules in RULES that a caption breaks, see the module docstring."""
    found = set()
    of_camera = _CAMERA.fullmatch(caption.strip()) is not None
    if _FILE.search(caption) or of_camera:
        found.add("file name")
    rest = " " if of_camera else _FILE.sub(" ", caption)
    if _URL.search(rest):
        found.add("URL")
        rest = _URL.sub(" ", rest)
    if _BOILERPLATE.search(rest):
        found.add("boilerplate")
        rest = _BOILERPLATE.sub(" ", rest)
    words = split_words(rest)
    parts = tag_words(words)
    if not any(part == "noun" and word.lower() not in _PICTURE_WORDS and not word.isdigit()
               for word, part in zip(words, parts, strict=True)):  # fmt: skip
        found.add("names nothing")
    return found
