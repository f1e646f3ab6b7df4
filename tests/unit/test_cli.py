"""``thalweg solve``: answers, warnings, and one clear line with exit code 2 for bad files."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from solver import cli
from solver.cli import EXIT_BAD_INPUT, EXIT_DONE, EXIT_NOTHING_FILLED, app
from solver.wire.swap import swap_from_core
from tests.make import SETTLEMENT, UNIT, A, B, swap


def instance(*, pools: list[Any] | None = None, limit: int = UNIT * 9 // 10) -> dict[str, Any]:
    """Two orders that overlap at the market price."""
    swaps = [swap(A, B, UNIT, limit), swap(B, A, UNIT, limit, nonce=1)]
    return {
        "format": "thalweg.instance/1",
        "chains": [{"chainId": 1, "settlement": SETTLEMENT}],
        "assets": [
            {"chainId": 1, "address": token.address, "decimals": 18, "price": "1e-18"}
            for token in (A, B)
        ],
        "intents": [{"swap": swap_from_core(order)} for order in swaps],
        "pools": pools or [],
    }


def run(tmp_path: Path, document: object, *options: str) -> Any:
    file = tmp_path / "instance.json"
    text = document if isinstance(document, str) else json.dumps(document)
    file.write_text(text, encoding="utf-8")
    return CliRunner().invoke(app, ["solve", str(file), *options])


def test_overlapping_orders_fill_each_other(tmp_path: Path) -> None:
    result = run(tmp_path, instance(), "--json")
    answer = json.loads(result.stdout)
    assert result.exit_code == EXIT_DONE
    assert [(fill["sell"], fill["buy"]) for fill in answer["fills"]] == [(str(UNIT), str(UNIT))] * 2
    assert answer["legs"] == []
    assert float(answer["certificate"]["netGap"]) < 1e-9


def test_the_table_names_fills_and_proof(tmp_path: Path) -> None:
    result = run(tmp_path, instance())
    assert result.exit_code == EXIT_DONE
    assert "net gap" in result.stdout


def test_nothing_filled_has_its_own_exit_code(tmp_path: Path) -> None:
    result = run(tmp_path, instance(limit=2 * UNIT), "--json")
    assert result.exit_code == EXIT_NOTHING_FILLED
    assert {reason["code"] for reason in json.loads(result.stdout)["open"]}


def test_an_unknown_pool_is_a_warning(tmp_path: Path) -> None:
    result = run(tmp_path, instance(pools=[{"kind": "volatile"}]), "--json")
    assert result.exit_code == EXIT_DONE
    assert "volatile" in result.stderr


def spoilt(path: list[str | int], value: object) -> dict[str, Any]:
    document: Any = instance()
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return dict(document)


SELL: list[str | int] = ["intents", 0, "swap", "sellAmount"]


@pytest.mark.parametrize(
    "document",
    [
        "{",
        '{"format": "thalweg.instance/1", "format": "x"}',
        "[" * 100_000,
        spoilt(["format"], "thalweg.instance/9"),
        spoilt(["extra"], 1),
        spoilt(SELL, "1_000"),
        spoilt(SELL, "-1"),
        spoilt(SELL, 1.5),
        spoilt(SELL, str(2**256)),
        spoilt(SELL, "9" * 5_000),
        spoilt(SELL, "01"),
        spoilt(SELL, "１"),
        spoilt(["intents", 0, "swap", "owner"], "0x12"),
        spoilt(["intents", 0, "swap", "kind"], "exactly"),
    ],
)
def test_bad_files_get_one_line_and_exit_2(tmp_path: Path, document: object) -> None:
    result = run(tmp_path, document, "--json")
    assert result.exit_code == EXIT_BAD_INPUT
    problem = json.loads(result.stdout)
    assert problem["code"] and problem["detail"] in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def auction(**order: object) -> dict[str, Any]:
    whole = {
        "uid": "0x01", "sellToken": A.address, "buyToken": B.address, "sellAmount": "1000",
        "buyAmount": "900", "kind": "sell", "partiallyFillable": False,
    }  # fmt: skip
    return {"tokens": {}, "orders": [{**whole, **order}], "liquidity": [], "effectiveGasPrice": "1"}


def natively(field: str, value: object) -> dict[str, Any]:
    return spoilt(["intents", 0, "swap", field], value)


@pytest.mark.parametrize(
    ("document", "code", "pointer"),
    [
        (natively("sellAmount", "0"), "zero_amount", "/intents/0/swap/sellAmount"),
        (natively("buyAmount", "0"), "zero_amount", "/intents/0/swap/buyAmount"),
        (natively("sellAmount", "-5"), "bad_amount", "/intents/0/swap/sellAmount"),
        (natively("sellAmount", "9" * 5_000), "bad_amount", "/intents/0/swap/sellAmount"),
        (natively("sellAmount", 5), "invalid_field", "/intents/0/swap/sellAmount"),
        (spoilt(["intents", 0, "filled"], "-1"), "bad_amount", "/intents/0/filled"),
        (spoilt(["intents", 0, "filled"], str(UNIT)), "bad_amount", "/intents/0/filled"),
        (spoilt(["assets", 0, "price"], "nan"), "bad_number", "/assets/0/price"),
        (spoilt(["assets", 1, "inventory"], "1e3"), "bad_amount", "/assets/1/inventory"),
        (spoilt(["chains", 0, "gasPriceWei"], "-1"), "bad_amount", "/chains/0/gasPriceWei"),
        (instance(pools=[{"kind": "constantProduct"}]), "bad_pool", "/pools/0"),
        (
            instance(
                pools=[
                    {
                        "kind": "constantProduct",
                        "tokens": [str(A), str(B)],
                        "reserves": ["-5", "9" * 5_000],
                        "feeNum": 3,
                        "feeDen": 1000,
                    }
                ]
            ),
            "bad_pool",
            "/pools/0",
        ),
        (auction(sellAmount="0"), "zero_amount", "/orders/0/sellAmount"),
        (auction(buyAmount="0x0"), "zero_amount", "/orders/0/buyAmount"),
        (auction(sellAmount="-5"), "bad_amount", "/orders/0/sellAmount"),
        (auction(sellAmount="9" * 5_000), "bad_amount", "/orders/0/sellAmount"),
        (auction(sellAmount="1_000"), "bad_amount", "/orders/0/sellAmount"),
        (auction(sellAmount="0x" + "f" * 65), "bad_amount", "/orders/0/sellAmount"),
        (auction(sellToken="0x12"), "bad_hex", "/orders/0/sellToken"),
        (auction(kind="give"), "invalid_field", "/orders/0/kind"),
        (
            {**auction(), "liquidity": [{"kind": "constantProduct", "id": "0"}]},
            "bad_pool",
            "/liquidity/0",
        ),
    ],
)
def test_a_bad_value_of_a_file_has_a_pointer(
    tmp_path: Path, document: object, code: str, pointer: str
) -> None:
    result = run(tmp_path, document, "--json")
    assert result.exit_code == EXIT_BAD_INPUT, result.output
    problem = json.loads(result.stdout)
    assert (problem["code"], problem["pointer"]) == (code, pointer)
    assert len(result.stderr) < 300 and result.stderr.count("\n") == 1


def test_a_missing_file_is_named() -> None:
    result = CliRunner().invoke(app, ["solve", "nowhere.json"])
    assert result.exit_code == EXIT_BAD_INPUT
    assert "nowhere.json" in result.stderr


def test_an_error_is_an_object_on_every_command() -> None:
    nowhere = ["--url", "http://127.0.0.1:1"]
    ends = ["--sell", "WETH", "--buy", "USDC", "--amount", "1"]
    cases = [
        (["solve", "nowhere.json"], 2, "no_file"),
        (["check-config", "nowhere.toml"], 2, "bad_config"),
        (["run", "--config", "nowhere.toml"], 2, "bad_config"),
        (["status", "0x12", *nowhere], 3, "no_answer"),
        (["explain", "0x12", *nowhere], 3, "no_answer"),
        (["cancel", "0x12", *nowhere], 3, "no_answer"),
        (["venues", "--url", "http://[::1"], 3, "no_answer"),
        (["quote", *ends, *nowhere], 3, "no_answer"),
        (["submit", *ends, *nowhere], 3, "no_answer"),
        (["submit", *ends, *nowhere, "--account", "99"], 2, "no_account"),
        (["status"], 2, "bad_usage"),
        (["nothing"], 2, "bad_usage"),
    ]
    for words, exit_code, code in cases:
        result = CliRunner().invoke(app, [*words, "--json"])
        assert result.exit_code == exit_code, (words, result.output)
        problem = json.loads(result.stdout)
        assert problem["code"] == code, words
        assert problem["detail"]
        assert result.stderr.strip()


class _Failing(BaseHTTPRequestHandler):
    """A daemon with a bug, and the path that it was last asked for."""

    asked = ""

    def do_GET(self) -> None:
        type(self).asked = self.path
        body = b'{"type": "t", "title": "t", "status": 503, "code": "not_ready", "detail": "d"}'
        self.send_response(503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_a_failure_of_the_daemon_is_exit_3_and_an_id_leads_nowhere_else() -> None:
    with HTTPServer(("127.0.0.1", 0), _Failing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        for identity, path in (
            ("../info", "..%2Finfo"),
            ("a b?c#d", "a%20b%3Fc%23d"),
            ("..", ".."),
        ):
            result = CliRunner().invoke(app, ["status", identity, "--url", url, "--json"])
            assert (result.exit_code, json.loads(result.stdout)["code"]) == (3, "not_ready")
            assert _Failing.asked == f"/v1/intents/{path}"
        server.shutdown()
        thread.join()


def test_its_name_is_one_that_the_shell_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "bin" / "thalweg"
    script.parent.mkdir()
    script.touch(0o755)
    monkeypatch.setattr("sys.argv", [str(script)])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.own_name() == str(script)
    monkeypatch.setenv("PATH", str(script.parent))
    assert cli.own_name() == "thalweg"
    monkeypatch.setattr("sys.argv", ["/somewhere/solver/__main__.py"])
    assert cli.own_name().endswith(" -m solver")
