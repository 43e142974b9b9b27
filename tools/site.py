"""Build the site, the study as pages and one to draw on, into build/site: `python -m tools.site`.

Sphinx with myst-nb and sphinx-book-theme renders notebooks and Markdown as they are; the networks
are exported as ONNX from their records and run in the browser by onnxruntime-web, which npm brings.
"""

import argparse
import base64
import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from models import MODELS, SeparableConfig
from study.commands import status
from study.digit import SURE
from study.experiments import FINALS
from study.records import Record
from study.runs import recorded
from study.show.look import STAGES
from study.store import STUDY, load_network
from utils.data import ROOT, Split, load_mnist
from utils.evaluation import correct

SITE, SOURCE, NPM = (ROOT / "build" / name for name in ("site", "site-source", "npm"))
PAGES = "README.md LICENSE models.py notebooks/*.ipynb appendix/*.ipynb docs/* benchmarks/README.md"
PAGES = [*PAGES.split(), "data/README.md"]
MORE = "docs/plan docs/log docs/reliability benchmarks/README docs/running docs/house data/README"
FIRST = "wild-final"  # answers on the page to draw on; it is trained for other people's digits
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


class Shown(nn.Module):
    """A network with its stages' maps as outputs: [1, 1, 28, 28] pixels 0..255 in.

    Out come logits and probabilities [1, 10], the maps of every stage, and where the head pools,
    the evidence of each place of the last maps for each digit, [1, 10, H, W].
    """

    def __init__(self, run: Record):
        super().__init__()
        self.network = load_network(run)
        self.mean, self.std = run.statistics
        self.stages = [name for name, _ in self.network.named_children() if name != "head"]
        self.pooled = isinstance(self.network.head[0], nn.AvgPool2d)
        answers = "logits", "probabilities"
        self.outputs = [*answers, *self.stages, *(["evidence"] if self.pooled else [])]

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """All outputs, named in `outputs`."""
        x, maps = (pixels / 255 - self.mean) / self.std, []
        for name in self.stages:
            x = self.network.get_submodule(name)(x)
            maps.append(x)
        logits = self.network.head(x).flatten(1)
        evidence = []
        if self.pooled:
            places = x.shape[2] * x.shape[3]
            evidence = [nn.functional.conv2d(x, self.network.head[1].weight) / places]
        return logits, torch.softmax(logits, 1), *maps, *evidence


def export(run: Record, path: Path) -> dict[str, str]:
    """Write a recorded network as ONNX; returns its stages in words."""
    shown = Shown(run).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter will be replaced one day
        torch.onnx.export(
            shown,
            (torch.zeros(1, 1, 28, 28),),
            str(path),
            dynamo=False,
            input_names=["pixels"],
            output_names=shown.outputs,
        )
    return {stage: STAGES.get(stage, stage) for stage in shown.stages if "pool" not in stage}


def networks(folder: Path, test: Split) -> None:
    """Write seed 0 of the finals and the ten, their list, and the example digits.

    The digits are two of each class, and the one that most finals get wrong.
    """
    listed, wrong = [], torch.zeros(len(test), dtype=torch.int64)
    found = recorded(folders=[STUDY])
    for name in dict.fromkeys([FIRST, *filter(found.get, FINALS), *map(str, reversed(MODELS))]):
        run = found[name][0]
        stages = export(run, folder / f"{name}.onnx")
        # Of the evidence, in the image: the first pixel, and how many lie between two places.
        places = (0, 4) if isinstance(run.run.config, SeparableConfig) else (8, 2)
        net = {"name": name, "parameters": run.parameters, "stages": stages, "places": places}
        listed.append(net)
        if name in FINALS:
            wrong += ~correct(load_network(run), test.images, test.labels, run.statistics)
    chosen = [i for digit in range(10) for i in (test.labels == digit).nonzero()[:2, 0]]
    *examples, hard = (
        base64.b64encode(bytes(test.images[i].flatten().tolist())).decode()
        for i in [*chosen, wrong.argmax()]
    )
    label = int(test.labels[wrong.argmax()])
    content = {"nets": listed, "sure": SURE, "examples": examples, "hard": hard, "label": label}
    (folder / "nets.json").write_text(json.dumps(content), encoding="utf-8")


def runtime(folder: Path) -> bool:
    """Copy the pinned onnxruntime-web beside the networks; False where npm cannot install it."""
    NPM.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "site" / "package.json", NPM)
    try:
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(command, cwd=NPM, check=True, capture_output=True, timeout=900)
    except (OSError, subprocess.SubprocessError) as error:
        fault = f"npm cannot install onnxruntime-web ({type(error).__name__})"
        remedy = "install npm (on Debian: apt-get install npm), then `make site` again"
        print(f"{fault}: the page to draw on is left out; {remedy}", file=sys.stderr)
        return False
    for name in RUNTIME:
        shutil.copy(NPM / "node_modules" / "onnxruntime-web" / "dist" / name, folder)
    return True


def sources(draw: bool) -> None:
    """Gather what Sphinx reads, laid out as in the project, so that links stay what they are."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    for pattern in PAGES:
        for path in sorted(ROOT.glob(pattern)):
            target = SOURCE / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    for name in ("draw.md", "draw.html") if draw else ():
        shutil.copy(ROOT / "site" / name, SOURCE)
    front = SOURCE / "README.md"
    text = re.sub(r"<!--.*?-->\n?", "", front.read_text(encoding="utf-8"))
    front.write_text(text + contents(draw), encoding="utf-8")
    shutil.move(front, SOURCE / "index.md")
    for page in SOURCE.rglob("*.ipynb"):
        text = page.read_text(encoding="utf-8").replace("../README.md", "../index.md")
        page.write_text(text, encoding="utf-8")


def contents(draw: bool) -> str:
    """The table of contents, hidden at the end of the first page."""
    steps = sorted(f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("[!.]*.ipynb"))
    steps.append("appendix/beyond_the_ten")
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n{chr(10).join(names)}\n```\n"
        for caption, names in (("The study", ["draw"] * draw + steps), ("More", MORE.split()))
    )


def mend(site: Path) -> None:
    """Correct what axe finds in the theme's pages: wrong labels, a title outside a landmark."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        text = text.replace(' aria-label="Toggle hidden content"', "")
        text = re.sub(r'(<button class="btn search-[^>]*) aria-label="Search"', r"\1", text)
        logo = r'<div class="sidebar-primary-item">(\s*<a class="navbar-brand logo")'
        named = r'<div class="sidebar-primary-item" role="region" aria-label="Title">\1'
        page.write_text(re.sub(logo, named, text), encoding="utf-8")


def main() -> int:
    """Build the site; returns Sphinx's exit status."""
    argparse.ArgumentParser(prog="python -m tools.site", description=__doc__).parse_args()
    nets = SITE.parent / "site-extra" / "nets"
    shutil.rmtree(nets.parent, ignore_errors=True)
    nets.mkdir(parents=True)
    draw = runtime(nets)
    if draw:
        networks(nets, load_mnist().test)
    sources(draw)
    shutil.rmtree(SITE, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run([*command, "-c", "site", str(SOURCE), str(SITE)], cwd=ROOT)
    mend(SITE)
    if done.returncode == 0:
        print(f"The site: {SITE.relative_to(ROOT)}/index.html; look at it through a server:")
        print(f"  python3 -m http.server --directory {SITE.relative_to(ROOT)}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(status(main))
