"""``config.toml``: typed, with all mistakes at once, each with its line and a way out.

Secrets do not belong here: a key that looks like one is refused and its value is never repeated.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

DEFAULT_PATH = Path(__file__).resolve().parents[1] / "config.toml"

_Port = Annotated[int, Meta(ge=0, le=65_535)]
_Natural = Annotated[int, Meta(ge=0)]
_Positive = Annotated[int, Meta(ge=1)]
_Seconds = Annotated[float, Meta(gt=0, le=1e9)]
_Bps = Annotated[int, Meta(ge=0, le=10_000)]
_Name = Annotated[str, Meta(min_length=1, max_length=64)]
_Path = Annotated[str, Meta(min_length=1, max_length=4096)]
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_SECRET = re.compile(r"private|mnemonic|secret|passw|seed", re.IGNORECASE)
_SECRET_FREE = {"password_env", "attester_password_env"}


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP door."""

    host: str = "127.0.0.1"
    port: _Port = 8645
    max_body_bytes: _Positive = 16_384
    request_timeout_seconds: _Seconds = 10.0
    max_pending_requests: _Positive = 256


class Storage(Struct, frozen=True, forbid_unknown_fields=True):
    """Where things are kept."""

    directory: _Path = "data"
    max_group: _Positive = 256
    record_batches: bool = True


class BatchConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Ticks, solving and sending."""

    tick_seconds: _Seconds = 0.5
    solve_timeout_seconds: _Seconds = 10.0
    max_intents: _Positive = 200
    max_impact_bps: _Bps = 10_000
    capital_bps: _Bps = 2
    bundle_lifetime_seconds: _Positive = 60
    confirmations: _Positive = 1
    min_fill_seconds: _Natural = 15
    max_replans: _Natural = 8
    max_failures: _Positive = 10
    watch_seconds: _Seconds = 15.0
    poll_seconds: _Seconds = 1.0
    bump_seconds: _Seconds = 30.0
    lost_answers: _Positive = 8


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What is refused, and how long anything may take."""

    max_open_total: _Positive = 10_000
    max_open_per_owner: _Positive = 64
    max_lifetime_seconds: _Positive = 604_800
    min_value_usd: Annotated[float, Meta(ge=0)] = 0.0
    venue_timeout_seconds: _Seconds = 2.0
    rpc_timeout_seconds: _Seconds = 5.0
    start_timeout_seconds: _Seconds = 30.0
    max_fee_gwei: Annotated[float, Meta(gt=0, le=1e9)] = 200.0


class KeyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the keys are; the passwords come from the environment."""

    keystore: str = ""
    password_env: str = "THALWEG_KEYSTORE_PASSWORD"
    attester_keystore: str = ""
    attester_password_env: str = "THALWEG_ATTESTER_PASSWORD"


class Prices(Struct, frozen=True, forbid_unknown_fields=True):
    """Reference prices in USD of one whole token, by symbol."""

    source: str = "config"
    updated: _Natural = 0
    max_age_seconds: _Seconds = 604_800.0
    native: str = "WETH"
    usd: dict[str, str] = {}


class ChainConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A chain; local when it has no URL."""

    chain_id: _Positive
    name: str = ""
    rpc_url: str = ""
    settlement: str = ""
    port: _Port = 0

    @property
    def is_local(self) -> bool:
        """Whether the daemon starts it."""
        return not self.rpc_url


class TokenConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A token that can be traded."""

    symbol: _Name
    chain: _Positive
    address: str
    decimals: Annotated[int, Meta(ge=0, le=77)]


class VenueConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A venue that runs; ``options`` are its adapter's."""

    name: _Name
    kind: _Name
    chain: _Positive
    options: dict[str, Any] = {}


class Config(Struct, frozen=True):
    """The whole file."""

    server: Server = Server()
    storage: Storage = Storage()
    batch: BatchConfig = BatchConfig()
    limits: Limits = Limits()
    solver: KeyConfig = KeyConfig()
    prices: Prices = Prices()
    chain: tuple[ChainConfig, ...] = ()
    token: tuple[TokenConfig, ...] = ()
    venue: tuple[VenueConfig, ...] = ()


class Mistake(Struct, frozen=True):
    """One thing that is wrong."""

    line: int
    key: str
    cause: str
    suggestion: str


