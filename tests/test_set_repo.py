"""One place holds the repository's address, and everything that repeats it agrees."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest

from course.teach import set_repo


def test_everything_agrees_with_pyproject():
    home = set_repo.current().removeprefix("https://github.com/")
    links = r"(?:colab\.research\.google\.com/github|https://github\.com)/([\w.-]+/[\w.-]+)"
    for path in set_repo.places():
        for found in re.findall(links, path.read_text(encoding="utf-8")):
            if "notebook" in str(path) or path.name == "pyproject.toml":
                assert found.rstrip(".") == home, path


@pytest.fixture
def copy(tmp_path):
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(set_repo.ROOT / name, tmp_path / name)
    shutil.copytree(set_repo.ROOT / "notebooks", tmp_path / "notebooks",
                    ignore=shutil.ignore_patterns(".ipynb_checkpoints"))  # fmt: skip
    return tmp_path


def test_rewrites_badges_and_setup_cells(copy, capsys):
    url = "https://github.com/a-school/faces.2027"
    assert set_repo.run(SimpleNamespace(url=url + ".git"), copy) == 0
    assert set_repo.current(copy) == url
    for path in (copy / "notebooks").glob("*.ipynb"):
        text = path.read_text(encoding="utf-8")
        json.loads(text)
        assert f"github/a-school/faces.2027/blob/main/notebooks/{path.name}" in text
        assert f'\\"COURSE_REPO\\", \\"{url}\\"' in text
        assert '\\"face-course\\"' in text, "the folder Colab clones into keeps its name"
    back = set_repo.current().removeprefix(set_repo.HOST)
    assert set_repo.run(SimpleNamespace(url=back), copy) == 0
    for path in set_repo.places(copy):
        original = set_repo.ROOT / path.relative_to(copy)
        assert path.read_bytes() == original.read_bytes()


def test_refuses_other_addresses(copy):
    before = (copy / "pyproject.toml").read_bytes()
    for url in (
        "face",
        "https://example.com/a/b",
        "https://github.com/a",
        "https://github.com/a/b/c",
        "github.com/me",
        "./..",
        "me/..",
    ):
        with pytest.raises(ValueError, match="is not of the form"):
            set_repo.run(SimpleNamespace(url=url), copy)
    assert (copy / "pyproject.toml").read_bytes() == before


@pytest.mark.parametrize("path", ["README.md", "notebooks/README.md"])
def test_how_to_publish_is_said(path):
    text = (set_repo.ROOT / path).read_text(encoding="utf-8")
    assert "`python -m course set-repo OWNER/NAME`" in text


@pytest.mark.parametrize("name", ["a-school/faces", "octo_acme/faces"])
def test_owner_and_name_will_do(name, copy):
    assert set_repo.run(SimpleNamespace(url=name), copy) == 0
    assert set_repo.current(copy) == f"https://github.com/{name}"
