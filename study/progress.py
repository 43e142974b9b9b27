"""What a sweep shows: a line per finished run, on a terminal also a bar, and a summary."""

import contextlib
import sys
import threading
import uuid

from distributed import Client
from tqdm import tqdm

from study.records import Record, Run
from study.statistics import spread


class Display:
    """A line per finished run; on a terminal also one bar over all epochs, with the time left.

    Epochs come as events on a topic of this sweep's own, so that what an interrupted one has left
    running elsewhere is never shown here.
    """

    def __init__(self, client: Client, todo: dict[str, Run]):
        self.client, self.todo = client, todo
        self.topic = f"mnist-{uuid.uuid4().hex}"
        self.epochs = dict.fromkeys(todo, 0)
        self.latest: dict[str, str] = {}  # of the runs that are training
        self.over: set[str] = set()
        self.lock = threading.Lock()
        total = sum(run.recipe.epochs for run in todo.values())
        self.bar = tqdm(
            total=total, unit="epoch", disable=not sys.stderr.isatty(), dynamic_ncols=True
        )

    def __enter__(self):
        self.client.subscribe_topic(self.topic, self._heard)
        return self

    def __exit__(self, *_):
        with contextlib.suppress(Exception):  # the cluster may be gone
            self.client.unsubscribe_topic(self.topic)
        self.bar.close()

    def _heard(self, event: tuple[float, dict]) -> None:
        message = event[1]
        key, accuracy = message["key"], message["accuracy"]
        with self.lock:  # this is Dask's thread
            if key in self.over:
                return
            self._move(key, message["epoch"])
            self.latest[key] = f"{self.todo[key].title} {accuracy:.2f} %"
            self.bar.set_postfix_str("; ".join(self.latest.values()))

    def _move(self, key: str, epoch: int) -> None:
        self.bar.update(epoch - self.epochs[key])  # back, where a run begins anew elsewhere
        self.epochs[key] = epoch

    def ended(self, key: str, failure: str | None) -> None:
        """Print how a run ended."""
        run = self.todo[key]
        with self.lock:
            self.over.add(key)
            self._move(key, run.recipe.epochs)  # a failed run has no epochs to come
            self.latest.pop(key, None)
        outcome = f"FAILED {failure}" if failure else f"{run.title} is trained"
        tqdm.write(f"{len(self.over):4d} of {len(self.todo)} runs: {outcome}", file=sys.stdout)
        sys.stdout.flush()


def print_summary(found: list[Record]) -> None:
    """A line per experiment: final accuracies over its seeds, and what a run took."""
    groups: dict[str, list[Record]] = {}
    for record in found:
        groups.setdefault(record.run.name, []).append(record)
    for name, group in groups.items():
        last = [record.history[-1] for record in group]
        split = "validation" if last[0].test_accuracy is None else "test"
        accuracies = spread([getattr(row, f"{split}_accuracy") for row in last])
        seconds = spread([record.seconds for record in group], "s")
        print(f"{name:24s} final {split} accuracy {accuracies}, a run {seconds.mean:.0f} s")
