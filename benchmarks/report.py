"""What the benchmark found, in words and tables; the goals stand beside the figures."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True)
class Goal:
    """An upper limit on a figure of the results."""

    what: str
    limit: float
    figure: Callable[[dict], float | None]  # None: not measured, or never reached
    form: str = "{:.2f}"

    def line(self, results: dict) -> str:
        """One row of the table of goals."""
        value = self.figure(results)
        limit = self.form.format(self.limit)
        if value is None:
            return f"| {self.what} | at most {limit} | none | not measured or not reached |"
        met = "met" if value <= self.limit else "**not met**"
        return f"| {self.what} | at most {limit} | {self.form.format(value)} | {met} |"


def _of_model_9(key: str) -> Callable[[dict], float]:
    return lambda results: results["models"]["9"][key]


def _highest(key: str) -> Callable[[dict], float]:
    return lambda results: max(figures[key] for figures in results["models"].values())


def _gpu(epochs: str) -> Callable[[dict], float | None]:
    return lambda results: (results["gpu_s"] or {}).get(epochs)


GOALS = [
    Goal("model 9, one run on all cores: share of the conventional", 1 / 5,
         _of_model_9("run_ratio"), "{:.3f}"),
    Goal("model 9, a sweep, per run: share of the conventional", 1 / 8,
         _of_model_9("sweep_ratio"), "{:.3f}"),
    Goal("`make run`, minutes", 15, lambda r: r["make_run_minutes"], "{:.1f}"),
    Goal("peak memory of a run, MB", 1500, _highest("peak_mb"), "{:.0f}"),
    Goal("from the imports to the first step, seconds", 6, _highest("startup_s"), "{:.1f}"),
    Goal("the same with nothing compiled yet, seconds", 6, lambda r: r["startup_cold_s"], "{:.1f}"),
    Goal("time to 99.4 % on all cores, seconds", 120, lambda r: r["time_to_brief_s"], "{:.0f}"),
    Goal("15 epochs of model 9 on one GPU, seconds", 3, _gpu("15"), "{:.1f}"),
    Goal("5 epochs of model 9 on one GPU, seconds", 1, _gpu("5"), "{:.1f}"),
]  # fmt: skip


def load() -> dict | None:
    """The stored results, or None."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else None


def goals_table(results: dict) -> str:
    """Markdown: each goal, the figure, and whether it is met."""
    lines = ["| | goal | measured | |", "|---|--:|--:|---|"]
    return "\n".join(lines + [goal.line(results) for goal in GOALS])


def epochs_table(results: dict) -> str:
    """Markdown: seconds of a training epoch by model and way."""
    lines = [
        "| model | conventional, s | one run, s | ratio | a sweep, s per run | ratio "
        "| one run in float32, s | peak memory, MB | share of matmul peak |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for model, f in results["models"].items():
        lines.append(
            f"| {model} | {f['conventional_s']:.1f} | {f['run_s']:.1f} | {f['run_ratio']:.2f} "
            f"| {f['sweep_s']:.1f} | {f['sweep_ratio']:.2f} | {f['run_float32_s']:.1f} "
            f"| {f['peak_mb']:.0f} | {100 * f['peak_share']:.1f} % |"
        )
    return "\n".join(lines)


def spread_table(results: dict) -> str:
    """Markdown: median and extremes of every way, seconds of a training epoch."""
    names = {
        "workers_0": "conventional, 0 workers",
        "workers_2": "conventional, 2 workers",
        "run": "one run, all cores",
        "run_float32": "one run, float32",
        "sweep": "sweep, per run",
        "one_thread": "one run, one thread",
    }
    models = results["models"]
    lines = [
        "| | " + " | ".join(f"model {model}" for model in models) + " |",
        "|---|" + "--:|" * len(models),
    ]
    for key, name in names.items():
        cells = [_span(figures["rounds"][key]) for figures in models.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _span(values: list[float]) -> str:
    middle = sorted(values)[len(values) // 2]
    return f"{middle:.2f} ({min(values):.2f} to {max(values):.2f})"


def scaling_table(results: dict) -> str:
    """Markdown: four short runs on one worker and on two."""
    lines = ["| | 1 worker, s | 2 workers, s | speed-up |", "|---|--:|--:|--:|"]
    for backend, took in results["scaling"].items():
        one, two = took["1"], took["2"]
        lines.append(f"| {backend} | {one:.0f} | {two:.0f} | {one / two:.2f} |")
    return "\n".join(lines)


def machine_text(results: dict) -> str:
    """Where and when it was measured."""
    machine, versions = results["machine"], results["versions"]
    peak = ", ".join(f"{gflops:.0f} in {name}" for name, gflops in machine["gflops"].items())
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Measured on {results['date']} with {machine['cores']} cores ({machine['processor']}), "
        f"matmul peak {peak} GFLOP/s; {packages}; {results['rounds']} interleaved rounds of "
        f"{results['conventional_steps']} conventional steps and {results['steps']} of ours, "
        "medians."
    )


def thousand_runs_text(results: dict) -> str:
    """What 1,000 runs of model 9 on 64 workers would take, from this machine's figures."""
    runs, workers, epochs = 1_000, 64, 15
    alone = results["models"]["9"]["one_thread_s"] * epochs / 60
    waves = -(-runs // workers)
    data = 47.04 + 7.84  # MB: 60,000 and 10,000 images of 784 bytes
    return (
        f"A run of model 9 takes one undisturbed thread of this machine {alone:.1f} minutes of "
        f"training. {runs:,} runs are {runs * alone / 60:.0f} core-hours, on {workers} workers "
        f"{waves} waves: {waves * alone:.0f} minutes, against {runs / workers * alone:.0f} if runs "
        f"could be divided, so the last wave costs "
        f"{100 * (waves * workers / runs - 1):.0f} %. The images, {data:.0f} MB, go once to each "
        f"worker: {workers * data / 1000:.1f} GB in all, "
        f"{workers * data * 8 / 1000 / 60:.1f} minutes through one link of 1 Gbit/s if none is "
        f"passed on from worker to worker. Back come {runs * epochs:,} messages of one epoch, some "
        f"{runs * epochs / (waves * alone * 60):.0f} a second, and {runs:,} records of some 50 kB."
    )


def blocks() -> dict[str, str]:
    """The generated blocks of README.md and benchmarks/README.md; empty before the first run."""
    results = load()
    parts = {
        "machine": machine_text,
        "epochs": epochs_table,
        "goals": goals_table,
        "rounds": spread_table,
        "scaling": scaling_table,
        "thousand": thousand_runs_text,
    }
    return {name: part(results) if results else "" for name, part in parts.items()}
