import json

import torch

from study.digit import SURE
from study.experiments import FINALS
from study.runs import recorded
from study.store import STUDY
from tools import site


def test_every_network_of_the_study_is_listed_with_its_stages_and_examples(
    tmp_path, mnist, monkeypatch
):
    monkeypatch.setattr(site, "export", lambda run, path: {"edges": path.name})
    site.networks(tmp_path, mnist.test)
    content = json.loads((tmp_path / "nets.json").read_text())
    shown = filter(recorded(folders=[STUDY]).get, FINALS)  # those that have run
    finals = sorted(shown, key=lambda name: name != "wild-final")  # it first, the others as listed
    names = [*finals, *map(str, range(10, 0, -1))]
    assert [net["name"] for net in content["nets"]] == names
    assert content["sure"] == SURE
    assert all(net["stages"] == {"edges": f"{net['name']}.onnx"} for net in content["nets"])
    assert len(content["examples"]) == 20


def test_the_stages_of_a_network_come_out_beside_its_answer(mnist):
    shown = site.Shown(site.recorded(["9"], [site.STUDY])["9"][0]).eval()
    with torch.no_grad():
        found = dict(zip(shown.outputs, shown(mnist.test.images[:1, None].float()), strict=True))
    assert list(found) == ["logits", "probabilities", *shown.stages, "evidence"]
    places = found["evidence"].sum((2, 3))  # the evidence of all places adds up to the logits
    assert torch.allclose(places, found["logits"], atol=1e-4)
