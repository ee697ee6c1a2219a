"""The doctor says what is there, and its exit status whether all is well."""

from __future__ import annotations

import json
from collections import namedtuple

import pytest

from poyo_ssl import doctor
from poyo_ssl.cli import main


def checks(capsys) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(capsys.readouterr().out)}


def test_a_healthy_installation_passes_and_names_what_it_has(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for name in (
        "poyo-ssl",
        "Python",
        "packages",
        "extra remote",
        "devices",
        "threads",
        "self-test",
    ):
        assert f"\n{name} " in f"\n{printed}", name
    assert "torch 2." in printed
    assert "a small decoder has accuracy" in printed


def test_a_missing_extra_is_said_and_no_problem(monkeypatch, capsys):
    pretend(monkeypatch, {"remfile": None})
    assert main(["doctor", "--quick", "--json"]) == 0
    found = checks(capsys)
    assert "self-test" not in found
    assert found["extra remote"]["found"] == (
        'not installed (pip install --upgrade "poyo-ssl[remote]"): '
        "reading files of DANDI without downloading them"
    )
    assert "remfile" not in found["packages"]["found"]


@pytest.mark.parametrize(
    ("package", "found", "reason"),
    [
        ("torch", None, "packages: torch is missing. Run: pip"),
        ("torch", "1.0", "packages: torch 1.0 is not >=2.10. Run: pip"),
        ("remfile", "0.0.1", "extra remote: remfile 0.0.1 is not >=0.1.15. Run: pip"),
    ],
)
def test_what_is_missing_or_too_old_fails(monkeypatch, capsys, package, found, reason):
    pretend(monkeypatch, {package: found})
    assert main(["doctor", "--quick"]) == 1
    printed = capsys.readouterr()
    assert reason in printed.err
    assert "! " + reason.split(": ", 1)[1] in printed.out


def pretend(monkeypatch, versions: dict[str, str | None]) -> None:
    """Other versions than those installed; None for none."""
    installed = doctor.version

    def version(name: str) -> str:
        if name not in versions:
            return installed(name)
        if versions[name] is None:
            raise doctor.PackageNotFoundError(name)
        return str(versions[name])

    monkeypatch.setattr(doctor, "version", version)


def test_a_full_disk_fails(monkeypatch, capsys):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(2**20))
    assert main(["doctor", "--quick"]) == 1
    assert "A run needs 1 GiB" in capsys.readouterr().err


def fails() -> tuple[float, float]:
    raise ArithmeticError("no kernel for this device.")


@pytest.mark.parametrize(
    ("fit", "reason"),
    [
        (fails, "self-test: ArithmeticError: no kernel for this device."),
        (lambda: (0.1, 0.125), "self-test: It learned nothing"),
    ],
)
def test_a_self_test_that_fails_says_how(monkeypatch, capsys, fit, reason):
    monkeypatch.setattr(doctor, "fit_small_decoder", fit)
    assert main(["doctor", "--json"]) == 1
    printed = capsys.readouterr()
    assert reason in printed.err
    assert json.loads(printed.out)[-1]["problem"] in printed.err