class ConfigError(Exception):
    """All mistakes of a file, in the order of its lines."""

    def __init__(self, source: str, mistakes: list[Mistake]) -> None:
        self.source = source
        self.mistakes = sorted(mistakes, key=lambda mistake: mistake.line)
        super().__init__(
            "\n".join(
                f"{source}:{m.line}: {m.key + ': ' if m.key else ''}{m.cause}; {m.suggestion}"
                for m in self.mistakes
            )
        )


_TABLES: dict[str, type[Struct]] = {
    "server": Server,
    "storage": Storage,
    "batch": BatchConfig,
    "limits": Limits,
    "solver": KeyConfig,
    "prices": Prices,
}
_LISTS: dict[str, type[Struct]] = {
    "chain": ChainConfig,
    "token": TokenConfig,
    "venue": VenueConfig,
}
_Place = tuple[str | int, ...]


def load(path: Path | None = None) -> Config:
    """The file, by default ``config.toml`` here, else the one beside the program.

    Raises ConfigError.
    """
    if path is None:
        path = Path("config.toml") if Path("config.toml").exists() else DEFAULT_PATH
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        cause = f"cannot be read: {error.strerror}"
        raise ConfigError(str(path), [Mistake(0, "", cause, "name another file")]) from error
    except UnicodeDecodeError as error:
        cause = f"not UTF-8 at byte {error.start}"
        raise ConfigError(str(path), [Mistake(0, "", cause, "save it as UTF-8")]) from error
    return parse(text, str(path))


