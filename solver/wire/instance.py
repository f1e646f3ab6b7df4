"""``thalweg.instance/1``: a recorded batch, enough to solve it again without a chain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from solver.core.batch import Terms
from solver.core.derivation import Decision, Derived, Draw, Move
from solver.core.intent import digest_of
from solver.core.pools import (
    BookPool,
    BufferPool,
    ConcentratedPool,
    ConstantProductPool,
    CurvePool,
    CurveVariant,
    EclpParameters,
    GyroPool,
    Level,
    LimitOrderPool,
    RoutePool,
    StablePool,
    StableVersion,
    Surge,
    TickMap,
    WeightedPool,
    WeightedVersion,
)
from solver.core.proof import node_name
from solver.core.schedule import FeeSchedule
from solver.core.types import (
    BPS,
    UINT256_MAX,
    JsonObject,
    Kind,
    Rejection,
    Solution,
    StandAlone,
    Token,
    TokenId,
)
from solver.core.types import Intent as CoreIntent
from solver.core.venue import BlockRef, Pool, Quote, Snapshot, StatesRoutes, described
from solver.wire import accounts
from solver.wire.accounts import MarginDocument
from solver.wire.jsonio import (
    Amount,
    Invalid,
    amount,
    camel,
    escape,
    invalid,
    positive,
    whole,
)
from solver.wire.solution import (
    AloneDocument,
    FillDocument,
    InventoryDocument,
    LegDocument,
    fills_document,
    inventory_document,
    legs_document,
    solution_document,
)
from solver.wire.swap import SwapDocument, swap_from_core, swap_to_core

FORMAT = "thalweg.instance/1"
_MAX_FIGURE = 60


class InstanceChain(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A chain and the block that the pools were read at."""

    chain_id: int
    settlement: str
    block_number: int = 0
    block_hash: str = ""
    block_time: int = 0
    gas_price_wei: str = "0"


