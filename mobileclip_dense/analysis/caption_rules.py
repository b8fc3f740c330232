"""Rules for captions that are useless for training.

    file name        names a file (IMG_2041.jpg), or is as a whole the number a camera gave (DSC 0412)
    URL              holds an address of the web (http://..., www..., example.com)
    boilerplate      holds a phrase of shops and galleries that says nothing of the picture: _BOILERPLATE
    names nothing    without file names, addresses, boilerplate and words for pictures as such (photo, image), no noun
                     is left. Nouns of what cannot be seen (quality, thing) count as seen: the share is a lower bound

Captions in other languages than English are judged by the first two rules only as well as those fit them.
"""

import re
import unicodedata

from mobileclip_dense.analysis.parts_of_speech import tag_words

WORD = re.compile(r"[^\W_]+(?:['\u2019\-][^\W_]+)*")
"""A word: letters and digits, with apostrophes and hyphens inside."""
_ENDINGS = "jpe?g|png|gif|webp|bmp|tiff?|svg|heic|raw|pdf|psd|mp4|mov"
# The patterns begin where a word begins only: a search then takes time in proportion to a caption's length.
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
    """The words of a caption, as they are written."""
    return WORD.findall(caption)


def normalized(caption: str) -> str:
    """The form in which near duplicates are equal: without case, accents' forms and punctuation, every number 0."""
    words = WORD.findall(unicodedata.normalize("NFKC", caption).casefold())
    return re.sub(r"\d+", "0", " ".join(words))


def broken_rules(caption: str) -> set[str]:
    """Which of RULES a caption breaks; see the head of this file."""
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
