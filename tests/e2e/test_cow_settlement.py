"""What the engine offers, settled by the real GPv2Settlement: every balance to the unit.

The contracts are those of CoW Protocol and Uniswap, unmodified, on Anvil. The owners sign their
orders, the engine answers through its HTTP door, :mod:`solver.core.gpv2` encodes, an allow-listed
solver sends.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.address import to_checksum_address
from msgspec.structs import replace
from web3.contract.contract import Contract
from web3.types import TxReceipt

from solver.config import CowConfig
from solver.core import crypto, gpv2
from solver.core.gpv2 import Order, Scheme
from solver.core.types import ZERO_ADDRESS, Call, JsonObject, Kind, Leg, TokenId
from tests.chain.evm import (
    MAX,
    ROOT,
    Actor,
    Chain,
    Revert,
    anvil,
    events,
    fields_of,
    lower,
    refusal,
)
from tests.cow import Driver, opened
from tests.e2e.make import PATIENCE_SECONDS, eventually
from venues.uniswap_v2 import V2Pair

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAIN = 31_337
UNIT = 10**18
GWEI = 10**9
COW = ROOT / "node_modules/@cowprotocol/contracts/lib/contracts"
UNISWAP = ROOT / "node_modules/@uniswap/v2-core/build"
#: Written out a second time on purpose: the oracle must not share what it judges.
ORDER_FIELDS = fields_of(
    "address sellToken,address buyToken,address receiver,uint256 sellAmount,uint256 buyAmount,"
    "uint32 validTo,bytes32 appData,uint256 feeAmount,string kind,bool partiallyFillable,"
    "string sellTokenBalance,string buyTokenBalance"
)


@dataclass
class Exchange:
    """The protocol on a chain, three tokens (the first is the native one), two pairs, people."""

    chain: Chain
    authenticator: Contract
    settlement: Contract
    tokens: list[Contract]
    pairs: list[Contract]
    admin: Actor
    solver: Actor
    people: list[Actor]
    orders: list[Signed] = field(default_factory=list)

    @property
    def separator(self) -> bytes:
        """The settlement's domain, as the contract itself has it."""
        return bytes(self.chain.view(self.settlement, "domainSeparator"))

    def signed(self, owner: Actor, order: Order, scheme: Scheme = Scheme.EIP712) -> Signed:
        """The order as its owner signs it; eth_account is the oracle."""
        names = ["sell_token", "buy_token", "receiver", "sell_amount", "buy_amount", "valid_to"]
        values: list[Any] = [getattr(order, name) for name in names]
        values += [bytes.fromhex(order.app_data[2:]), order.fee_amount, word_of(order.kind)]
        values += [order.partially_fillable, "erc20", "erc20"]
        message = dict(zip([entry["name"] for entry in ORDER_FIELDS], values, strict=True))
        domain = {
            "name": "Gnosis Protocol",
            "version": "v2",
            "chainId": self.chain.id,
            "verifyingContract": self.settlement.address,
        }
        document = encode_typed_data(domain, {"Order": ORDER_FIELDS}, message)
        uid = gpv2.uid_of(order, lower(owner), self.separator)
        digest = bytes.fromhex(uid[2:66])
        assert digest == crypto.keccak(b"\x19\x01" + document.header + document.body)
        if scheme is Scheme.PRESIGN:
            presign = ("setPreSignature", bytes.fromhex(uid[2:]), True)
            self.chain.send(self.settlement, *presign, sender=owner)
            return Signed(owner, order, uid, bytes.fromhex(owner.address[2:]), scheme)
        if scheme is Scheme.ETHSIGN:
            digest = crypto.keccak(b"\x19Ethereum Signed Message:\n32" + digest)
            return Signed(owner, order, uid, crypto.sign(digest, owner.key), scheme)
        signature = bytes(Account.sign_message(document, owner.key).signature)
        return Signed(owner, order, uid, signature, scheme)

    def balances(self) -> Counter[tuple[str, str]]:
        """What everybody has of every token, by holder and token."""
        holders: list[Actor | Contract] = [self.settlement, *self.pairs, *self.people]
        return Counter(
            {
                (lower(holder), lower(token)): self.chain.view(token, "balanceOf", holder.address)
                for holder in holders
                for token in self.tokens
            }
        )

    def pool(self, pair: Contract) -> V2Pair:
        """The pair as it stands."""
        reserve0, reserve1, _ = self.chain.view(pair, "getReserves")
        return V2Pair(
            id=lower(pair),
            token0=TokenId(CHAIN, self.chain.view(pair, "token0").lower()),
            token1=TokenId(CHAIN, self.chain.view(pair, "token1").lower()),
            reserve0=reserve0,
            reserve1=reserve1,
            fee_num=3,
            fee_den=1_000,
            gas=60_000,
            address=lower(pair),
        )

    def auction(self, orders: Sequence[Signed], limit: str = "limit") -> JsonObject:
        """What a driver would send."""
        view = self.chain.view
        return {
            "id": "1",
            "tokens": {
                lower(token): {
                    "decimals": 18,
                    "referencePrice": str(UNIT // worth),
                    "availableBalance": str(view(token, "balanceOf", self.settlement.address)),
                    "trusted": True,
                }
                for token, worth in zip(self.tokens, (1, 2, 4), strict=True)
            },
            "orders": [order.document(limit) for order in orders],
            "liquidity": [
                {
                    "kind": "constantProduct",
                    "id": str(number),
                    "address": lower(pair),
                    "router": ZERO_ADDRESS,
                    "gasEstimate": "60000",
                    "fee": "0.003",
                    "tokens": {
                        pool.token0.address: {"balance": str(pool.reserve0)},
                        pool.token1.address: {"balance": str(pool.reserve1)},
                    },
                }
                for number, pair in enumerate(self.pairs)
                for pool in [self.pool(pair)]
            ],
            "effectiveGasPrice": str(10 * GWEI),
            "deadline": "2106-01-01T00:00:00Z",
            "surplusCapturingJitOrderOwners": [],
        }

    def calls(self, solution: JsonObject) -> list[Call]:
        """The uses of the pairs that are not internalised."""
        return [
            call
            for use in solution["interactions"]
            if not use["internalize"]
            for call in self.pool(self.pairs[int(use["id"])]).encode(
                Leg(
                    use["id"],
                    TokenId(CHAIN, use["inputToken"]),
                    TokenId(CHAIN, use["outputToken"]),
                    int(use["inputAmount"]),
                    int(use["outputAmount"]),
                    0,
                    lower(self.settlement),
                )
            )
        ]

    def settle(self, data: str) -> TxReceipt:
        """A settlement that must succeed."""
        return self.chain.send_data(self.settlement, data, sender=self.solver)

    def refusal(self, data: str, sender: Actor) -> Revert:
        """Why a settlement is refused."""
        return self.chain.refused_data(self.settlement, data, sender=sender)


@dataclass(frozen=True)
class Signed:
    """An order with its owner's signature."""

    owner: Actor
    order: Order
    uid: str
    signature: bytes
    scheme: Scheme

    def document(self, limit: str) -> JsonObject:
        """The order in an auction."""
        order = self.order
        amounts = {"SellAmount": str(order.sell_amount), "BuyAmount": str(order.buy_amount)}
        return {
            "uid": self.uid,
            "sellToken": order.sell_token,
            "buyToken": order.buy_token,
            **{name[0].lower() + name[1:]: amount for name, amount in amounts.items()},
            **{f"full{name}": amount for name, amount in amounts.items()},
            "validTo": order.valid_to,
            "kind": word_of(order.kind),
            "owner": lower(self.owner),
            "partiallyFillable": order.partially_fillable,
            "class": limit,
            "preInteractions": [],
            "postInteractions": [],
            "sellTokenSource": "erc20",
            "buyTokenDestination": "erc20",
            "appData": order.app_data,
            "signingScheme": self.scheme.name.lower(),
            "signature": "0x" + self.signature.hex(),
        }

    def trade(self, said: JsonObject, prices: dict[str, str]) -> gpv2.Trade:
        """What a solution says of this order."""
        order = self.order
        pair = int(prices[order.sell_token]), int(prices[order.buy_token])
        amounts = gpv2.moved(order, int(said["executedAmount"]), int(said.get("fee", 0)), pair)
        return gpv2.Trade(order, *amounts, self.signature, self.scheme)


def word_of(kind: Kind) -> str:
    return "sell" if kind is Kind.EXACT_IN else "buy"


def package(path: Any) -> JsonObject:
    loaded: JsonObject = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def build(chain: Chain) -> Exchange:
    """Deploy everything; a token is worth 1, 1/2 and 1/4 of the native one."""
    admin, solver = Actor.named("admin"), Actor.named("solver")
    people = [Actor.named(name) for name in ("alice", "bob", "carol", "dave")]
    vault = Actor.named("vault").address  # only balances inside Balancer would need a real one
    authenticator = chain.deploy_code(
        "authenticator", package(COW / "GPv2AllowListAuthentication.json"), sender=admin
    )
    chain.send(authenticator, "initializeManager", admin.address, sender=admin)
    chain.send(authenticator, "addSolver", solver.address, sender=admin)
    settlement = chain.deploy_code(
        "settlement", package(COW / "GPv2Settlement.json"),
        authenticator.address, vault, sender=admin,
    )  # fmt: skip
    relayer = chain.view(settlement, "vaultRelayer")
    tokens = [
        chain.deploy("TestToken", name, name, 18, sender=admin)
        for name in ("ONE", "HALF", "FOURTH")
    ]
    for token in tokens:
        for person in people:
            chain.send(token, "mint", person.address, 1_000 * UNIT, sender=admin)
            chain.send(token, "approve", relayer, MAX, sender=person)
    factory = chain.deploy_code(
        "factory", package(UNISWAP / "UniswapV2Factory.json"), admin.address, sender=admin
    )
    abi = package(UNISWAP / "UniswapV2Pair.json")["abi"]
    pairs = []
    for first, second in ((0, 1), (1, 2)):
        two = [tokens[number].address for number in (first, second)]
        chain.send(factory, "createPair", *two, sender=admin)
        address = to_checksum_address(chain.view(factory, "getPair", *two))
        pair = chain.w3.eth.contract(address, abi=abi)
        for number, amount in ((first, 1_000), (second, 2_000)):
            chain.send(tokens[number], "mint", address, amount * UNIT, sender=admin)
        chain.send(pair, "mint", admin.address, sender=admin)
        pairs.append(pair)
    return Exchange(chain, authenticator, settlement, tokens, pairs, admin, solver, people)


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    with anvil(CHAIN) as chain:
        yield build(chain)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driver(
    exchange: Exchange, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Driver]:
    config = CowConfig(
        chain_id=CHAIN,
        wrapped_native=lower(exchange.tokens[0]),
        base_tokens=(lower(exchange.tokens[1]),),
        max_seconds=PATIENCE_SECONDS,
    )
    async with opened(config, tmp_path_factory.mktemp("gpv2")) as found:
        yield found


def four_orders(exchange: Exchange) -> list[Signed]:
    """Each kind of order once, signed in three ways; the first two can be settled together."""
    one, half, fourth = (lower(token) for token in exchange.tokens)
    alice, bob, carol, dave = exchange.people
    until = exchange.chain.time + 10_000
    sells, buys = Kind.EXACT_IN, Kind.EXACT_OUT
    app_data = "0x" + crypto.keccak(b"{}").hex()
    return [
        exchange.signed(alice, Order(one, half, 50 * UNIT, 80 * UNIT, until, sells)),
        exchange.signed(
            bob,
            Order(half, fourth, 60 * UNIT, 60 * UNIT, until, sells, True, app_data=app_data),
            Scheme.ETHSIGN,
        ),
        exchange.signed(
            carol,
            Order(one, fourth, 7 * UNIT, 20 * UNIT, until, sells, receiver=lower(dave)),
            Scheme.PRESIGN,
        ),
        exchange.signed(dave, Order(fourth, one, 90 * UNIT, 10 * UNIT, until, buys, True)),
    ]


def expected(
    before: Counter[tuple[str, str]],
    exchange: Exchange,
    solution: JsonObject,
    trades: dict[str, gpv2.Trade],
    orders: dict[str, Signed],
) -> Counter[tuple[str, str]]:
    """The balances after a settlement, from the solution alone."""
    after, own = Counter(before), lower(exchange.settlement)

    def move(token: str, source: str, target: str, amount: int) -> None:
        after[source, token] -= amount
        after[target, token] += amount

    for uid, trade in trades.items():
        owner, order = lower(orders[uid].owner), trade.order
        receiver = owner if order.receiver == ZERO_ADDRESS else order.receiver
        move(order.sell_token, owner, own, trade.sold)
        move(order.buy_token, own, receiver, trade.bought)
    for use in solution["interactions"]:
        if not use["internalize"]:
            pair = lower(exchange.pairs[int(use["id"])])
            move(use["inputToken"], own, pair, int(use["inputAmount"]))
            move(use["outputToken"], pair, own, int(use["outputAmount"]))
    return after


def settled(exchange: Exchange, orders: Sequence[Signed], solution: JsonObject) -> str:
    """Settle a solution, check everything that moved, and give back the calldata."""
    known = {order.uid: order for order in orders}
    trades = {
        said["order"]: known[said["order"]].trade(said, solution["prices"])
        for said in solution["trades"]
    }
    data = gpv2.settle(list(trades.values()), exchange.calls(solution))
    before = exchange.balances()
    receipt = exchange.settle(data)
    assert exchange.balances() == expected(before, exchange, solution, trades, known)
    told = events(exchange.settlement, receipt, "Trade")
    assert [(entry["sellAmount"], entry["buyAmount"]) for entry in told] == [
        (trade.sold, trade.bought) for trade in trades.values()
    ]
    assert [entry["orderUid"] for entry in told] == list(trades)
    return data


async def solved(driver: Driver, request: JsonObject, together: int = 1) -> list[JsonObject]:
    """The solutions; the process for several orders may still be starting."""

    async def ask() -> list[JsonObject]:
        status, answer = await driver.ask("/cow/solve", request)
        assert status == 200
        found: list[JsonObject] = answer["solutions"]
        return found

    def enough(found: list[JsonObject]) -> bool:
        return max(len(solution["trades"]) for solution in found) >= together

    found = await eventually(ask, enough)
    assert enough(found)
    return found


@pytest.mark.parametrize("limit", ["limit", "market"])
async def test_every_order_settles_to_the_unit(
    exchange: Exchange, driver: Driver, limit: str
) -> None:
    with exchange.chain.rewound():
        orders = four_orders(exchange)
        solutions = await solved(driver, exchange.auction(orders, limit))
        assert {trade["order"] for solution in solutions for trade in solution["trades"]} == {
            order.uid for order in orders
        }
        for solution in solutions:
            assert all(("fee" in trade) == (limit == "limit") for trade in solution["trades"])
            with exchange.chain.rewound():
                settled(exchange, orders, solution)


@pytest.mark.parametrize("limit", ["limit", "market"])
async def test_several_orders_settle_together(
    exchange: Exchange, driver: Driver, limit: str
) -> None:
    """One price per token, two fees, and both pairs in one transaction."""
    with exchange.chain.rewound():
        orders = four_orders(exchange)[:2]
        several, *_ = await solved(driver, exchange.auction(orders, limit), together=2)
        assert len(several["trades"]) == 2
        assert {use["id"] for use in several["interactions"]} == {"0", "1"}
        settled(exchange, orders, several)


async def test_what_is_internalised_comes_from_the_buffers(
    exchange: Exchange, driver: Driver
) -> None:
    with exchange.chain.rewound():
        half = exchange.tokens[1]
        mint = ("mint", exchange.settlement.address, 500 * UNIT)
        exchange.chain.send(half, *mint, sender=exchange.admin)
        orders = four_orders(exchange)[:1]
        solution, *_ = await solved(driver, exchange.auction(orders))
        assert [use["internalize"] for use in solution["interactions"]] == [True]
        assert exchange.calls(solution) == []
        settled(exchange, orders, solution)


async def test_a_second_time_it_reverts(exchange: Exchange, driver: Driver) -> None:
    with exchange.chain.rewound():
        orders = four_orders(exchange)[:2]
        several, *_ = await solved(driver, exchange.auction(orders), together=2)
        data = settled(exchange, orders, several)
        again = exchange.refusal(data, exchange.solver)
        assert again == refusal("Error", "GPv2: order filled")


async def test_only_a_solver_of_the_list_settles(exchange: Exchange, driver: Driver) -> None:
    with exchange.chain.rewound():
        alice, *_ = four_orders(exchange)
        solution, *_ = await solved(driver, exchange.auction([alice]))
        trade = alice.trade(solution["trades"][0], solution["prices"])
        data = gpv2.settle([trade], exchange.calls(solution))
        stranger = refusal("Error", "GPv2: not a solver")
        assert exchange.refusal(data, exchange.admin) == stranger
        assert exchange.refusal(data, alice.owner) == stranger
        remove = (exchange.authenticator, "removeSolver", exchange.solver.address)
        exchange.chain.send(*remove, sender=exchange.admin)
        assert exchange.refusal(data, exchange.solver) == stranger
        add = (exchange.authenticator, "addSolver", exchange.solver.address)
        exchange.chain.send(*add, sender=exchange.admin)
        exchange.settle(data)


async def test_the_contract_holds_to_the_limit_and_the_signature(
    exchange: Exchange, driver: Driver
) -> None:
    """A unit below the limit is refused, and so is any other field than the signed one."""
    with exchange.chain.rewound():
        alice, *_ = four_orders(exchange)
        solution, *_ = await solved(driver, exchange.auction([alice]))
        calls = exchange.calls(solution)
        trade = alice.trade(solution["trades"][0], solution["prices"])
        at_the_limit = replace(trade, bought=alice.order.buy_amount)
        below = replace(trade, bought=alice.order.buy_amount - 1)
        other = replace(trade, order=replace(trade.order, valid_to=trade.order.valid_to + 1))
        refused = exchange.refusal(gpv2.settle([below], calls), exchange.solver)
        assert refused == refusal("Error", "GPv2: limit price not respected")
        # The contract recovers the owner: a stranger, who approved nothing.
        refused = exchange.refusal(gpv2.settle([other], calls), exchange.solver)
        assert refused.name in ("ERC20InsufficientAllowance", "ERC20InsufficientBalance")
        exchange.settle(gpv2.settle([at_the_limit], calls))
