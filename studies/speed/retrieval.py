"""How fast, and in how much memory, are retrieval scores? Against the published procedure.

python studies/speed/retrieval.py [--part time memory] [--threads 2] [--fraction 5]

Exit code: 0 when both ways attend to the same positions and write the same tokens, whatever the
times; 1 when not; 2 when the study could not be run.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from retrieval_baselines import Case, Published, llama_case, prompt_tokens, published
from speed_measure import alternate, give_back, machine, summary

import mechlab as ml

MIN_RATIO = 1.7
"""Wanted: so many times faster than the published procedure."""
MAX_MEMORY = 1.5
"""Wanted: at most so many times the peak memory of plain generation with a key-value cache."""
MAX_FLIPS = 1e-3
"""Share of (step, layer, head) whose most attended position may differ: two weights that are equal
to the last digits change places when sums are taken in another order."""
PARTS = ("time", "memory")
WAYS = ("mechlab", "plain")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.child:
        print(json.dumps(peak_memory(options.child, options)))
        return 0
    report: dict[str, Any] = {"machine": machine(), "options": {}}
    report["options"] = {name: str(value) for name, value in vars(options).items()}
    try:
        if "time" in options.part:
            report["time"] = measured_time(options)
        if "memory" in options.part:
            report["memory"] = measured_memory(options)
    except (ml.MechlabError, subprocess.CalledProcessError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    print(f"machine: {report['machine']}")
    return 0 if report.get("time", {}).get("agree", True) else 1


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = made.add_argument
    add("--part", nargs="+", choices=PARTS, default=list(PARTS))
    add("--threads", type=int, default=2, help="of torch, for all runs alike")
    add("--repeats", type=int, default=1, help="alternating repetitions of the timed runs")
    add("--lengths", type=int, nargs="+", default=[512, 1024, 1536, 2048], help="tokens per test")
    add("--depths", type=int, default=10)
    add("--steps", type=int, default=30, help="new tokens")
    add("--fraction", type=int, default=1, help="the baseline runs one depth in n, and is scaled")
    add("--tokens", type=int, default=16384, help="length at which memory is measured")
    add("--quick", action="store_true", help="a tiny model instead of the Llama shape, for tests")
    add("--json", type=Path, help="write everything that was measured")
    add("--child", choices=WAYS, help=argparse.SUPPRESS)
    return made


# --- time -----------------------------------------------------------------------------------------


def scores(case: Case, steps: int) -> Any:
    """Return mechlab's result: all tests, in one call."""
    return ml.retrieval_score(case.model, case.prompts, max_new_tokens=steps, dedupe=False)


def measured_time(options: argparse.Namespace) -> dict[str, Any]:
    """Time all tests both ways, and compare what comes out."""
    case = llama_case(options.lengths, options.depths, quick=options.quick)
    some = [
        index
        for index in range(len(case.prompts))
        if index % options.depths % options.fraction == options.fraction // 2
    ]
    first = llama_case([64], 1, quick=options.quick)
    ml.retrieval_score(case.model, first.prompts, max_new_tokens=1)  # proves the model, once
    published(first, prompt_tokens(first, 0, 64), 0, steps=1)
    ours: list[Any] = []
    theirs: list[list[Published]] = []

    def baseline() -> list[Published]:
        starts, totals = ours[0].needle_start.values, ours[0].tokens.values
        places = [(int(starts[index]), int(totals[index])) for index in some]
        return [
            published(case, prompt_tokens(case, start, total), start, options.steps)
            for start, total in places
        ]

    seconds = alternate(
        {
            "mechlab": lambda: ours.append(scores(case, options.steps)),
            "published": lambda: theirs.append(baseline()),
        },
        options.repeats,
    )
    scale = len(case.prompts) / len(some)
    ratios = [scale * b / a for a, b in zip(seconds["mechlab"], seconds["published"], strict=True)]
    found = {
        "tests": len(case.prompts),
        "tests_of_baseline": len(some),
        "lengths": options.lengths,
        "steps": options.steps,
        "seconds": {
            "mechlab": seconds["mechlab"],
            "published_timed": seconds["published"],
            "published": [scale * value for value in seconds["published"]],
        },
        "ratio": summary(ratios),
        **compared(ours[0], theirs[0], some),
    }
    found["met"] = found["ratio"]["median"] >= MIN_RATIO
    show_time(found)
    return found


