import contextlib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from models import MODELS
from study.processor import processor, processor_kind
from tests.conftest import subset
from tests.test_training import RICH, figures
from utils.device import Engine, best_engine, reference_engine
from utils.recipes import Recipe
from utils.training import fit, predict


@contextlib.contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64, "not put back"
    finally:
        torch.set_default_dtype(torch.float32)


SURROUNDINGS = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": float64,
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "another device": lambda: torch.device("meta"),
}


@pytest.fixture(scope="module")
def alone(small):
    """What three seeds give with nothing around them; and what the first predicts."""
    runs = [fit(MODELS[9], RICH, small, seed) for seed in range(3)]
    return runs, predict(runs[0].network, small.test.images, runs[0].statistics)


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_a_run_does_not_depend_on_what_the_caller_has_set(small, alone, name):
    (first, *_), expected = alone
    with SURROUNDINGS[name]():
        run = fit(MODELS[9], RICH, small, 0)
        predicted = predict(first.network, small.test.images, first.statistics)
        assert torch.is_autocast_enabled("cpu") == (name == "autocast")
        assert torch.is_inference_mode_enabled() == (name == "inference")
        assert torch.get_default_device().type == ("meta" if name == "another device" else "cpu")
        assert torch.is_grad_enabled() == (name not in ("no gradients", "inference"))
    assert figures(run) == figures(first)
    assert torch.equal(predicted, expected)
    assert predicted.dtype == torch.float32


def test_runs_and_predictions_in_three_threads_are_those_of_one(small, alone, request):
    runs, expected = alone
    start = threading.Barrier(3)

    def work(seed):
        start.wait()
        run = fit(MODELS[9], RICH, small, seed)
        arguments = runs[0].network, small.test.images, runs[0].statistics
        return run, [predict(*arguments) for _ in range(20)]

    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-5)  # threads that disturb each other shall meet
    with float64(), ThreadPoolExecutor(3) as pool:
        results = list(pool.map(work, range(3)))
    assert [figures(run) for run, _ in results] == [figures(run) for run in runs]
    assert all(torch.equal(p, expected) for _, many in results for p in many)
    assert figures(runs[0]) != figures(runs[1])


def test_engine_choice(monkeypatch):
    assert best_engine("cpu", "float32").precision == "float32"
    assert best_engine("cpu").fused
    assert not reference_engine().fused
    kind, _ = processor(Engine()).split(", ")  # as in a record: kind and name
    assert kind == processor_kind() != ""
    with pytest.raises(ValueError, match=r"^engine.precision: .*'bfloat16', not 'float16'$"):
        best_engine("cpu", precision="float16")
    for device in ("nonsense", "cuda:99"):
        monkeypatch.setenv("MNIST_DEVICE", device)
        with pytest.raises(ValueError, match=f"device '{device}' cannot be used here") as error:
            best_engine()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("layout", "fused"), [("contiguous", False), ("channels_last", False), ("channels_last", True)]
)
def test_engines_train_alike(mnist, precision, layout, fused):
    recipe = Recipe(learning_rate=0.05, batch_size=32, epochs=2, schedule="linear")
    engine = Engine("cpu", precision, torch.get_num_threads(), layout, fused)
    run = fit(MODELS[9], recipe, subset(mnist, 2_000, 500), 0, engine=engine)
    assert run.engine == engine
    assert run.history[-1].test_accuracy > 80
    assert run.history[-1].train_loss < run.history[0].train_loss / 2


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_accelerators_run_the_same_code(small, device):
    if not getattr(torch, device).is_available():
        pytest.skip(f"no {device} here")
    run = fit(MODELS[9], RICH, small, 0, engine=best_engine(device))
    assert next(run.network.parameters()).device.type == "cpu"
    assert len(run.history) == 2
