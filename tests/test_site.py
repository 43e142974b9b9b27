import json
import subprocess

from study.runs import recorded
from study.store import STUDY
from tools import site


def test_without_npm_the_page_to_draw_on_is_left_out_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(site, "NPM", tmp_path / "packages")
    monkeypatch.setattr(site, "ROOT", tmp_path)
    monkeypatch.setattr(site, "SITE", tmp_path / "build" / "site")
    monkeypatch.setattr(site, "SOURCE", tmp_path / "source")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "README.md").write_text("# A study\n")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "package.json").write_text("{}")
    built = []
    monkeypatch.setattr(site.subprocess, "run", lambda *a, **k: built.append(a) or _run(*a, **k))
    monkeypatch.setattr(site, "mend", lambda folder: None)
    assert site.main() == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("npm cannot bring onnxruntime-web (FileNotFoundError): the page to draw")
    assert len(built) == 2  # npm, and Sphinx all the same
    assert not (tmp_path / "source" / "draw.md").exists()
    assert "draw" not in (tmp_path / "source" / "index.md").read_text().split("toctree")[1]


def _run(command, **options):
    """npm as it is; Sphinx, which takes a minute, as if it had built."""
    if command[0] == "npm":
        return subprocess.Popen(command, cwd=options["cwd"])
    return subprocess.CompletedProcess(command, 0)


def test_a_record_without_weights_is_left_out_in_one_line(tmp_path, mnist, monkeypatch, capsys):
    found = recorded(["9", "1"], [STUDY])
    found["1"] = found["1"][1:]  # whose weights are not kept
    monkeypatch.setattr(site, "study", lambda folders: found)
    monkeypatch.setattr(site, "export", lambda run, path: ["edges"])
    site.networks(tmp_path, mnist)
    assert capsys.readouterr().err == "1 is left out: its weights are not kept\n"
    listed = json.loads((tmp_path / "nets.json").read_text())
    assert [net["name"] for net in listed["nets"]] == ["9"]
    assert len(listed["examples"]) == 20
