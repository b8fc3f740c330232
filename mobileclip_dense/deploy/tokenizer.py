"""open_clip's byte-pair tokenizer as `tokenizer.json`, which the `tokenizers` package and transformers.js read."""

from pathlib import Path

import open_clip
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

# open_clip matches these without regard to case, in text that is lower case already: only the long s is left to match.
_PIECES = "<[s\u017f]tart_of_text>|<end_of_text>|'[s\u017f]|'t|'re|'ve|'m|'ll|'d|" + r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_PROBES = (
    "A photo of a  dog.\n",
    "it's 3 o'clock; they'RE late (2024)!!",
    "",
    "word " * 100,
    "naïve café, 犬の写真 🐕",
)


def save_tokenizer(tokenizer: open_clip.SimpleTokenizer, path: Path) -> None:
    """Write a tokenizer whose `encode(text).ids` is open_clip's row of tokens, cut and padded with 0 to its length.

    open_clip first repairs mis-encoded text and resolves HTML entities (ftfy, html.unescape); a tokenizer.json cannot
    say that, and for text without such faults there is nothing to say. See `runtime.prompts` for the whole of it.

    Raises:
        ValueError: the tokenizer cleans text in another way than CLIP's, or the file gives other tokens for the probes.
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
            raise ValueError(f"tokenizer: {probe[:40]!r} gives other tokens than open_clip's tokenizer; only CLIP's "
                             f"own lower-casing one can be exported")  # fmt: skip