def parse(text: str, source: str = "config.toml") -> Config:
    """The text as a config, or ConfigError with everything that is wrong."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found.group(1)) if found else text.count("\n") + 1
        mistake = Mistake(line, "", "not valid TOML", "see toml.io for the syntax")
        raise ConfigError(source, [mistake]) from None  # the message may quote a secret
    check = _Check(_lines(text))
    config = check.document(document)
    if not check.mistakes:
        check.relations(config)
    if check.mistakes:
        raise ConfigError(source, check.mistakes)
    return config


class _Check:
    """Collects mistakes while it converts."""

    def __init__(self, lines: Mapping[_Place, int]) -> None:
        self.mistakes: list[Mistake] = []
        self._lines = lines

    def document(self, document: Mapping[str, Any]) -> Config:
        fields: dict[str, Any] = {}
        known = [*_TABLES, *_LISTS]
        for name, value in document.items():
            if name in _TABLES:
                if isinstance(value, dict):
                    fields[name] = self._table(_TABLES[name], value, (name,))
                else:
                    self._add((name,), "expected a table", f"write [{name}]")
            elif name in _LISTS:
                if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
                    fields[name] = tuple(
                        self._table(_LISTS[name], entry, (name, number))
                        for number, entry in enumerate(value)
                    )
                else:
                    self._add((name,), "expected a list of tables", f"write [[{name}]]")
            else:
                self._unknown((name,), name, known)
        return Config(**fields) if not self.mistakes else Config()

    def _table(self, shape: type[Struct], value: Mapping[str, Any], place: _Place) -> Any:
        known = {field.name: field for field in msgspec.structs.fields(shape)}
        fields: dict[str, Any] = {}
        sound = True
        for key, entry in value.items():
            if key not in known:
                self._unknown((*place, key), key, list(known))
                sound = False
                continue
            try:
                fields[key] = msgspec.convert(entry, known[key].type)
            except msgspec.ValidationError as error:
                self._add((*place, key), str(error), "change the value")
                sound = False
        for name, field in known.items():
            if field.required and name not in value:
                self._add(place, f"{name} is missing", f"add {name} = …")
                sound = False
        return shape(**fields) if sound else None

    def relations(self, config: Config) -> None:
        """What one key says about another."""
        chains = {chain.chain_id: chain for chain in config.chain}
        if not chains:
            self._add((), "there is no chain", "add a [[chain]] with a chain_id")
        self._twice("chain", [chain.chain_id for chain in config.chain])
        self._twice("venue", [venue.name for venue in config.venue])
        self._twice("token", [(token.chain, token.symbol) for token in config.token])
        for number, chain in enumerate(config.chain):
            self._chain(config, chain, ("chain", number))
        for number, token in enumerate(config.token):
            place = ("token", number)
            self._known_chain(token.chain, chains, place)
            local = chains[token.chain].is_local if token.chain in chains else True
            if not _ADDRESS.fullmatch(token.address) and not (
                local and token.address.startswith("devnet:")
            ):
                hint = "0x and 40 hex digits" + (", or devnet:NAME" if local else "")
                self._add((*place, "address"), "not an address", f"write {hint}")
            if token.symbol not in config.prices.usd:
                self._add(
                    (*place, "symbol"),
                    f"{token.symbol} has no reference price",
                    f'add {token.symbol} = "…" to [prices.usd]',
                )
        for number, venue in enumerate(config.venue):
            self._known_chain(venue.chain, chains, ("venue", number))
        for symbol, text in config.prices.usd.items():
            try:
                price = Decimal(text)
                sound = price.is_finite() and 0 < price < Decimal(10) ** 18
            except InvalidOperation:
                sound = False
            if not sound:
                self._add(
                    ("prices", "usd", symbol), "not a positive decimal", 'write it as "1234.5"'
                )
        if config.prices.native not in config.prices.usd:
            self._add(
                ("prices", "native"),
                f"{config.prices.native} has no price",
                "name a symbol of [prices.usd]",
            )

    def _chain(self, config: Config, chain: ChainConfig, place: _Place) -> None:
        if chain.is_local:
            return
        if ("batch", "confirmations") not in self._lines:
            # One is right for a local chain and careless on any other, so it is nobody's default.
            self._add(
                place,
                "a chain with rpc_url needs its confirmations",
                "write in [batch] after how many blocks a transaction counts as final",
            )
        if not chain.rpc_url.startswith(("http://", "https://")):
            self._add((*place, "rpc_url"), "not an HTTP URL", "start it with http:// or https://")
        if not _ADDRESS.fullmatch(chain.settlement):
            self._add(
                place,
                "settlement is needed with rpc_url",
                "deploy the contracts and write the address of Settlement",
            )
        if not config.solver.keystore:
            self._add(
                place,
                "a chain with rpc_url needs the solver's key",
                "name a keystore file in [solver]",
            )

    def _known_chain(self, chain: int, chains: Mapping[int, object], place: _Place) -> None:
        if chain not in chains:
            listed = ", ".join(str(number) for number in chains)
            self._add((*place, "chain"), f"no [[chain]] has id {chain}", f"use one of {listed}")

    def _twice(self, name: str, keys: list[Any]) -> None:
        for number, key in enumerate(keys):
            if key in keys[:number]:
                self._add((name, number), f"a second [[{name}]] for {key}", "remove one")

    def _unknown(self, place: _Place, key: str, known: list[str]) -> None:
        if _SECRET.search(key) and key not in _SECRET_FREE:
            self._add(
                place,
                "secrets do not belong in a config file",
                "use [solver] keystore with its password in the environment",
            )
            return
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
        self._add(place, "unknown key", hint)

    def _add(self, place: _Place, cause: str, suggestion: str) -> None:
        line = 1
        for length in range(len(place), 0, -1):
            if place[:length] in self._lines:
                line = self._lines[place[:length]]
                break
        key = ".".join(str(part) for part in place)
        self.mistakes.append(Mistake(line, key, cause, suggestion))


def _lines(text: str) -> dict[_Place, int]:
    """The line of every table and key, found by their shape; good enough to point at."""
    found: dict[_Place, int] = {}
    place: _Place = ()
    counts: dict[str, int] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if header := re.match(r"\[\[\s*([\w-]+)\s*\]\]", line):
            name = header.group(1)
            place = (name, counts.get(name, 0))
            counts[name] = counts.get(name, 0) + 1
            found[place] = number
        elif header := re.match(r"\[\s*([\w.-]+)\s*\]", line):
            place = tuple(header.group(1).split("."))
            found.setdefault(place, number)
        elif key := re.match(r"([\w.-]+)\s*=", line):
            for prefix in _prefixes((*place, *key.group(1).split("."))):
                found.setdefault(prefix, number)
    return found


def _prefixes(place: _Place) -> Iterator[_Place]:
    return (place[:length] for length in range(len(place), 0, -1))
