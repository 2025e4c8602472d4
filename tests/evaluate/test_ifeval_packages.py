"""What ifeval needs beside lm-eval: each missing part is named in one line, and nothing is downloaded."""

import sys

import nltk
import pytest
from ifeval_packages import IFEVAL_PACKAGES, nltk_data, stub_package

from stages.common.errors import UserError
from stages.common.task_files import read_task


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ((), "needs the Python module (langdetect|immutabledict), which is missing"),
        (IFEVAL_PACKAGES, "needs nltk's data punkt_tab, which are missing; `python -m nltk.downloader punkt_tab`"),
    ],
)
def test_what_is_missing_is_named(there, words, tmp_path, monkeypatch):
    for name in [each for each in sys.modules if each.startswith("lm_eval.tasks.ifeval")]:
        monkeypatch.delitem(sys.modules, name)
    for name in IFEVAL_PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    for name in there:
        stub_package(monkeypatch, name)
    nltk_data(monkeypatch, found=False)
    monkeypatch.setattr(nltk, "download", lambda *_, **__: pytest.fail("nltk downloads"))
    (tmp_path / "ifeval.yaml").write_text("task: ifeval\nstock: ifeval/ifeval.yaml\n", encoding="utf-8")
    with pytest.raises(UserError, match=words):
        read_task(tmp_path / "ifeval.yaml")
