"""Config files: the shipped one is sound, and every mistake has a line, a cause and a way out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.config import DEFAULT_PATH, ConfigError, Installed, VenueConfig, load, parse

NAMES = ("WETH", "USDC", "DAI", "WBTC", "WETH-USDC-30", "WETH-USDC-5", "WETH-DAI-30",
         "DAI-USDC-5", "WBTC-WETH-30", "WETH-USDC-book", "bridge")  # fmt: skip


def _build(venue: VenueConfig, addresses: Mapping[str, str]) -> None:
    assert len(set(addresses.values())) == len(NAMES)
    known = {"pairs", "book", "bridge", "to_chain", "tokens"}
    for option in venue.options:
        if option not in known:
            raise ValueError(f"unknown option {option!r}; known: book, bridge, pairs")


INSTALLED = Installed(frozenset(NAMES), ("bridge", "constant_product", "order_book"), _build)
SHIPPED = DEFAULT_PATH.read_text(encoding="utf-8")


def test_the_shipped_file_is_sound_and_states_the_defaults() -> None:
    config, bare = load(DEFAULT_PATH), parse("[[chain]]\nchain_id = 1\n[prices.usd]\nWETH='1'")
    assert [chain.name for chain in config.chain] == ["alpha", "beta"]
    for table in ("server", "storage", "batch", "limits", "fees", "solver"):
        assert getattr(config, table) == getattr(bare, table), table


@pytest.mark.parametrize(
    ("old", "new", "key", "hint"),
    [
        ("tick_seconds = 0.5", "tick_second = 0.5", "batch.tick_second", "tick_seconds?"),
        ("[server]", "[sever]", "sever", "did you mean server?"),
        ("port = 8645", "port = 70000", "server.port", "<= 65535"),
        ("port = 8645", "port = true", "server.port", "int"),
        ("tick_seconds = 0.5", "tick_seconds = 0", "batch.tick_seconds", ">= 0.01"),
        ("confirmations = 1", 'confirmations = "one"', "batch.confirmations", "int"),
        ('name = "beta"', "", "", ""),
        ("chain_id = 31338", "chain_id = 31337", "chain.1", "remove one"),
        ("chain_id = 31338", "", "chain.1", "chain_id is missing"),
        ('rpc_url = ""', 'rpc_url = "ftp://x"', "chain.0.rpc_url", "http://"),
        ('rpc_url = ""', 'rpc_url = "http://x"', "chain.0", "keystore"),
        ("confirmations = 1 ", "# ", "", ""),
        ('"devnet:WETH"', '"0x12"', "token.0.address", "40 hex digits"),
        ('WETH = "2500"', 'WETH = "much"', "prices.usd.WETH", "1234.5"),
        ('DAI = "1"\n', "", "token.2.symbol", "[prices.usd]"),
        ('name = "book"', 'name = "pairs"', "venue.1", "remove one"),
        ('kind = "bridge"\nchain = 31337', 'kind = "bridge"\nchain = 5', "venue.2.chain", "31337"),
        ("max_impact_bps = 10000", "max_impact_bps = 10001", "batch.max_impact_bps", "<= 10000"),
        ("solver_factor = 0.0", "solver_factor = 1.5", "fees.solver_factor", "<= 1"),
        ("volume_factor = 0.0", "volume_factor = 0.6", "fees.volume_factor", "<= 0.5"),
        ("surplus_factor = 0.0", "surplus_factor = 0.1", "fees.surplus_max_volume_factor", "cap"),
        ('keystore = ""', 'private_key = "0xdead"', "solver.private_key", "keystore"),
        ("tick_seconds = 0.5", "tick_seconds = 1e-300", "batch.tick_seconds", ">= 0.01"),
        ("tick_seconds = 0.5", "tick_seconds = nan", "batch.tick_seconds", ">= 0.01"),
        ("min_value_usd = 0.0", "min_value_usd = inf", "limits.min_value_usd", "<="),
        ("max_body_bytes = 16384", "max_body_bytes = 1", "server.max_body_bytes", ">= 4096"),
        ('"127.0.0.1"', '"a\\u0000b"', "server.host", "host name"),
        ('"127.0.0.1"', '"not a host!"', "server.host", "host name"),
        ('directory = "data"', 'directory = "a\\u0000b"', "storage.directory", "control"),
        ('name = "pairs"', 'name = "a\\nb"', "venue.0.name", "control"),
        ('source = "config"', 'source = "chainlink"', "prices.source", "write config"),
        ("updated = 0", "updated = 99999999999", "prices.updated", "future"),
        ('"2500"', '"1e-400"', "prices.usd.WETH", "1e-18"),
        ('"2500"', '"1e-999999999"', "prices.usd.WETH", "1234.5"),
        ('"2500"', '"2_500"', "prices.usd.WETH", "1234.5"),
        ('"2500"', '"２５００"', "prices.usd.WETH", "1234.5"),
        ('"2500"', '" 2500 "', "prices.usd.WETH", "1234.5"),
        ('"2500"', '"sNaN"', "prices.usd.WETH", "1234.5"),
        ("port = 0 ", "port = 8645 ", "chain.0.port", "the server has port 8645"),
        ('"devnet:USDC"', '"devnet:WETH"', "token.1.address", "remove one"),
        ("to_chain = 31338", "to_chain = 5", "venue.2.options.to_chain", "31337, 31338"),
        ('"devnet:WETH"', '"devnet:NOPE"', "token.0.address", "there are"),
        ("devnet:WETH-USDC-30", "devnet:WETH-USDC-3", "venue.0.options.pairs", "WETH-USDC-30?"),
        ("options.book =", "options.boook =", "venue.1.options.boook", "known: book"),
        ('kind = "order_book"', 'kind = "order_bok"', "venue.1.kind", "order_book?"),
    ],
)
def test_a_mistake_is_named_with_its_line(old: str, new: str, key: str, hint: str) -> None:
    assert old in SHIPPED
    text = SHIPPED.replace(old, new, 1)
    if not key:
        parse(text, installed=INSTALLED)
        return
    with pytest.raises(ConfigError) as caught:
        parse(text, installed=INSTALLED)
    found = [m for m in caught.value.mistakes if m.key == key]
    mistake = next(m for m in found if hint in f"{m.cause}; {m.suggestion}")
    line = text.splitlines()[mistake.line - 1]
    assert line.startswith("[[") or key.split(".")[-1] in line
    assert "0xdead" not in str(caught.value)


def test_all_mistakes_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("[server]\nprot = 1\nhost = 5\n[batch]\nmax_intents = 0\n[[chain]]\n")
    assert [m.line for m in caught.value.mistakes] == [1, 2, 3, 5, 6]
    changes = {
        "port = 8645": "port = 70000",
        '"2500"': '"x"',
        "options.book =": "options.boook =",
        "options.to_chain = 31338": "options.to_chain = 5",
        '"devnet:DAI"': '"devnet:DIA"',
    }
    text = SHIPPED
    for old, new in changes.items():
        text = text.replace(old, new, 1)
    with pytest.raises(ConfigError) as caught:
        parse(text, installed=INSTALLED)
    keys = {m.key for m in caught.value.mistakes}
    assert keys == {
        "server.port",
        "prices.usd.WETH",
        "venue.1.options.boook",
        "venue.2.options.to_chain",
        "token.2.address",
    }


def test_what_follows_from_a_mistake_is_not_a_second_one() -> None:
    for old, new in (
        ("chain_id = 31338", "chain_id = true"),
        ("[prices.usd]", "[prices.used]"),
        ('keystore = ""', "keystore = 5"),
    ):
        with pytest.raises(ConfigError) as caught:
            parse(SHIPPED.replace(old, new, 1))
        assert len(caught.value.mistakes) == 1, str(caught.value)


def test_a_chain_by_url_needs_its_confirmations_in_writing() -> None:
    text = "\n".join(
        (
            '[solver]\nkeystore = "key.json"\n[prices.usd]\nWETH = "1"\n[[chain]]\nchain_id = 1',
            f'rpc_url = "http://x"\nsettlement = "0x{"11" * 20}"',
        )
    )
    with pytest.raises(ConfigError, match="needs its confirmations"):
        parse(text)
    assert parse("[batch]\nconfirmations = 3\n" + text).batch.confirmations == 3


def test_a_missing_file_and_bad_syntax_are_one_line_each(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError) as caught:
        parse("[server]\nport = = 1\n")
    assert str(caught.value).startswith("config.toml:2: not valid TOML")
    with pytest.raises(ConfigError) as caught:
        parse(f"[batch]\nmax_intents = {'9' * 5000}\n")
    assert str(caught.value).startswith("config.toml:2: a number of more than 4300 digits")
    with pytest.raises(ConfigError, match="byte order mark"):
        parse("\ufeff" + SHIPPED)


@settings(deadline=None)  # the first example pays for the imports
@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse(text)
