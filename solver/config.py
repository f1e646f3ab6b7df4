"""``config.toml``: typed, with all mistakes at once, each with its line and a way out.

Secrets do not belong here: a key that looks like one is refused and its value is never repeated.
"""

from __future__ import annotations

import difflib
import math
import re
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from solver.core.schedule import MAX_VOLUME_FACTOR

DEFAULT_PATH = Path(__file__).resolve().parents[1] / "config.toml"

_Port = Annotated[int, Meta(ge=0, le=65_535)]
_Natural = Annotated[int, Meta(ge=0, le=10**12)]
_Positive = Annotated[int, Meta(ge=1, le=10**9)]
_ChainId = Annotated[int, Meta(ge=1, le=2**63 - 1)]
_Seconds = Annotated[float, Meta(ge=0.001, le=1e9)]
_TickSeconds = Annotated[float, Meta(ge=0.01, le=3600)]
_BodyBytes = Annotated[int, Meta(ge=4096, le=2**24)]
_Usd = Annotated[float, Meta(ge=0, le=1e18)]
_Factor = Annotated[float, Meta(ge=0, le=1)]
_VolumeFactor = Annotated[float, Meta(ge=0, le=MAX_VOLUME_FACTOR)]
_Bps = Annotated[int, Meta(ge=0, le=10_000)]
_Name = Annotated[str, Meta(min_length=1, max_length=64)]
_Path = Annotated[str, Meta(min_length=1, max_length=4096)]
_Host = Annotated[str, Meta(pattern=r"^[0-9A-Za-z_:.%-]{1,253}\Z")]
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PRICE = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_MIN_PRICE, _MAX_PRICE = Decimal("1e-18"), Decimal("1e18")
_MAX_DIGITS = 4_300  # Python refuses to read a longer integer
_CLOCK_SLACK_SECONDS = 60
_SOURCES = ("config",)
#: On the chains where CoW Protocol is.
WRAPPED_NATIVE = {
    1: "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2",
    10: "0x4200000000000000000000000000000000000006",
    56: "0xbb4cdb9cbd36b01bd1cbaebf2de08d9173bc095c",
    100: "0xe91d153e0b41518a2ce8dd3d7944fa863463a97d",
    137: "0x0d500b1d8e8ef31e21c99d1db9a6444d3adf1270",
    8453: "0x4200000000000000000000000000000000000006",
    9745: "0x6100e367285b01f48d07953803a2d8dca5d19873",
    42161: "0x82af49447d8a07e3bd95bd0d56f35241523fbab1",
    43114: "0xb31f66aa3c1e785363f0875a1b74e27b85fd66c7",
    57073: "0x4200000000000000000000000000000000000006",
    59144: "0xe5d7c2a44ffddf6b295a15c148167daaaf5cf34f",
    11155111: "0xfff9976782d46cc05630d1f6ebab18b2324d6b14",
}
_BYTE_ORDER_MARK = "\ufeff"
_SECRET = re.compile(r"private|mnemonic|secret|passw|seed", re.IGNORECASE)
_SECRET_FREE = {"password_env", "attester_password_env"}


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP door."""

    host: _Host = "127.0.0.1"
    port: _Port = 8645
    max_body_bytes: _BodyBytes = 16_384
    request_timeout_seconds: _Seconds = 10.0
    max_pending_requests: _Positive = 256
    max_connections: _Positive = 512
    header_timeout_seconds: _Seconds = 10.0


class Storage(Struct, frozen=True, forbid_unknown_fields=True):
    """Where things are kept."""

    directory: _Path = "data"
    max_group: _Positive = 256
    record_batches: bool = True
    records_max_bytes: Annotated[int, Meta(ge=1, le=2**50)] = 2**30
    records_max_age_seconds: _Seconds = 2_592_000.0


class BatchConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Ticks, solving and sending."""

    tick_seconds: _TickSeconds = 0.5
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
    min_value_usd: _Usd = 0.0
    venue_timeout_seconds: _Seconds = 2.0
    rpc_timeout_seconds: _Seconds = 5.0
    start_timeout_seconds: _Seconds = 30.0
    max_fee_gwei: Annotated[float, Meta(gt=0, le=1e9)] = 200.0


class FeeConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Fees beside gas, as shares; see :mod:`solver.core.schedule`."""

    volume_factor: _VolumeFactor = 0.0
    surplus_factor: _Factor = 0.0
    surplus_max_volume_factor: _Factor = 0.0
    improvement_factor: _Factor = 0.0
    improvement_max_volume_factor: _Factor = 0.0
    solver_factor: _Factor = 0.0


class CowConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The engine for a CoW Protocol driver. The keys that the reference engine has mean the same.

    ``wrapped_native`` is empty where ``chain_id`` says it.
    """

    profile: Literal["baseline", "full"] = "full"
    chain_id: _ChainId = 1
    wrapped_native: str = ""
    base_tokens: tuple[str, ...] = ()
    max_hops: Annotated[int, Meta(ge=0, le=4)] = 1
    max_partial_attempts: Annotated[int, Meta(ge=1, le=64)] = 5
    native_token_price_estimation_amount: str = "100000000000000000"
    solution_gas_offset: _Natural = 106_391
    slack_seconds: Annotated[float, Meta(ge=0, le=60)] = 0.5
    max_seconds: Annotated[float, Meta(ge=0.01, le=600)] = 30.0
    joint_orders: _Positive = 50
    max_body_bytes: Annotated[int, Meta(ge=4096, le=2**28)] = 10_485_760
    max_pending: _Positive = 4
    prestart: bool = False

    @property
    def native(self) -> str:
        """The wrapped native token; empty for a chain that is not known."""
        return self.wrapped_native or WRAPPED_NATIVE.get(self.chain_id, "")


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

    chain_id: _ChainId
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
    chain: _ChainId
    address: str
    decimals: Annotated[int, Meta(ge=0, le=77)]


class VenueConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A venue that runs; ``options`` are its adapter's."""

    name: _Name
    kind: _Name
    chain: _ChainId
    options: dict[str, Any] = {}


class Config(Struct, frozen=True):
    """The whole file."""

    server: Server = Server()
    storage: Storage = Storage()
    batch: BatchConfig = BatchConfig()
    limits: Limits = Limits()
    fees: FeeConfig = FeeConfig()
    cow: CowConfig = CowConfig()
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


class Installed(Struct, frozen=True):
    """What a file may name besides itself: contracts of a local chain, and the venue adapters.

    ``build`` raises ValueError when a venue's kind or its options are wrong; it is given an
    address for every name.
    """

    names: frozenset[str]
    kinds: tuple[str, ...]
    build: Callable[[VenueConfig, Mapping[str, str]], None]


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
    "fees": FeeConfig,
    "cow": CowConfig,
    "solver": KeyConfig,
    "prices": Prices,
}
_LISTS: dict[str, type[Struct]] = {
    "chain": ChainConfig,
    "token": TokenConfig,
    "venue": VenueConfig,
}
_Place = tuple[str | int, ...]


def load(path: Path | None = None, installed: Installed | None = None) -> Config:
    """The file, by default ``config.toml`` here, else the one beside the program.

    Raises ConfigError. Names of contracts, kinds and options of venues are checked only against
    what is ``installed``.
    """
    if path is None:
        path = Path("config.toml") if Path("config.toml").exists() else DEFAULT_PATH
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            mistake = Mistake(0, "", f"not UTF-8 at byte {error.start}", "save it as UTF-8")
        else:
            reason = getattr(error, "strerror", None) or error
            mistake = Mistake(0, "", f"cannot be read: {reason}", "name another file")
        raise ConfigError(str(path), [mistake]) from error
    return parse(text, str(path), installed)


def parse(
    text: str,
    source: str = "config.toml",
    installed: Installed | None = None,
    now: float | None = None,
) -> Config:
    """The text as a config, or ConfigError with everything that is wrong."""
    if text.startswith(_BYTE_ORDER_MARK):
        mistake = Mistake(1, "", "it starts with a byte order mark", "save it as UTF-8 without one")
        raise ConfigError(source, [mistake])
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(source, [_syntax(text, error)]) from None  # it may quote a secret
    check = _Check(_lines(text), installed, time.time() if now is None else now)
    config = check.document(document)
    check.relations(config)
    if check.mistakes:
        raise ConfigError(source, check.mistakes)
    return config


def _syntax(text: str, error: Exception) -> Mistake:
    if isinstance(error, ValueError) and not isinstance(error, tomllib.TOMLDecodeError):
        long = re.search(rf"[0-9_]{{{_MAX_DIGITS},}}", text)
        line = text.count("\n", 0, long.start()) + 1 if long else 1
        cause = f"a number of more than {_MAX_DIGITS} digits" if long else "not valid TOML"
        return Mistake(line, "", cause, "write a shorter one" if long else "see toml.io")
    found = re.search(r"line (\d+)", str(error))
    line = int(found.group(1)) if found else text.count("\n") + 1
    return Mistake(line, "", "not valid TOML", "see toml.io for the syntax")


