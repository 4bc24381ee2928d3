import os
from pathlib import Path

import pytest

from mechlab import organisms
from mechlab.organisms.table_check import check_table

DATA = os.environ.get("MECHLAB_DATA")


@pytest.mark.skipif(not DATA, reason="MECHLAB_DATA is unset: no public tables to compare with")
def test_table_agrees_with_the_public_tables_or_says_why_not() -> None:
    found = check_table(Path(str(DATA)))
    assert found.differ == []
    assert len(found.agree) > 200
    assert found.counts() == organisms.card("atlas")["country table"]


def test_a_wrong_cell_is_found(tmp_path: Path) -> None:
    capitals = tmp_path / "world_capitals"
    capitals.mkdir()
    rows = '"country","capital","type"\n"France","Lyon","x"\n"Peru","Lima","x"\n'
    (capitals / "world_capitals.csv").write_text(rows)
    relations = tmp_path / "lre" / "factual"
    relations.mkdir(parents=True)
    for name in ("country_capital_city", "country_currency", "country_language"):
        (relations / f"{name}.json").write_text('{"samples": []}')
    found = check_table(tmp_path)
    assert found.differ == [("France", "capital", "Paris", "Lyon")]
    assert found.agree == [("Peru", "capital")]
    assert len(found.unchecked) == 197 * 4 - 2
