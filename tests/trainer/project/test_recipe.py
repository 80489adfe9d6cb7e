"""The bundles that come with this repository: complete, consistent, and their train.py as configured."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from common import resources
from trainer.errors import TrainerError
from trainer.project import bundle, hyperparameters, protocol, recipe


def test_the_names() -> None:
    assert recipe.names() == ["armlx", "smoke"]
    with pytest.raises(TrainerError, match="no bundle named 'nothing'") as refusal:
        recipe.load("nothing")
    assert "armlx, smoke" in refusal.value.cure
    with pytest.raises(TrainerError):
        recipe.load("../smoke")


@pytest.mark.parametrize("name", recipe.names())
def test_a_bundle_fits_its_own_protocol(name: str) -> None:
    found = recipe.load(name)
    assert {"prepare.py", "protocol.json", "pyproject.toml", "train.py", "uv.lock"} <= found.files.keys()
    spec = protocol.parse(found.files["protocol.json"])
    assert bundle.is_mutable("train.py", spec.surface)
    assert not bundle.is_mutable("prepare.py", spec.surface)
    assert not bundle.is_mutable("uv.lock", spec.surface)
    assert found.files["prepare.py"] == (resources.ROOT / "prepare.py").read_bytes()
    assert bundle.read_archive(bundle.pack(found.files)).files == found.files
    assert 1 <= len(found.terms.token_symbol.encode()) <= 10
    assert len(found.terms.token_name.encode()) <= 32
    assert found.terms.base_price + found.terms.slope > 0
    assert found.terms.baseline_runs >= 3
    project = tomllib.loads(found.files["pyproject.toml"].decode())["project"]
    locked = {package["name"] for package in tomllib.loads(found.files["uv.lock"].decode())["package"]}
    assert {"mlx", "numpy", "pyarrow", "tokenizers"} <= locked
    assert project["requires-python"]


@pytest.mark.parametrize("name", recipe.names())
def test_constants_are_set_and_nothing_else_is_touched(name: str) -> None:
    document = tomllib.loads((resources.CONFIGS / name / "bundle.toml").read_text())
    source = recipe.load(name).files["train.py"].decode()
    found = {constant.name: constant.value for constant in hyperparameters.find(source)}
    assert {key: found[key] for key in document["hyperparameters"]} == document["hyperparameters"]
    original = (resources.ROOT / "trainer" / "train.py").read_text()
    assert len(source.splitlines()) == len(original.splitlines())
    differing = [a for a, b in zip(source.splitlines(), original.splitlines(), strict=True) if a != b]
    assert len(differing) <= len(document["hyperparameters"])


def write(folder: Path, text: str) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "bundle.toml").write_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '[files]\n"train.py" = "absent.py"\n[hyperparameters]\n[data]\narguments = []\n[project]\n',
        '[files]\n"train.py" = "trainer/train.py"\n[hyperparameters]\n[data]\n[project]\n',
        '[files]\n"train.py" = "trainer/train.py"\n[hyperparameters]\n[data]\narguments = []\n[project]\nwrong = 1\n',
        '[files]\n"train.py" = "trainer/train.py"\n[hyperparameters]\nABSENT = 1\n[data]\narguments = []\n[project]\n',
        "this is not toml",
    ],
)
def test_a_recipe_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(recipe, "CONFIGS", tmp_path)
    write(tmp_path, text)
    with pytest.raises(TrainerError) as refusal:
        recipe.load("mine")
    assert json.dumps(str(refusal.value))  # one text
    assert refusal.value.cure