class _Check:
    """Collects mistakes while it converts."""

    def __init__(
        self, lines: Mapping[_Place, int], installed: Installed | None, now: float
    ) -> None:
        self.mistakes: list[Mistake] = []
        self._lines = lines
        self._installed = installed
        self._now = now
        self._spoilt: set[_Place] = set()
        self._numbers: dict[str, list[int]] = {name: [] for name in _LISTS}
        self._counts = dict.fromkeys(_LISTS, 0)

    def document(self, document: Mapping[str, Any]) -> Config:
        """What is sound; the default, or nothing in a list, stands where a mistake is."""
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
                    fields[name] = self._list(name, value)
                else:
                    self._add((name,), "expected a list of tables", f"write [[{name}]]")
            else:
                self._unknown((name,), name, known)
        return Config(**fields)

    def _list(self, name: str, entries: list[dict[str, Any]]) -> tuple[Struct, ...]:
        found = []
        self._counts[name] = len(entries)
        for number, entry in enumerate(entries):
            made = self._table(_LISTS[name], entry, (name, number))
            if made is not None:
                found.append(made)
                self._numbers[name].append(number)
        return tuple(found)

    def _table(self, shape: type[Struct], value: Mapping[str, Any], place: _Place) -> Any:
        """The table, with defaults for what is wrong; None when what it needs is wrong."""
        known = {field.name: field for field in msgspec.structs.fields(shape)}
        fields: dict[str, Any] = {}
        for key, entry in value.items():
            if key not in known:
                self._unknown((*place, key), key, list(known))
                continue
            try:
                converted = msgspec.convert(entry, known[key].type)
            except msgspec.ValidationError as error:
                odd = "matching regex" in str(error)
                cause = "not a host name or an IP address" if odd else str(error)
                self._add((*place, key), cause, "change the value")
                continue
            if self._is_clean(converted, (*place, key)):
                fields[key] = converted
            else:
                self._spoilt.add((*place, key))
        for name, field in known.items():
            if field.required and name not in value:
                self._add(place, f"{name} is missing", f"add {name} = …")
        needed = {name for name, field in known.items() if field.required}
        return shape(**fields) if needed <= fields.keys() else None

    def _is_clean(self, value: object, place: _Place) -> bool:
        """No control characters and no infinities, which no setting has a use for."""
        if isinstance(value, str) and _CONTROL.search(value):
            self._add(place, "it has a control character", "remove it")
            return False
        if isinstance(value, float) and not math.isfinite(value):
            self._add(place, f"{value} is not a number to reckon with", "write a finite one")
            return False
        if isinstance(value, dict):
            clean = [self._is_clean(entry, (*place, key)) for key, entry in value.items()]
            return all(clean)
        if isinstance(value, list | tuple):
            clean = [self._is_clean(entry, place) for entry in value]
            return all(clean)
        return True

    def relations(self, config: Config) -> None:
        """What one key says about another; silent about what follows from an earlier mistake."""
        chains = {chain.chain_id: chain for chain in config.chain}
        if not chains and self._is_whole("chain"):
            self._add((), "there is no chain", "add a [[chain]] with a chain_id")
        self._twice("chain", "", [chain.chain_id for chain in config.chain])
        self._twice("venue", "", [venue.name for venue in config.venue])
        self._twice("token", "", [(token.chain, token.symbol) for token in config.token])
        self._twice(
            "token", "address", [(token.chain, token.address.lower()) for token in config.token]
        )
        self._ports(config)
        for number, chain in zip(self._numbers["chain"], config.chain, strict=True):
            self._chain(config, chain, ("chain", number))
        for number, token in zip(self._numbers["token"], config.token, strict=True):
            self._token(config, token, chains, ("token", number))
        for number, venue in zip(self._numbers["venue"], config.venue, strict=True):
            self._known_chain(venue.chain, chains, ("venue", number))
            self._venue(venue, chains, ("venue", number))
        self._fees(config.fees)
        self._cow(config.cow)
        self._prices(config)

    def _fees(self, fees: FeeConfig) -> None:
        for kind in ("surplus", "improvement"):
            share, cap = f"{kind}_factor", f"{kind}_max_volume_factor"
            if getattr(fees, share) > 0.0 and not getattr(fees, cap):
                self._add(("fees", cap), f"with 0.0 {share} takes nothing", "write its cap, or 1.0")

    def _cow(self, cow: CowConfig) -> None:
        for name, addresses in (
            ("wrapped_native", [cow.wrapped_native] if cow.wrapped_native else []),
            ("base_tokens", cow.base_tokens),
        ):
            if not all(_ADDRESS.fullmatch(address) for address in addresses):
                self._add(("cow", name), "not an address", "write 0x and 40 hex digits")
        if not cow.native:
            cause = f"no wrapped native token is known for chain {cow.chain_id}"
            self._add(("cow", "chain_id"), cause, "add wrapped_native")
        amount = cow.native_token_price_estimation_amount
        if not re.fullmatch(r"[1-9][0-9]{0,38}", amount, re.ASCII):
            place = ("cow", "native_token_price_estimation_amount")
            self._add(place, "not a positive whole number", "write the wei as a string")

    def _prices(self, config: Config) -> None:
        prices = config.prices
        for symbol, text in prices.usd.items():
            place: _Place = ("prices", "usd", symbol)
            if not _PRICE.fullmatch(text) or not Decimal(text):
                self._add(place, "not a positive decimal", 'write it as "1234.5"')
            elif not _MIN_PRICE <= Decimal(text) < _MAX_PRICE:
                cause = f"not in [{_MIN_PRICE:e}, {_MAX_PRICE:e})"
                self._add(place, cause, "give the price of one whole token in USD")
        if prices.native not in prices.usd and not self._is_spoilt("prices", "usd"):
            self._add(
                ("prices", "native"),
                f"{prices.native} has no price",
                "name a symbol of [prices.usd]",
            )
        if prices.source not in _SOURCES:
            self._add(
                ("prices", "source"),
                f"there is no source {prices.source!r}",
                f"write {' or '.join(_SOURCES)}",
            )
        if prices.updated > self._now + _CLOCK_SLACK_SECONDS:
            self._add(
                ("prices", "updated"),
                "it is in the future",
                "write the Unix time in seconds at which the prices were taken",
            )

    def _ports(self, config: Config) -> None:
        taken = {config.server.port: "the server"} if config.server.port else {}
        for number, chain in zip(self._numbers["chain"], config.chain, strict=True):
            if not chain.is_local or not chain.port:
                continue
            if chain.port in taken:
                self._add(
                    ("chain", number, "port"),
                    f"{taken[chain.port]} has port {chain.port} already",
                    "write another one, or 0 for a free one",
                )
            taken.setdefault(chain.port, f"chain {chain.chain_id}")

    def _token(
        self, config: Config, token: TokenConfig, chains: Mapping[int, ChainConfig], place: _Place
    ) -> None:
        self._known_chain(token.chain, chains, place)
        local = chains[token.chain].is_local if token.chain in chains else True
        if local and token.address.startswith("devnet:"):
            self._known_name(token.address, (*place, "address"))
        elif not _ADDRESS.fullmatch(token.address):
            hint = "0x and 40 hex digits" + (", or devnet:NAME" if local else "")
            self._add((*place, "address"), "not an address", f"write {hint}")
        if token.symbol not in config.prices.usd and not self._is_spoilt("prices", "usd"):
            self._add(
                (*place, "symbol"),
                f"{token.symbol} has no reference price",
                f'add {token.symbol} = "…" to [prices.usd]',
            )

    def _known_name(self, text: str, place: _Place) -> bool:
        if self._installed is None:
            return True
        name, names = text.removeprefix("devnet:"), self._installed.names
        if name in names:
            return True
        near = difflib.get_close_matches(name, names, n=1)
        hint = (
            f"did you mean devnet:{near[0]}?" if near else f"there are: {', '.join(sorted(names))}"
        )
        self._add(place, f"a local chain has no contract {name!r}", hint)
        return False

    def _venue(self, venue: VenueConfig, chains: Mapping[int, ChainConfig], place: _Place) -> None:
        """Build it, as the daemon will; what its adapter says about the options is a mistake."""
        for key, value in venue.options.items():
            # By convention an option of this name is about another chain of the same file.
            if key.endswith("_chain") and type(value) is int:
                self._known_chain(value, chains, (*place, "options"), key)
        installed = self._installed
        if installed is None or self._is_spoilt(*place, "options"):
            return
        if venue.kind not in installed.kinds:
            near = difflib.get_close_matches(venue.kind, installed.kinds, n=1)
            listed = f"there are: {', '.join(installed.kinds)}"
            hint = f"did you mean {near[0]}?" if near else listed
            self._add((*place, "kind"), f"no adapter {venue.kind!r} is installed", hint)
            return
        local = venue.chain not in chains or chains[venue.chain].is_local
        sound = True
        for key, text in _names_in(venue.options):
            where = (*place, "options", key)
            if not local:
                self._add(where, "only a local chain has names", "write the contract's address")
                sound = False
            elif not self._known_name(text, where):
                sound = False
        if not sound:
            return
        ordered = sorted(installed.names)
        stand_ins = {name: f"0x{number:040x}" for number, name in enumerate(ordered, start=1)}
        try:
            installed.build(venue, stand_ins)
        except ValueError as error:
            cause = str(error)
            named = [key for key in venue.options if repr(key) in cause]
            named += [key for key in venue.options if re.search(rf"\b{re.escape(key)}\b", cause)]
            option = named[0] if named else ""
            where = (*place, "options", option) if option else place
            self._add(where, cause, "see the adapter's documentation for its options")

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
        if not re.match(r"https?://[^\s/]", chain.rpc_url):
            self._add((*place, "rpc_url"), "not an HTTP URL", "start it with http:// or https://")
        if not _ADDRESS.fullmatch(chain.settlement) and not self._is_spoilt(*place, "settlement"):
            self._add(
                place,
                "settlement is needed with rpc_url",
                "deploy the contracts and write the address of Settlement",
            )
        if not config.solver.keystore and not self._is_spoilt("solver", "keystore"):
            self._add(
                place,
                "a chain with rpc_url needs the solver's key",
                "name a keystore file in [solver]",
            )

    def _known_chain(
        self, chain: int, chains: Mapping[int, object], place: _Place, key: str = "chain"
    ) -> None:
        if chain not in chains and self._is_whole("chain"):
            listed = ", ".join(str(number) for number in chains)
            hint = f"use one of {listed}" if listed else "add the chain"
            self._add((*place, key), f"no [[chain]] has id {chain}", hint)

    def _twice(self, name: str, key: str, keys: list[Any]) -> None:
        for number, entry in zip(self._numbers[name], range(len(keys)), strict=True):
            if keys[entry] in keys[:entry]:
                place = (name, number, key) if key else (name, number)
                known = keys[entry]
                shown = " ".join(map(str, known)) if isinstance(known, tuple) else known
                self._add(place, f"a second [[{name}]] for {shown}", "remove one")

    def _is_whole(self, name: str) -> bool:
        """Whether every entry of a list was read."""
        return (name,) not in self._spoilt and len(self._numbers[name]) == self._counts[name]

    def _is_spoilt(self, *place: str | int) -> bool:
        """Whether there is a mistake at a place or around it."""
        return any(place[:length] in self._spoilt for length in range(1, len(place) + 1))

    def _unknown(self, place: _Place, key: str, known: list[str]) -> None:
        if _SECRET.search(key) and key not in _SECRET_FREE:
            self._add(
                place,
                "secrets do not belong in a config file",
                "use [solver] keystore with its password in the environment",
            )
            return
        near = difflib.get_close_matches(key, known, n=1)
        if near:
            self._spoilt.add((*place[:-1], near[0]))
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
        self._add(place, "unknown key", hint)

    def _add(self, place: _Place, cause: str, suggestion: str) -> None:
        line = 1
        for length in range(len(place), 0, -1):
            if place[:length] in self._lines:
                line = self._lines[place[:length]]
                break
        self._spoilt.add(place)
        key = ".".join(str(part) for part in place)
        self.mistakes.append(Mistake(line, key, cause, suggestion))


def _names_in(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every ``devnet:NAME`` of a venue's options with its key."""
    for key, value in options.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and item.startswith("devnet:"):
                yield key, item


def _lines(text: str) -> dict[_Place, int]:
    """The line of every table and key, found by their shape; good enough to point at."""
    found: dict[_Place, int] = {}
    place: _Place = ()
    counts: dict[str, int] = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if header := re.match(r"\[\[\s*([\w-]+)\s*\]\]", line):
            name = header.group(1)
            place = (name, counts.get(name, 0))
            counts[name] = counts.get(name, 0) + 1
            found[place] = number
        elif header := re.match(r"\[\s*([\w.-]+)\s*\]", line):
            place = tuple(header.group(1).split("."))
            found.setdefault(place, number)
        elif key := re.match(r"[\"']?([\w.-]+)[\"']?\s*=", line):
            for prefix in _prefixes((*place, *key.group(1).split("."))):
                found.setdefault(prefix, number)
    return found


def _prefixes(place: _Place) -> Iterator[_Place]:
    return (place[:length] for length in range(len(place), 0, -1))
