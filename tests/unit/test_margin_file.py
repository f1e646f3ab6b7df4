"""`thalweg margin`: what the page shows, and what is refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from solver.cli import app

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "account.json"

Change = Callable[[dict[str, Any]], object]


def test_the_page_shows_what_it_says() -> None:
    text = (ROOT / "docs" / "margin.md").read_text(encoding="utf-8")
    shown, batch = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    solved = CliRunner().invoke(app, ["solve", str(EXAMPLE.with_name("margin.json"))])
    assert solved.exit_code == 0 and batch in solved.stdout
    result = CliRunner().invoke(app, ["margin", str(EXAMPLE)])
    assert (result.exit_code, result.stdout) == (0, shown)


def test_the_report_is_one_document() -> None:
    result = CliRunner().invoke(app, ["margin", str(EXAMPLE), "--json"])
    report = json.loads(result.stdout)
    assert report["worst"] == "spot -18 %, vol up"
    assert len(report["pnl"]) == 31
    assert report["initial"] == pytest.approx(57_716.34, abs=0.01)
    assert set(report["addOns"]) == {"perpetuals", "short options", "haircuts", "confidence"}


def changed(change: Change, folder: Path) -> Path:
    document = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    change(document)
    file = folder / "account.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def test_an_account_without_its_margin_ends_with_one(tmp_path: Path) -> None:
    file = changed(lambda found: found["account"].update(cash=-40_000.0), tmp_path)
    result = CliRunner().invoke(app, ["margin", str(file)])
    assert result.exit_code == 1
    assert "beyond initial margin      -2,283.66" in result.stdout


@pytest.mark.parametrize(
    ("change", "code", "pointer"),
    [
        (lambda f: f.update(format="other"), "wrong_format", "/format"),
        (lambda f: f["market"].pop("spot"), "invalid_field", "/market/spot"),
        (lambda f: f["market"].update(spot=0.0), "no_price", "/market/spot"),
        (lambda f: f["market"].update(perp=0.0), "no_price", "/market/perp"),
        (lambda f: f["market"].update(colour="red"), "invalid_field", "/market/colour"),
        (lambda f: f["market"]["expiries"][2].update(seconds=0.0), "expired_option",
         "/account/options/0"),
        (lambda f: f["market"]["expiries"][2].update(forward=-1.0), "no_price",
         "/market/expiries/2"),
        (lambda f: f["account"]["options"][1].update(expiry=9), "unknown_instrument",
         "/account/options/1"),
        (lambda f: f["account"]["options"][1].update(vol=0.0), "bad_volatility",
         "/account/options/1/vol"),
        (lambda f: f["account"]["options"][1].update(vol=-0.5), "bad_volatility",
         "/account/options/1/vol"),
        (lambda f: f["account"]["options"][1].update(amount=1e300), "too_large",
         "/account/options/1/amount"),
        (lambda f: f["account"]["collateral"][0].update(amount=-1.0), "no_price",
         "/account/collateral/0"),
        (lambda f: f["rule"].update(scenarios=[]), "bad_rule", "/rule/scenarios"),
        (lambda f: f["account"].update(cash="much"), "invalid_field", "/account/cash"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(
    change: Change, code: str, pointer: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, ["margin", str(changed(change, tmp_path)), "--json"])
    assert result.exit_code == 2
    said = json.loads(result.stdout)
    assert (said["code"], said["pointer"]) == (code, pointer)


def test_accounts_of_an_instance_are_checked_and_their_answers_too(tmp_path: Path) -> None:
    instance = EXAMPLE.with_name("margin.json")
    answer = json.loads(CliRunner().invoke(app, ["solve", str(instance), "--json"]).stdout)

    def verdict(said: dict[str, Any]) -> dict[str, Any]:
        file = tmp_path / "answer.json"
        file.write_text(json.dumps(said), encoding="utf-8")
        words = ["verify-solution", str(instance), str(file), "--json"]
        found: dict[str, Any] = json.loads(CliRunner().invoke(app, words).stdout)
        return found

    assert verdict(answer)["accepted"]
    rows = answer["certificate"]["rows"]
    name = next(row for row in rows if row.startswith("health"))
    for change, code in (
        ({"most": "1e-9"}, "false_row"),
        ({"coefficients": {"0x00": "1"}}, "unknown_row"),
    ):
        changed = answer | {"certificate": answer["certificate"] | {"rows": rows | {
            name: rows[name] | change}}}  # fmt: skip
        found = verdict(changed)
        assert not found["accepted"]
        assert code in {violation["code"] for violation in found["violations"]}


@pytest.mark.parametrize(
    ("change", "code", "pointer"),
    [
        (lambda m: m["rule"].update(twoSided=False), "bad_rule", "/margin/rule/twoSided"),
        (lambda m: m["rule"].update(scenarios=[]), "bad_rule", "/margin/rule/scenarios"),
        (lambda m: m["market"].update(spot=0.0), "no_price", "/margin/market/spot"),
        (lambda m: m["market"].update(perp=0.0), "no_price", "/margin/market/perp"),
        (
            lambda m: m["assets"]["1:0x" + "00" * 19 + "02"].update(price=-1.0),
            "no_price",
            "/margin/assets/1:0x" + "00" * 19 + "02",
        ),
        (
            lambda m: m["market"]["expiries"][0].update(seconds=0.0),
            "expired_option",
            "/margin/assets/1:0x" + "00" * 19 + "04",
        ),
        (
            lambda m: m["assets"]["1:0x" + "00" * 19 + "05"].update(vol=-0.1),
            "bad_volatility",
            "/margin/assets/1:0x" + "00" * 19 + "05/vol",
        ),
        (
            lambda m: m["accounts"]["0x" + "0a" * 32]["amounts"].update({"1:0x" + "ee" * 20: "1"}),
            "unknown_instrument",
            "/margin/accounts/0x" + "0a" * 32 + "/amounts/1:0x" + "ee" * 20,
        ),
        (
            lambda m: m["accounts"]["0x" + "0a" * 32]["amounts"].update(
                {"1:0x" + "00" * 19 + "01": "9" * 40}
            ),
            "too_large",
            "/margin/accounts/0x" + "0a" * 32 + "/amounts/1:0x" + "00" * 19 + "01",
        ),
    ],
)
def test_bad_accounts_are_refused_with_the_place(
    change: Change, code: str, pointer: str, tmp_path: Path
) -> None:
    document = json.loads(EXAMPLE.with_name("margin.json").read_text(encoding="utf-8"))
    change(document["margin"])
    file = tmp_path / "batch.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    result = CliRunner().invoke(app, ["solve", str(file), "--json"])
    refused = json.loads(result.stdout)
    assert (result.exit_code, refused["code"], refused["pointer"]) == (2, code, pointer)
