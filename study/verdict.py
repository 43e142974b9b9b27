"""Every recorded run against the brief: `python -m study.verdict [--verify]`."""

import argparse
import sys
from pathlib import Path

from study.commands import status
from study.records import Record
from study.runs import named_rightly
from study.statistics import verdict
from study.store import load_all, verify
from study.thresholds import MAX_EPOCHS, PARAMETER_LIMIT, TARGET_ACCURACY
from utils.data import load_mnist


def as_text(record: Record) -> str:
    """One run as one row of the printed table."""
    held = verdict(record)
    outcome = "met" if held.met else "not met: " + ", ".join(held.missing)
    return (
        f"{record.run.name:18s} {record.run.seed:4d}  {record.parameters:10,d}  "
        f"{len(record.history):6d}  {record.train_accuracy[-1]:7.2f}  "
        f"{record.test_accuracy[-1]:6.2f}  {held.worst_of_last:18.2f}  {outcome}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m study.verdict", description=__doc__)
    parser.add_argument("--verify", action="store_true", help="measure kept networks again, first")
    folders = "folders of records; default: runs and records"
    parser.add_argument("--records", type=Path, nargs="+", help=folders)
    options = parser.parse_args(arguments)
    data, found, strangers = load_mnist(), [], 0
    for record in load_all(options.records).values():
        if not named_rightly(record.run):
            strangers += 1
            fault = f"{record.path} is left out: it says that it is of {record.run.name}"
            remedy = "whose network or recipe is another today; give the run a name of its own"
            print(f"{fault}, {remedy}", file=sys.stderr)
        # The brief is about these data, and about accuracy on the test set, shut for trials.
        elif record.run.measure_test and record.data_checksum == data.checksum:
            found.append(record)
    if not found and not strangers:
        print("no runs are recorded on these data; train, e.g. with 'make run'", file=sys.stderr)
    if not found:
        return 1
    looked = "weights were not looked at: --verify does"
    if options.verify:
        again = sum(verify(record, data) for record in found)
        looked = f"{again} networks whose weights are kept were measured again and agree"
    print(
        f"The brief: test accuracy of {TARGET_ACCURACY} % or more in each of the last five "
        f"epochs, {MAX_EPOCHS} epochs or fewer, under {PARAMETER_LIMIT:,} parameters.\n\n"
        "experiment         seed  parameters  epochs  train %  test %  worst of last five  brief"
    )
    print(*map(as_text, found), sep="\n")
    print(f"\nrecords that hold: {len(found)}; {looked}")
    return bool(strangers)


if __name__ == "__main__":
    sys.exit(status(main))
