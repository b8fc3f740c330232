import json
from pathlib import Path

import pytest

from benchmarks.data_path import DataPathConfig, measure_data_path


def test_both_ways_of_loading_are_timed_and_give_the_same_pictures(tmp_path: Path) -> None:
    config = DataPathConfig(shards=tmp_path / "shards", out=tmp_path / "result.json", image_size_px=64, batch_size=4,
                            batches=2, num_scenes=6)  # fmt: skip
    result = measure_data_path(config)
    assert json.loads(config.out.read_text()) == result
    assert result["largest_grey_level_difference"] == 0
    rates = result["samples_per_s"]
    assert result["speedup"] == pytest.approx(rates["ours"] / rates["plain"])
    assert result["ms_per_sample"]["plain"] == pytest.approx(1e3 / rates["plain"])
    with pytest.raises(FileExistsError, match="--force"):
        measure_data_path(config)
