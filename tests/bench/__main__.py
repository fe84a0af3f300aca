"""Measures Backthen beside restic and borg, where they are installed: the same work on the same files, in the same run.

Only the ratios within one run mean anything, and only on a machine that does nothing else. Run it as `ci/bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.chart import draw_chart
from tests.bench.corpus import FULL, QUICK, Corpus, count, make_corpus
from tests.bench.mounted import measure_mount
from tests.bench.programs import Program, find_programs
from tests.bench.results import Results, document, tables
from tests.bench.running import StepFailed, Taken, bench_of
from tests.bench.steps import STEPS, measure_files


def main() -> int:
    """Measure, and print what was measured; 1 when a program failed to do what it was asked for."""
    arguments = _parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left behind
    programs = find_programs()
    results = {name: Results(program.version) for name, program in programs.items()}
    with _corpus(arguments.corpus, full=arguments.full) as corpus:
        about = _about(corpus, arguments.runs)
        for run in range(arguments.runs):
            for name, program in programs.items():
                _say(f"{name}, run {run + 1} of {arguments.runs}")
                _measure(program, corpus, results[name])
    print(f"{about['machine']}; median of {arguments.runs}; {_contents(about)}")
    for line in tables(results):
        print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps(document(results, about), indent=1) + "\n")
    if arguments.chart:
        arguments.chart.write_text(
            draw_chart(results, f"{', '.join(programs)}: the same work on {about['processors']} cores")
        )
    failures = [failure for one in results.values() for failure in one.failures]
    for failure in failures:
        _say(f"failed: {failure}")
    return 1 if failures else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ci/bench", description=__doc__)
    parser.add_argument(
        "--corpus", type=Path, metavar="DIR", help="save what is in DIR; what is missing of it is made, and stays"
    )
    parser.add_argument("--full", action="store_true", help="make a corpus of 4 GiB instead of a small one")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="take the median of N runs (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw a chart as SVG into FILE")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    return arguments


@contextmanager
def _corpus(folder: Path | None, *, full: bool) -> Iterator[Corpus]:
    sizes = FULL if full else QUICK
    if folder is not None:
        yield make_corpus(folder.absolute(), sizes)
        return
    with tempfile.TemporaryDirectory(prefix="backthen-corpus.") as made:
        yield make_corpus(Path(made), sizes)


def _measure(program: Program, corpus: Corpus, results: Results) -> None:
    """One run; where a step fails the rest of it is left out."""

    def record(step: str, taken: Taken) -> None:
        results.record(step, taken)
        if taken.wall_s is not None:
            _say(f"  {STEPS[step]}: {taken.wall_s:.3f} s")

    try:
        with bench_of(program) as bench:
            measure_files(bench, corpus, record)
            measure_mount(bench, corpus, record)
    except StepFailed as failure:
        results.failures.append(str(failure))
        _say(f"  failed: {failure}")


def _about(corpus: Corpus, runs: int) -> dict[str, object]:
    folders = {"small": corpus.small, "compressible": corpus.compressible, "incompressible": corpus.incompressible}
    return {
        "machine": f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "processors": os.cpu_count(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "runs": runs,
        "corpus": {name: dict(zip(("names", "bytes"), count(folder), strict=True)) for name, folder in folders.items()},
    }


def _contents(about: dict[str, object]) -> str:
    corpus = about["corpus"]
    assert isinstance(corpus, dict)
    return ", ".join(f"{name}: {held['names']:,} names, {held['bytes'] / 1e6:,.0f} MB" for name, held in corpus.items())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
