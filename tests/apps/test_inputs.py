"""What counts as an input, what it is called, and what is said where there is none."""

from pathlib import Path

import pytest

from mobileclip_dense.apps.inputs import find_inputs


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(arguments: list[str], out: Path) -> list[str]:
    inputs, problems = find_inputs(arguments, out)
    assert not problems
    return [one.name for one in inputs]


def test_a_folder_stands_for_its_images_and_those_of_its_subfolders_in_order(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("b.JPG", "a.png", "sub/c.webp", "notes.txt", "film.mp4", ".hidden.jpg")))
    touch(tmp_path / ".thumbnails" / "d.jpg")
    assert names([str(tmp_path)], tmp_path / "out") == ["a", "b", "sub/c"]


def test_a_pattern_takes_videos_too_and_names_results_from_its_fixed_part(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("x/1/a.jpg", "x/2/a.jpg", "x/2/b.mp4", "x/2/b.txt")))
    inputs, _ = find_inputs([f"{tmp_path}/x/*/*"], tmp_path / "out")
    assert [(one.name, one.kind) for one in inputs] == [("1/a", "image"), ("2/a", "image"), ("2/b", "video")]
    assert names([f"{tmp_path}/**/b.*"], tmp_path / "out") == ["x/2/b"]


def test_results_lying_within_the_folder_are_not_taken_for_inputs(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg", tmp_path / "pictures" / "a-segment.png")
    assert names([str(tmp_path)], tmp_path / "pictures") == ["a"]
    assert names([f"{tmp_path}/**/a*"], tmp_path / "pictures") == ["a"]


def test_inputs_that_lie_where_results_go_are_refused_as_that(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "a.jpg")
    arguments = [str(tmp_path / "in"), f"{tmp_path}/in/*.jpg"]
    for out in (tmp_path, tmp_path / "in"):
        inputs, problems = find_inputs(arguments, out)
        assert not inputs
        assert list(problems) == arguments
        assert all("lies in --out" in problem for problem in problems.values())


def test_no_two_inputs_share_a_name_and_no_file_comes_twice(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("x/a.jpg", "x/a.png", "y/A.jpg", "y/a-2.jpg")))
    arguments = [str(tmp_path / "x"), str(tmp_path / "x" / "a.jpg"), str(tmp_path / "y" / "A.jpg"),
                 str(tmp_path / "y" / "a-2.jpg")]  # fmt: skip
    found = names(arguments, tmp_path / "out")
    assert len(found) == 4
    assert len({name.lower() for name in found}) == 4


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    touch(tmp_path / "[1].jpg", tmp_path / "1.jpg")
    assert names([str(tmp_path / "[1].jpg")], tmp_path / "out") == ["[1]"]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("{}/empty", "empty: found no images in this folder, expected .jpg"),
        ("{}/*.jpg", "*.jpg: no image or video matches this pattern"),
        ("{}/gone.jpg", "gone.jpg: no such file; expected an image, a video, a folder, a pattern or camera:0"),
        ("camera:front", "camera:front: camera: found 'front', expected its number"),
        ("camera:-1", "camera: found '-1', expected its number"),
        ("camera:99999999999999999999", "expected its number, such as camera:0, at most camera:99"),
        ("{}/" + "long" * 80 + ".jpg", "File name too long"),
    ],
)
def test_an_argument_that_stands_for_nothing_is_named_and_the_others_stay(
    tmp_path: Path, argument: str, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "photo.png")
    inputs, problems = find_inputs([argument.format(tmp_path), str(tmp_path / "photo.png"), "camera:3"],
                                   tmp_path / "out")  # fmt: skip
    assert [one.name for one in inputs] == ["photo", "camera-3"]
    assert len(problems) == 1
    assert words in problems[argument.format(tmp_path)]
