from lavin_dit.planning.scaling import DOCUMENT, fill


def test_the_documents_tables_are_what_the_planning_model_says() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert document.count("| 3.4B | 512 |") == 2
    assert fill(document) == document, "run python -m lavin_dit.planning.scaling"
