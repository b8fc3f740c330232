"""Artifacts by reference: a folder, `sample:NAME`, or `hf-hub:ORG/NAME`."""

from pathlib import Path

from mobileclip_dense.artifact.files import read_json

SAMPLES = Path(__file__).parents[1] / "samples"
_SAMPLE, _HUB = "sample:", "hf-hub:"


def sample_scenes() -> tuple[Path, ...]:
    """The two sample pictures of the package."""
    return tuple(sorted((SAMPLES / "scenes").glob("*.jpg")))


def find_artifact(reference: str | Path) -> Path:
    """The folder that a reference names. The artifact is not read; `load_artifact` verifies its files.

    Args:
        reference: a folder; `sample:segment` or `sample:depth`, the samples of the package; or `hf-hub:ORG/NAME`, a
            repository of the Hugging Face hub with an artifact at its root, downloaded into the hub's cache.

    Raises:
        FileNotFoundError: no such sample or repository. OSError: the hub cannot be reached. ValueError: the
            repository holds no artifact, or the reference is malformed.
    """
    text = str(reference)
    if text.startswith(_SAMPLE):
        return _find_sample(text)
    return _fetch(text) if text.startswith(_HUB) else Path(reference)


def _find_sample(reference: str) -> Path:
    name = reference.removeprefix(_SAMPLE)
    known = {source.parent.name: source.parent for source in sorted(SAMPLES.glob("*/artifact.json"))}
    if name not in known:
        expected = " or ".join(f"{_SAMPLE}{one}" for one in known)
        raise FileNotFoundError(f"{reference}: artifact: no such sample, expected {expected}")
    return known[name]


def _fetch(reference: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository = reference.removeprefix(_HUB)
    try:
        source = Path(hf_hub_download(repository, "artifact.json"))
        listed = read_json(source).get("files")
        if not isinstance(listed, dict):
            raise ValueError(f"{source}: files: found {listed!r}, expected the files of an artifact by path")
        for name in listed:
            hf_hub_download(repository, name)
    except HFValidationError:
        raise ValueError(f"{reference}: artifact: found {repository!r}, expected ORG/NAME") from None
    except LocalEntryNotFoundError as error:  # offline, and not in the cache
        reason = (str(error.__cause__ or error) or type(error).__name__).splitlines()[0]
        raise OSError(f"{reference}: artifact: could not be fetched from the hub ({reason}); download the repository "
                      f"elsewhere and give its folder") from None  # fmt: skip
    except EntryNotFoundError:
        raise ValueError(f"{reference}: artifact: the repository does not hold all files of an artifact at its root, "
                         f"expected artifact.json and the files that it lists") from None  # fmt: skip
    except HfHubHTTPError as error:
        raise FileNotFoundError(f"{reference}: artifact: {str(error).splitlines()[0]}") from None
    return source.parent