class InstanceAsset(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """``price`` is the numeraire per base unit, as a decimal string."""

    chain_id: int
    address: str
    decimals: int
    symbol: str = ""
    price: str = ""
    inventory: str = "0"


class InstanceIntent(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A swap in the spelling of the HTTP door; the digest is computed, never read.

    ``covered`` is what of the rest its owner's balance covered, where it was less.
    """

    swap: JsonObject
    signature: str = "0x"
    filled: str = "0"
    covered: str = ""


class InstanceSchedule(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The operator's fees beside gas: shares of 1 as decimal strings."""

    volume_factor: str = "0"
    surplus_factor: str = "0"
    surplus_max_volume_factor: str = "0"
    improvement_factor: str = "0"
    improvement_max_volume_factor: str = "0"
    solver_factor: str = "0"


class InstanceTerms(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The operator's terms: flat fees by digest in buy tokens, numeraire per unit of gas, and the
    schedule of what is taken from each fill.
    """

    fees: dict[str, str] = {}
    gas_value: str = "0"
    max_impact_bps: int = BPS
    capital_bps: int = 0
    schedule: InstanceSchedule = InstanceSchedule()


class InstanceProposal(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What was sent for a recorded batch, and the surplus and its bound at the time.

    From the orders' amounts, the amounts into the pools and the rates the rest is derived again.
    """

    fills: list[FillDocument]
    legs: list[LegDocument]
    inventory: list[InventoryDocument]
    clearing: dict[str, tuple[Amount, Amount]]
    dust: dict[str, Amount]
    stage: str
    value: str
    bound: str
    alone: list[AloneDocument] = []


class Instance(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The whole file. ``seed`` decides the order of service where it is free; a recorded batch has
    the hash of its snapshot there, and in ``proposal`` what was sent for it.
    """

    format: str
    chains: list[InstanceChain]
    assets: list[InstanceAsset]
    intents: list[InstanceIntent]
    pools: list[JsonObject]
    price_source: str = ""
    seed: str = ""
    terms: InstanceTerms = InstanceTerms()
    margin: MarginDocument | None = None
    proposal: InstanceProposal | None = None


def terms_to_core(instance: Instance) -> Terms:
    """The terms of the file. Raises Invalid."""
    terms = instance.terms
    for name, bps in (("maxImpactBps", terms.max_impact_bps), ("capitalBps", terms.capital_bps)):
        if not 0 <= bps <= BPS:
            raise Invalid("bad_integer", f"not in [0, {BPS}]", f"/terms/{name}")
    return Terms(
        {digest: whole(fee, f"/terms/fees/{escape(digest)}") for digest, fee in terms.fees.items()},
        _figure(terms.gas_value, "/terms/gasValue"),
        terms.max_impact_bps,
        terms.capital_bps,
        schedule=_schedule(terms.schedule),
        margin=accounts.to_core(instance.margin) if instance.margin else None,
    )


def _schedule(written: InstanceSchedule) -> FeeSchedule:
    place = "/terms/schedule"
    factors = {
        name: _figure(text, f"{place}/{camel(name)}")
        for name, text in msgspec.structs.asdict(written).items()
    }
    try:
        return FeeSchedule(**factors)
    except ValueError as error:
        raise Invalid("bad_number", str(error), place) from error


def from_core(
    snapshot: Snapshot,
    intents: Sequence[CoreIntent],
    terms: Terms,
    settlements: Mapping[int, str],
    tokens: Mapping[TokenId, Token],
    solution: Solution | None = None,
) -> Instance:
    """A batch, and what was sent for it, as a file from which it is solved again.

    Pools of kinds that the format does not have are left out; :func:`omitted_pools` names them.
    """
    known = [entry for entry in map(_pool_document, snapshot.pools) if entry is not None]
    return Instance(
        FORMAT,
        [
            InstanceChain(
                chain,
                settlements[chain],
                block.number,
                block.hash,
                block.timestamp,
                str(snapshot.gas_price_wei.get(chain, 0)),
            )
            for chain, block in snapshot.blocks.items()
        ],
        [
            InstanceAsset(
                token.id.chain,
                token.id.address,
                token.decimals,
                token.symbol,
                repr(snapshot.prices[token.id]) if token.id in snapshot.prices else "",
                str(snapshot.inventory.get(token.id, 0)),
            )
            for token in tokens.values()
        ],
        [
            InstanceIntent(
                swap_from_core(intent.swap),
                intent.signature,
                str(intent.filled),
                "" if intent.covered is None else str(intent.covered),
            )
            for intent in intents
        ],
        known,
        snapshot.prices_source,
        snapshot.hash,
        InstanceTerms(
            {digest: str(fee) for digest, fee in terms.fees.items()},
            repr(terms.gas_value),
            terms.max_impact_bps,
            terms.capital_bps,
            InstanceSchedule(
                **{name: repr(f) for name, f in msgspec.structs.asdict(terms.schedule).items()}
            ),
        ),
        accounts.from_core(terms.margin) if terms.margin else None,
        None if solution is None else _proposal(solution),
    )


def _proposal(solution: Solution) -> InstanceProposal:
    said, proven = solution_document(solution), solution.certificate
    return InstanceProposal(
        said.fills, said.legs, said.inventory, said.clearing, said.dust, said.stage,
        proven.value, proven.bound, said.alone,
    )  # fmt: skip


def decision_of(proposal: InstanceProposal, intents: Sequence[CoreIntent]) -> Decision:
    """What of a proposal was decided; the rest follows. Raises Invalid."""
    exact_out = {intent.digest for intent in intents if intent.swap.kind is Kind.EXACT_OUT}
    amounts = {
        fill.digest: whole(
            fill.buy if fill.digest in exact_out else fill.sell, f"/proposal/fills/{number}"
        )
        for number, fill in enumerate(proposal.fills)
    }
    moves = [
        Move(*_moved(leg, f"/proposal/legs/{number}"), leg.pool)
        for number, leg in enumerate(proposal.legs)
    ]
    draws = [
        Draw(*_moved(use, f"/proposal/inventory/{number}"))
        for number, use in enumerate(proposal.inventory)
    ]
    rates = {
        pair: (whole(buy, place), whole(sell, place))
        for pair, (buy, sell) in proposal.clearing.items()
        for place in [f"/proposal/clearing/{escape(pair)}"]
    }
    return Decision(amounts, tuple(moves), tuple(draws), rates)


def alone_of(proposal: InstanceProposal) -> tuple[StandAlone, ...]:
    """What each order would have got without the others, as recorded. Raises Invalid."""
    return tuple(
        StandAlone(
            answer.digest,
            whole(answer.sell, f"/proposal/alone/{number}/sell"),
            whole(answer.buy, f"/proposal/alone/{number}/buy"),
            answer.value,
            answer.bound,
        )
        for number, answer in enumerate(proposal.alone)
    )


def derived_again(proposal: InstanceProposal, derived: Derived) -> InstanceProposal:
    """The proposal with everything that follows from its decisions written anew."""
    return msgspec.structs.replace(
        proposal,
        fills=fills_document(derived.fills),
        legs=legs_document(derived.legs),
        inventory=inventory_document(derived.inventory),
        dust={node_name(node): str(amount) for node, amount in derived.dust.items()},
    )


def _moved(move: LegDocument | InventoryDocument, pointer: str) -> tuple[TokenId, TokenId, int]:
    """From, to and how much goes in. Raises Invalid."""
    try:
        ends = TokenId.parse(move.token_in), TokenId.parse(move.token_out)
    except ValueError as error:
        raise Invalid("bad_token", str(error), pointer) from error
    return *ends, whole(move.amount_in, f"{pointer}/amountIn")


def omitted_pools(snapshot: Snapshot) -> list[str]:
    """Pools of kinds that the format does not have."""
    return [pool.id for pool in snapshot.pools if _pool_document(pool) is None]


def _pool_document(pool: Pool) -> JsonObject | None:
    if isinstance(pool, ConstantProductPool):
        return {
            "kind": "constantProduct",
            "id": pool.id,
            "tokens": [str(pool.token0), str(pool.token1)],
            "reserves": [str(pool.reserve0), str(pool.reserve1)],
            "feeNum": pool.fee_num,
            "feeDen": pool.fee_den,
            "gas": pool.gas,
        }
    if isinstance(pool, BookPool):
        return {
            "kind": "orderBook",
            "id": pool.id,
            "base": str(pool.base),
            "quote": str(pool.quote),
            "lotSize": str(pool.lot_size),
            "takerFeeBps": pool.taker_fee_bps,
            "bids": [[str(level.price), str(level.lots)] for level in pool.bids],
            "asks": [[str(level.price), str(level.lots)] for level in pool.asks],
            "gas": pool.gas,
            "gasPerLevel": pool.gas_per_level,
        }
    if isinstance(pool, LimitOrderPool):
        return {
            "kind": "limitOrder",
            "id": pool.id,
            "makerToken": str(pool.maker_token),
            "takerToken": str(pool.taker_token),
            "makerAmount": str(pool.maker_amount),
            "takerAmount": str(pool.taker_amount),
            "gas": pool.gas,
        }
    if isinstance(pool, ConcentratedPool):
        return {
            "kind": "concentrated",
            "id": pool.id,
            "tokens": [str(pool.token0), str(pool.token1)],
            "feePips": pool.fee_pips,
            "tickSpacing": pool.tick_spacing,
            "sqrtPriceX96": str(pool.sqrt_price_x96),
            "tick": pool.tick,
            "liquidity": str(pool.liquidity),
            "liquidityNet": {
                str(tick): str(net)
                for tick, net in zip(pool.ticks.ticks, pool.ticks.nets, strict=True)
            },
            "gas": pool.gas,
            "gasPerTick": pool.gas_per_tick,
        }
    if isinstance(pool, WeightedPool):
        return {
            "kind": "weighted",
            **_coins_document(pool),
            "weights": _texts(pool.weights),
            "scaling": _texts(pool.scaling),
            "version": pool.version.value,
            "tradeLimit": str(pool.trade_limit),
        }
    if isinstance(pool, StablePool):
        surge = pool.surge
        return {
            "kind": "stable",
            **_coins_document(pool),
            "amp": str(pool.amp),
            "scaling": _texts(pool.scaling),
            "version": pool.version.value,
            "surge": None if surge is None else [str(surge.threshold), str(surge.most)],
        }
    if isinstance(pool, CurvePool):
        return {
            "kind": "curve",
            **_coins_document(pool),
            "amp": str(pool.amp),
            "variant": pool.variant.value,
        }
    if isinstance(pool, GyroPool):
        return {
            "kind": "gyro",
            **_coins_document(pool),
            "scaling": _texts(pool.scaling),
            "parameters": {
                camel(name): _texts(value) if isinstance(value, tuple) else str(value)
                for name, value in msgspec.structs.asdict(pool.parameters).items()
            },
        }
    if isinstance(pool, BufferPool):
        return {
            "kind": "buffer",
            "id": pool.id,
            "wrapped": str(pool.wrapped),
            "underlying": str(pool.underlying),
            "rate": str(pool.rate),
            "wrappedLeft": str(pool.wrapped_left),
            "underlyingLeft": str(pool.underlying_left),
            "gas": pool.gas,
        }
    if isinstance(pool, StatesRoutes):
        quote = pool.route()
        return {
            "kind": "bridge",
            "id": pool.id,
            "tokenIn": str(quote.token_in),
            "tokenOut": str(quote.token_out),
            "fixedFee": str(quote.fixed_fee),
            "feeBps": quote.fee_bps,
            "capacity": str(quote.capacity),
            "delaySeconds": quote.delay_seconds,
        }
    return None


def _coins_document(pool: WeightedPool | StablePool | CurvePool | GyroPool) -> JsonObject:
    """What all pools of several coins have."""
    return {
        "id": pool.id,
        "coins": [str(coin) for coin in pool.coins],
        "balances": _texts(pool.balances),
        "rates": _texts(pool.rates),
        "fee": str(pool.fee),
        "gas": pool.gas,
    }


def _texts(values: Sequence[int]) -> list[str]:
    return [str(value) for value in values]


def to_core(instance: Instance) -> tuple[Snapshot, tuple[CoreIntent, ...], tuple[str, ...]]:
    """Snapshot, intents and warnings. Raises Invalid with the place of what is wrong."""
    if instance.format != FORMAT:
        raise Invalid(
            "wrong_format", f"format is {instance.format!r}, expected {FORMAT!r}", "/format"
        )
    warnings: list[str] = []
    pools: list[Pool] = []
    for number, entry in enumerate(instance.pools):
        try:
            pool = _pool(entry, number)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise Invalid("bad_pool", described(error), f"/pools/{number}") from error
        if pool is None:
            warnings.append(f"pool {number} of kind {entry.get('kind')!r} is not supported")
        else:
            pools.append(pool)
    settlements = {chain.chain_id: chain.settlement.lower() for chain in instance.chains}
    intents = tuple(
        _intent(entry, f"/intents/{number}", settlements)
        for number, entry in enumerate(instance.intents)
    )
    prices: dict[TokenId, float] = {}
    inventory: dict[TokenId, int] = {}
    for number, asset in enumerate(instance.assets):
        token, place = TokenId(asset.chain_id, asset.address.lower()), f"/assets/{number}"
        if asset.price:
            prices[token] = _figure(asset.price, f"{place}/price")
        inventory[token] = whole(asset.inventory, f"{place}/inventory")
    snapshot = Snapshot(
        {
            c.chain_id: BlockRef(c.chain_id, c.block_number, c.block_hash, c.block_time)
            for c in instance.chains
        },
        tuple(pools),
        prices,
        {token: held for token, held in inventory.items() if held},
        {
            c.chain_id: whole(c.gas_price_wei, f"/chains/{k}/gasPriceWei")
            for k, c in enumerate(instance.chains)
        },
        {},
        instance.price_source,
        instance.seed,
    )
    return snapshot, intents, tuple(warnings)


def _intent(entry: InstanceIntent, pointer: str, settlements: dict[int, str]) -> CoreIntent:
    try:
        document = msgspec.convert(entry.swap, SwapDocument)
    except msgspec.ValidationError as error:
        refusal = invalid(str(error))
        raise Invalid(refusal.code, refusal.detail, f"{pointer}/swap{refusal.pointer}") from error
    swap = swap_to_core(document, f"{pointer}/swap")
    if isinstance(swap, Rejection):
        raise Invalid(swap.code, swap.detail, swap.pointer)
    positive(document.sell_amount, f"{pointer}/swap/sellAmount")
    positive(document.buy_amount, f"{pointer}/swap/buyAmount")
    if swap.sell_chain not in settlements:
        detail = f"chain {swap.sell_chain} is not among the chains"
        raise Invalid("wrong_chain", detail, f"{pointer}/swap/sellChain")
    filled = whole(entry.filled, f"{pointer}/filled")
    if filled >= swap.total:
        raise Invalid("bad_amount", "nothing is left to fill", f"{pointer}/filled")
    digest = digest_of(swap, settlements[swap.sell_chain])
    covered = positive(entry.covered, f"{pointer}/covered") if entry.covered else None
    return CoreIntent(digest, swap, entry.signature, filled, covered)


def tokens_of(instance: Instance) -> dict[TokenId, Token]:
    """What the file says of its tokens."""
    found = [
        Token(TokenId(asset.chain_id, asset.address.lower()), asset.symbol, asset.decimals)
        for asset in instance.assets
    ]
    return {token.id: token for token in found}


def _figure(text: str, pointer: str) -> float:
    """A finite float that is not negative, from a decimal string."""
    try:
        value = float(text) if len(text) <= _MAX_FIGURE else math.nan
    except ValueError:
        value = math.nan
    if not 0.0 <= value < math.inf:
        raise Invalid("bad_number", "not a decimal number of at least 0", pointer)
    return value


def _natural(value: object) -> int:
    """An amount of a pool, as a JSON integer or a canonical decimal string."""
    found = amount(value) if isinstance(value, str) else value
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= UINT256_MAX:
        raise ValueError(f"{str(value)[:40]!r} is not an unsigned integer of 256 bits")
    return found


def _pool(entry: JsonObject, number: int) -> Pool | None:
    name, gas = str(entry.get("id", number)), _natural(entry.get("gas", 0))
    kind = entry.get("kind")
    if kind == "constantProduct":
        (token0, token1), (reserve0, reserve1) = entry["tokens"], entry["reserves"]
        return ConstantProductPool(
            id=name,
            token0=TokenId.parse(token0),
            token1=TokenId.parse(token1),
            reserve0=_natural(reserve0),
            reserve1=_natural(reserve1),
            fee_num=_natural(entry["feeNum"]),
            fee_den=_natural(entry["feeDen"]),
            gas=gas,
        )
    if kind == "orderBook":
        return BookPool(
            id=name,
            base=TokenId.parse(entry["base"]),
            quote=TokenId.parse(entry["quote"]),
            lot_size=_natural(entry["lotSize"]),
            taker_fee_bps=_natural(entry["takerFeeBps"]),
            bids=tuple(Level(_natural(price), _natural(lots)) for price, lots in entry["bids"]),
            asks=tuple(Level(_natural(price), _natural(lots)) for price, lots in entry["asks"]),
            gas=gas,
            gas_per_level=_natural(entry.get("gasPerLevel", 0)),
        )
    if kind == "limitOrder":
        return LimitOrderPool(
            id=name,
            maker_token=TokenId.parse(entry["makerToken"]),
            taker_token=TokenId.parse(entry["takerToken"]),
            maker_amount=_natural(entry["makerAmount"]),
            taker_amount=_natural(entry["takerAmount"]),
            gas=gas,
        )
    if kind == "bridge":
        quote = Quote(
            TokenId.parse(entry["tokenIn"]),
            TokenId.parse(entry["tokenOut"]),
            _natural(entry["fixedFee"]),
            _natural(entry["feeBps"]),
            _natural(entry["capacity"]),
            _natural(entry["delaySeconds"]),
        )
        return RoutePool(id=name, quote=quote)
    if kind == "concentrated":
        return _concentrated(entry, name, gas)
    if kind == "buffer":
        return BufferPool(
            id=name,
            wrapped=TokenId.parse(entry["wrapped"]),
            underlying=TokenId.parse(entry["underlying"]),
            rate=_natural(entry["rate"]),
            wrapped_left=_natural(entry["wrappedLeft"]),
            underlying_left=_natural(entry["underlyingLeft"]),
            gas=gas,
        )
    if kind in ("weighted", "stable", "curve", "gyro"):
        return _pool_of_coins(entry, kind, name, gas)
    return None


def _concentrated(entry: JsonObject, name: str, gas: int) -> ConcentratedPool:
    token0, token1 = entry["tokens"]
    spacing = _natural(entry["tickSpacing"])
    nets = {int(tick): int(net) for tick, net in entry["liquidityNet"].items()}
    return ConcentratedPool(
        id=name,
        token0=TokenId.parse(token0),
        token1=TokenId.parse(token1),
        fee_pips=_natural(entry["feePips"]),
        tick_spacing=spacing,
        sqrt_price_x96=_natural(entry["sqrtPriceX96"]),
        tick=int(entry["tick"]),
        liquidity=_natural(entry["liquidity"]),
        ticks=TickMap.of(nets, spacing),
        gas=gas,
        gas_per_tick=_natural(entry["gasPerTick"]),
    )


def _pool_of_coins(entry: JsonObject, kind: str, name: str, gas: int) -> Pool:
    coins = tuple(TokenId.parse(coin) for coin in entry["coins"])
    lists = ["balances", "rates", *(["scaling"] if kind != "curve" else [])]
    lists += ["weights"] if kind == "weighted" else []
    values = {field: _integers(entry, field, len(coins)) for field in lists}
    fee = _natural(entry["fee"])
    if kind == "weighted":
        return WeightedPool(
            id=name,
            coins=coins,
            fee=fee,
            version=WeightedVersion(entry["version"]),
            gas=gas,
            trade_limit=_natural(entry["tradeLimit"]),
            **values,
        )
    if kind == "stable":
        surge = entry["surge"]
        return StablePool(
            id=name,
            coins=coins,
            amp=_natural(entry["amp"]),
            fee=fee,
            version=StableVersion(entry["version"]),
            gas=gas,
            surge=None if surge is None else Surge(_natural(surge[0]), _natural(surge[1])),
            **values,
        )
    if kind == "curve":
        return CurvePool(
            id=name,
            coins=coins,
            amp=_natural(entry["amp"]),
            fee=fee,
            variant=CurveVariant(entry["variant"]),
            gas=gas,
            **values,
        )
    document: JsonObject = {
        "id": name,
        "coins": coins,
        "parameters": _ellipse(entry["parameters"]),
        "fee": fee,
        "gas": gas,
        **values,
    }
    return msgspec.convert(document, GyroPool)


def _ellipse(entry: JsonObject) -> EclpParameters:
    fields: JsonObject = {}
    for name in EclpParameters.__struct_fields__:
        value = entry[camel(name)]
        fields[name] = [int(part) for part in value] if isinstance(value, list) else int(value)
    return msgspec.convert(fields, EclpParameters)


def _integers(entry: JsonObject, field: str, count: int) -> tuple[int, ...]:
    values = tuple(_natural(value) for value in entry[field])
    if len(values) != count:
        raise ValueError(f"{entry.get('id')}: {len(values)} {field} for {count} coins")
    return values