def compared(ours: Any, theirs: list[Published], some: list[int]) -> dict[str, Any]:
    """Return how far positions, tokens and scores of the baseline's tests are the same."""
    flips, cells, written, largest = 0, 0, True, 0.0
    for index, one in zip(some, theirs, strict=True):
        mine = ours.isel(prompt=index)
        attended = mine.attended.values
        flips += int((attended != one.attended).sum())
        cells += attended.size
        written &= [str(token) for token in mine.token.values] == [f"w{t}" for t in one.tokens]
        largest = max(largest, float(np.abs(mine.score.values - one.score).max()))
    different = len(np.unique(np.stack([one.attended for one in theirs])))
    return {
        "positions_compared": cells,
        "positions_different": flips,
        "distinct_positions": different,
        "same_tokens": bool(written),
        "largest_score_difference": largest,
        "largest_score": float(max(one.score.max() for one in theirs)),
        "agree": bool(written) and flips <= MAX_FLIPS * cells,
    }


def show_time(found: dict[str, Any]) -> None:
    """Print the times."""
    seconds, ratio = found["seconds"], found["ratio"]
    part = f"{found['tests_of_baseline']} of {found['tests']} tests timed, and scaled"
    print(f"\n== {found['tests']} tests, {found['steps']} new tokens, lengths {found['lengths']}")
    print(f"  published procedure  {min(seconds['published']):9.2f} s  ({part})")
    print(f"  mechlab              {min(seconds['mechlab']):9.2f} s")
    print(
        f"  ratio                {ratio['median']:9.2f} median, {ratio['min']:.2f} smallest of ",
        end="",
    )
    print(f"{len(seconds['mechlab'])}; wanted {MIN_RATIO}: {_met(found)}")
    print(f"  positions that differ {found['positions_different']} of ", end="")
    print(
        f"{found['positions_compared']} (the heads attend to {found['distinct_positions']} ", end=""
    )
    print(f"different ones); same tokens: {found['same_tokens']}")


def _met(found: dict[str, Any]) -> str:
    return "met" if found["met"] else "not met"


# --- memory ---------------------------------------------------------------------------------------


def measured_memory(options: argparse.Namespace) -> dict[str, Any]:
    """Run each way in a process of its own, and compare how much each grew."""
    found: dict[str, Any] = {"tokens": options.tokens}
    for way in WAYS:
        command = [sys.executable, __file__, "--child", way, "--tokens", str(options.tokens)]
        command += ["--threads", str(options.threads), "--steps", str(options.steps)]
        command += ["--quick"] if options.quick else []
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        found[way] = json.loads(run.stdout.splitlines()[-1])
    found["ratio"] = found["mechlab"]["growth_mb"] / found["plain"]["growth_mb"]
    found["met"] = found["ratio"] <= MAX_MEMORY
    print(f"\n== memory at {options.tokens} tokens, {options.steps} new ones")
    for way in WAYS:
        part = found[way]
        print(f"  {way:20s} {part['growth_mb']:9.0f} MB above {part['before_mb']:.0f} MB")
    print(
        f"  ratio                {found['ratio']:9.2f}; wanted at most {MAX_MEMORY}: {_met(found)}"
    )
    return found


def peak_memory(way: str, options: argparse.Namespace) -> dict[str, float]:
    """Return by how much this process grows at most while one test runs, and where it stood."""
    case = llama_case([64, options.tokens], 1, quick=options.quick)
    run(way, case, 0, options.steps)  # first uses: kernels, registries, the proof
    give_back()
    before = psutil.Process().memory_info().rss
    run(way, case, 1, options.steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"before_mb": before / 1e6, "growth_mb": (peak - before) / 1e6}


def run(way: str, case: Case, which: int, steps: int) -> None:
    """Run one test: scores by mechlab, or plain greedy generation without reading anything."""
    test = case.prompts[which]
    if way == "mechlab":
        ml.retrieval_score(case.model, test, max_new_tokens=steps)
        return
    ids = torch.tensor([prompt_tokens(case, 0, test.length)])
    case.plain.set_attn_implementation("sdpa")
    with torch.no_grad():
        case.plain.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=steps,
            min_new_tokens=steps,
            do_sample=False,
            pad_token_id=0,
        )


if __name__ == "__main__":
    sys.exit(main())
