"""Free recall is read as it was made, and everything wrong with a file is told at once."""

from pathlib import Path

import numpy as np
import pytest

from mechlab.errors import PromptError
from mechlab.prompts import read_free_recall, recall_sequences

HEADER = "subject,list,trial_type,position,item"
STUDY = ["s1,1,study,1,cat", "s1,1,study,2,hat", "s1,1,study,3,mat"]


def written(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "recall.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_recalls_become_serial_positions_and_intrusions_0(tmp_path: Path) -> None:
    recalled = ["s1,1,recall,2,dog", "s1,1,recall,1,mat", "s1,1,recall,3,cat", "s1,1,recall,4,mat"]
    other = ["s2,b,study,1,dog", "s2,b,study,2,mat", "s2,b,study,3,sun"]
    made = read_free_recall(written(tmp_path, *STUDY, *recalled, *other))
    assert made.dims == ("list", "output_position") and made.attrs["list_length"] == 3
    np.testing.assert_array_equal(made, [[3, 0, 1, 3], [-1, -1, -1, -1]])
    assert made.subject.values.tolist() == ["s1", "s2"]
    assert made.name == "recalls" and made["name"].values.tolist() == ["1", "b"]


def test_sessions_tell_lists_of_equal_name_apart(tmp_path: Path) -> None:
    rows = [f"s1,1,study,{i + 1},{word},{s}" for s in (1, 2) for i, word in enumerate("ab")]
    rows.append("s1,1,recall,1,b,2")
    made = read_free_recall(written(tmp_path, *rows, header=HEADER + ",Session"))
    np.testing.assert_array_equal(made, [[-1], [2]])


def test_everything_wrong_with_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    rows = [
        *STUDY,
        "s1,1,studied,1,cow",
        "s1,1,recall,first,cat",
        "s1,1,study,3,rat",
        "s2,1,study,1,cat",
        "s2,1,study,3,cat",
        "s3,1,recall,1,cat",
        "s4,,study,1,cat",
    ]
    with pytest.raises(PromptError) as caught:
        read_free_recall(written(tmp_path, *rows))
    for told in (
        "line 5: trial_type 'studied'",
        "line 6: position 'first'",
        "line 7: study position 3 of this list is filled twice",
        "subject s2, list 1: no study positions 2",
        "subject s2, list 1: studied twice: cat",
        "subject s3, list 1: recalled from, but nothing was studied",
        "line 11: no subject, list or item",
    ):
        assert told in str(caught.value)


def test_lists_of_several_lengths_need_a_choice(tmp_path: Path) -> None:
    short = ["s2,1,study,1,cat", "s2,1,study,2,hat", "s2,1,recall,1,hat"]
    path = written(tmp_path, *STUDY, *[row.replace("s1,1", "s1,2") for row in STUDY], *short)
    with pytest.raises(PromptError, match="subject s2, list 1: 2 items studied, 3 in most"):
        read_free_recall(path)
    np.testing.assert_array_equal(read_free_recall(path, list_length=2), [[2]])
    with pytest.raises(PromptError, match="no list has 7 items"):
        read_free_recall(path, list_length=7)


def test_missing_columns_and_entries_that_are_no_positions_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, "s1,1,study,cat", header="subject,list,kind,item")
    with pytest.raises(PromptError, match="lacks the columns trial_type, position"):
        read_free_recall(path)
    with pytest.raises(PromptError, match=r"list 1: \[4\]; list 2: \[-1, 1.5\]; 1 subjects for 3"):
        recall_sequences([[1], [4], [-1, 1.5]], list_length=3, subjects=["a"])  # type: ignore[list-item]
