from pathlib import Path

from components.confusion import read_confusion


def write(folder: Path, name: str, rows: list[str]) -> None:
    (folder / name).write_text("\n".join(["truth,prediction,pixels", *rows]) + "\n")


def test_rows_are_true_classes_and_columns_what_the_model_saw(tmp_path: Path) -> None:
    write(tmp_path, "confusion_semantic.csv", ["sky,sky,5", "sky,box,1", "box,sky,0", "box,box,7"])
    confusion = read_confusion(tmp_path)
    assert confusion
    assert confusion.classes == ("sky", "box")
    assert confusion.counts == [[5, 1], [0, 7]]


def test_semantic_segmentation_comes_before_other_tasks(tmp_path: Path) -> None:
    write(tmp_path, "confusion_edges.csv", ["no,no,1"])
    write(tmp_path, "confusion_semantic.csv", ["sky,sky,5"])
    confusion = read_confusion(tmp_path)
    assert confusion
    assert confusion.classes == ("sky",)


def test_an_evaluation_without_classes_has_none(tmp_path: Path) -> None:
    assert read_confusion(tmp_path) is None
