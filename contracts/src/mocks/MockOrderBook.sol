// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";

/// @title MockOrderBook
/// @notice A small on-chain book of price levels, funded by its own balance, that anyone may take in whole lots.
/// @dev A price is quote units per lot of base. Every change of a level has its own sequence number, so that a reader
/// of the events knows when it missed one.
contract MockOrderBook is ReentrancyGuard {
    using SafeERC20 for IERC20;

    struct Level {
        uint256 price;
        uint256 lots;
    }

    address public immutable maker;
    IERC20 public immutable base;
    IERC20 public immutable quote;
    uint256 public immutable lotSize;
    uint256 public immutable tickSize;
    uint256 public immutable takerFeeBps;

    /// @notice Number of the last change.
    uint64 public sequence;

    /// @dev Best first: bids falling, asks rising.
    Level[] private _bids;
    Level[] private _asks;

    event LevelChanged(uint64 indexed sequence, bool isBid, uint256 price, uint256 lots);
    event Taken(address indexed taker, bool buyBase, uint256 lots, uint256 quoteAmount, address to);

    error BadConfiguration();
    error OnlyMaker(address caller);
    error OffTick(uint256 price);
    error Crossed(uint256 price);
    error NothingTaken();
    error NotEnoughLots(uint256 missing);
    error LimitExceeded(uint256 quoteAmount, uint256 limitQuote);

    constructor(IERC20 base_, IERC20 quote_, uint256 lotSize_, uint256 tickSize_, uint256 takerFeeBps_) {
        if (address(base_) == address(quote_) || lotSize_ == 0 || tickSize_ == 0 || takerFeeBps_ >= 10_000) revert BadConfiguration();
        maker = msg.sender;
        base = base_;
        quote = quote_;
        lotSize = lotSize_;
        tickSize = tickSize_;
        takerFeeBps = takerFeeBps_;
    }

    /// @notice Sets the size of one level; zero lots remove it.
    function setLevel(bool isBid, uint256 price, uint256 lots) external {
        if (msg.sender != maker) revert OnlyMaker(msg.sender);
        if (price == 0 || price % tickSize != 0) revert OffTick(price);
        Level[] storage opposite = isBid ? _asks : _bids;
        if (lots > 0 && opposite.length > 0) {
            if (isBid ? price >= opposite[0].price : price <= opposite[0].price) revert Crossed(price);
        }
        _set(isBid, price, lots);
    }

    /// @notice Buys (`buyBase`) or sells `lots` lots of base at the best prices; all of them or none.
    /// @dev The taker pays, or receives, the sum of price·lots and the fee, which is rounded up once per call.
    /// @param limitQuote Most paid when buying, least received when selling; both with the fee.
    /// @return quoteAmount Quote paid or received.
    function take(bool buyBase, uint256 lots, uint256 limitQuote, address to)
        external
        nonReentrant
        returns (uint256 quoteAmount)
    {
        if (lots == 0) revert NothingTaken();
        uint256 gross = _consume(!buyBase, lots);
        uint256 fee = (gross * takerFeeBps + 9_999) / 10_000;
        quoteAmount = buyBase ? gross + fee : gross - fee;
        if (buyBase ? quoteAmount > limitQuote : quoteAmount < limitQuote) {
            revert LimitExceeded(quoteAmount, limitQuote);
        }
        (IERC20 pay, uint256 payAmount) = buyBase ? (quote, quoteAmount) : (base, lots * lotSize);
        (IERC20 give, uint256 giveAmount) = buyBase ? (base, lots * lotSize) : (quote, quoteAmount);
        pay.safeTransferFrom(msg.sender, address(this), payAmount);
        give.safeTransfer(to, giveAmount);
        emit Taken(msg.sender, buyBase, lots, quoteAmount, to);
    }

    /// @notice The whole book, best levels first.
    function book()
        external
        view
        returns (
            uint64 sequence_,
            uint256[] memory bidPrices,
            uint256[] memory bidLots,
            uint256[] memory askPrices,
            uint256[] memory askLots
        )
    {
        (bidPrices, bidLots) = _columns(_bids);
        (askPrices, askLots) = _columns(_asks);
        sequence_ = sequence;
    }

    function _columns(Level[] storage side) private view returns (uint256[] memory prices, uint256[] memory lots) {
        prices = new uint256[](side.length);
        lots = new uint256[](side.length);
        for (uint256 i = 0; i < side.length; ++i) {
            (prices[i], lots[i]) = (side[i].price, side[i].lots);
        }
    }

    /// @dev Takes lots off one side and returns their price.
    function _consume(bool fromBids, uint256 lots) private returns (uint256 gross) {
        Level[] storage side = fromBids ? _bids : _asks;
        while (lots > 0) {
            if (side.length == 0) revert NotEnoughLots(lots);
            Level memory best = side[0];
            uint256 taken = lots < best.lots ? lots : best.lots;
            gross += taken * best.price;
            lots -= taken;
            _set(fromBids, best.price, best.lots - taken);
        }
    }

    function _set(bool isBid, uint256 price, uint256 lots) private {
        Level[] storage side = isBid ? _bids : _asks;
        uint256 position = 0;
        while (position < side.length && (isBid ? side[position].price > price : side[position].price < price)) ++position;
        bool exists = position < side.length && side[position].price == price;
        if (exists && lots > 0) {
            side[position].lots = lots;
        } else if (exists) {
            for (uint256 i = position; i + 1 < side.length; ++i) side[i] = side[i + 1];
            side.pop();
        } else if (lots > 0) {
            side.push();
            for (uint256 i = side.length - 1; i > position; --i) side[i] = side[i - 1];
            side[position] = Level(price, lots);
        }
        emit LevelChanged(++sequence, isBid, price, lots);
    }
}
