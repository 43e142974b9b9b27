"""Every recorded run against the brief: `python -m study.verdict [--json]`."""

import argparse
import json
import sys
from pathlib import Path

from study.commands import status
from study.records import Record
from study.runs import named_rightly
from study.statistics import verdict
from study.store import load_all, verify
from study.thresholds import MAX_EPOCHS, PARAMETER_LIMIT, TARGET_ACCURACY
from utils.data import load_mnist


def as_json(record: Record) -> str:
    """One run as one line of JSON; accuracies in percent, one per epoch."""
    fields = {
        "experiment": record.run.name,
        "model": record.run.model,
        "seed": record.run.seed,
        "parameters": record.parameters,
        "epochs": len(record.history),
        "test_accuracy": record.test_accuracy,
        "train_accuracy": record.train_accuracy,
        "met": verdict(record).met,
    }
    return json.dumps(fields)


def as_text(record: Record) -> str:
    """One run as one row of the printed table."""
    held = verdict(record)
    outcome = "met" if held.met else "not met: " + ", ".join(held.missing)
    return (
        f"{record.run.name:18s} {record.run.seed:4d}  {record.parameters:10,d}  "
        f"{len(record.history):6d}  {record.train_accuracy[-1]:7.2f}  "
        f"{record.test_accuracy[-1]:6.2f}  {held.worst_of_last:18.2f}  {outcome}"
    )
