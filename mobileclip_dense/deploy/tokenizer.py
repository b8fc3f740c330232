"""Export of open_clip's byte-pair tokenizer to `tokenizer.json`, for the `tokenizers` package and transformers.js."""

from pathlib import Path

import open_clip
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

# open_clip's pattern ignores case. The text is already in lower case, so only the long s (U+017F) has to be added.
_PIECES = "<[s\u017f]tart_of_text>|<end_of_text>|'[s\u017f]|'t|'re|'ve|'m|'ll|'d|" + r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_PROBES = (
    "A photo of a  dog.\n",
    "it's 3 o'clock; they'RE late (2024)!!",
    "",
    "word " * 100,
    "naïve café, 犬の写真 🐕",
)


def save_tokenizer(tokenizer: open_clip.SimpleTokenizer, path: Path) -> None:
    """Write a tokenizer with the tokens of open_clip, truncated and padded with 0 to its context length.

    open_clip also repairs wrongly encoded text and resolves HTML entities (ftfy, html.unescape). A tokenizer.json
    cannot do that, so tokens may differ for such text; `runtime.prompts` does it before it calls the tokenizer.

    Raises:
        ValueError: the written tokenizer gives other tokens than `tokenizer` for a test sentence, because `tokenizer`
            is not CLIP's.
    """
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    written = Tokenizer(models.BPE(vocab=dict(tokenizer.encoder), merges=merges, end_of_word_suffix="</w>"))
    written.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), normalizers.Lowercase()]
    )
    written.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    start, end = "<start_of_text>", "<end_of_text>"
    written.add_special_tokens([start, end])
    written.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, tokenizer.sot_token_id), (end, tokenizer.eot_token_id)],
    )
    written.enable_truncation(tokenizer.context_length)
    written.enable_padding(length=tokenizer.context_length, pad_id=0, pad_token=tokenizer.decoder[0])
    written.save(str(path), pretty=False)
    read = Tokenizer.from_file(str(path))
    for probe in _PROBES:
        if read.encode(probe).ids != tokenizer(probe)[0].tolist():
            raise ValueError(f"tokenizer: found other tokens for {probe[:40]!r} than open_clip's tokenizer, expected "
                             "the same; only CLIP's lower-case tokenizer can be exported")  # fmt: skip
