"""Stand-ins for what lm-eval's ifeval imports, which lm-eval itself does not install."""

import sys
import types

import nltk

IFEVAL_PACKAGES = ("immutabledict", "langdetect")


def stub_package(monkeypatch, name: str) -> None:
    """Let `name` be a module with what ifeval takes from it when it is imported."""
    module = types.ModuleType(name)
    module.immutabledict = dict
    module.LangDetectException = ValueError
    monkeypatch.setitem(sys.modules, name, module)


def nltk_data(monkeypatch, found: bool) -> None:
    """Let nltk have all of its data, or none."""

    def find(name, *_, **__):
        if not found:
            raise LookupError(name)

    monkeypatch.setattr(nltk.data, "find", find)
