// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @title PoolReader
/// @notice Reads many pools in one `eth_call`.
/// @dev Deployed nowhere: its code is put at an unused address by the state override of the call, so that it works on
/// any chain at any block. Each answer is a bare sequence of words without an ABI header. A question that fails is
/// answered with {FAILED}, which is no valid answer of any of them. When the gas of the call runs short the answer
/// ends after the last whole entry, and the caller asks again for the rest.
contract PoolReader {
    /// @notice Stands for a question that reverted or answered fewer words than it has to.
    uint256 public constant FAILED = type(uint256).max;

    /// @dev Gas that must be left to go on: for the most expensive single question and for returning the answer.
    uint256 private constant RESERVE = 150_000;

    int24 private constant MAX_TICK = 887_272;

    /// @notice The first word that each target answers to the same call without arguments.
    function ask(address[] calldata targets, bytes4 selector) external view {
        uint256 start = _begin();
        uint256 end = start;
        for (uint256 i = 0; i < targets.length && _canGoOn(); ++i) {
            (bool ok, uint256 word,) = _ask(targets[i], selector, 0, 32);
            end = _put(end, ok ? word : FAILED);
        }
        _answer(start, end);
    }

    /// @notice The first word that one target answers to each call.
    function askOne(address target, bytes[] calldata calls) external view {
        uint256 start = _begin() + 0x2000; // calls are copied to the front
        uint256 end = start;
        for (uint256 i = 0; i < calls.length && _canGoOn(); ++i) {
            end = _put(end, _askWith(target, calls[i]));
        }
        _answer(start, end);
    }

    /// @notice Of each Uniswap v2 pair: reserve0 in the low 112 bits, reserve1 in the next 112.
    function reserves(address[] calldata pairs) external view {
        uint256 start = _begin();
        uint256 end = start;
        for (uint256 i = 0; i < pairs.length && _canGoOn(); ++i) {
            (bool ok, uint256 reserve0, uint256 reserve1) = _ask(pairs[i], bytes4(keccak256("getReserves()")), 0, 64);
            end = _put(end, ok ? reserve0 | (reserve1 << 112) : FAILED);
        }
        _answer(start, end);
    }

    /// @notice Of each Uniswap v3 pool: √P | tick << 160; liquidity | number of ticks << 128; then for each initialised
    /// tick, rising, liquidityNet | tick << 128 (both two's complement). A pool that fails is {FAILED} alone.
    /// @param words How many words of the bitmap are read on each side of the one that holds the price.
    function concentrated(address[] calldata pools, uint256 words) external view {
        uint256 start = _begin();
        uint256 end = start;
        for (uint256 i = 0; i < pools.length && _canGoOn(); ++i) {
            (uint256 next, bool complete) = _concentrated(pools[i], int256(words), end);
            if (!complete) break;
            end = next;
        }
        _answer(start, end);
    }

    function _concentrated(address pool, int256 words, uint256 offset) private view returns (uint256, bool) {
        (bool ok, uint256 price, uint256 word) = _ask(pool, bytes4(keccak256("slot0()")), 0, 64);
        int256 tick = int256(word);
        uint256 liquidity;
        if (ok) (ok, liquidity,) = _ask(pool, bytes4(keccak256("liquidity()")), 0, 32);
        if (ok) (ok, word,) = _ask(pool, bytes4(keccak256("tickSpacing()")), 0, 32);
        int256 spacing = int256(word);
        ok = ok && price < 1 << 160 && liquidity < 1 << 128 && spacing > 0 && spacing <= MAX_TICK
            && tick >= -MAX_TICK - 1 && tick <= MAX_TICK;
        if (!ok) return (_put(offset, FAILED), true);
        uint256 end = offset + 64;
        if (price != 0) {
            int256 middle = _floorDiv(tick, spacing) >> 8;
            int256 first = _max(middle - words, _floorDiv(-MAX_TICK, spacing) >> 8);
            int256 last = _min(middle + words, (MAX_TICK / spacing) >> 8);
            for (int256 place = first; place <= last; ++place) {
                if (!_canGoOn()) return (offset, false);
                uint256 map;
                (ok, map,) = _ask(pool, bytes4(keccak256("tickBitmap(int16)")), uint256(place), 32);
                if (!ok) return (_put(offset, FAILED), true);
                for (; map != 0; map &= map - 1) {
                    if (!_canGoOn()) return (offset, false);
                    int256 found = ((place << 8) + int256(Math.log2(map & (~map + 1)))) * spacing;
                    uint256 net;
                    (ok,, net) = _ask(pool, bytes4(keccak256("ticks(int24)")), uint256(found), 64);
                    if (!ok) return (_put(offset, FAILED), true);
                    end = _put(end, (net & type(uint128).max) | (uint256(found) << 128));
                }
            }
        }
        _put(offset, price | (uint256(tick) << 160));
        _put(offset + 32, liquidity | (((end - offset) / 32 - 2) << 128));
        return (end, true);
    }

    /// @dev Asks with one argument; the first two words of the answer. Uses only the scratch space of memory.
    function _ask(address target, bytes4 selector, uint256 argument, uint256 size)
        private
        view
        returns (bool ok, uint256 first, uint256 second)
    {
        assembly ("memory-safe") {
            mstore(0x00, selector)
            mstore(0x04, argument)
            ok := staticcall(gas(), target, 0x00, 0x24, 0x00, 0x40)
            ok := and(ok, iszero(lt(returndatasize(), size)))
            first := mload(0x00)
            second := mload(0x20)
        }
    }

    function _askWith(address target, bytes calldata call) private view returns (uint256 word) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            word := not(0)
            if lt(call.length, 0x2000) {
                calldatacopy(free, call.offset, call.length)
                let ok := staticcall(gas(), target, free, call.length, 0x00, 0x20)
                if and(ok, gt(returndatasize(), 0x1f)) { word := mload(0x00) }
            }
        }
    }

    function _canGoOn() private view returns (bool) {
        return gasleft() > RESERVE;
    }

    /// @dev Where the answer is written: free memory, which nothing else uses afterwards.
    function _begin() private pure returns (uint256 start) {
        assembly ("memory-safe") {
            start := mload(0x40)
        }
    }

    function _put(uint256 offset, uint256 word) private pure returns (uint256) {
        assembly ("memory-safe") {
            mstore(offset, word)
        }
        return offset + 32;
    }

    function _answer(uint256 start, uint256 end) private pure {
        assembly ("memory-safe") {
            return(start, sub(end, start))
        }
    }

    function _floorDiv(int256 a, int256 b) private pure returns (int256) {
        return a < 0 && a % b != 0 ? a / b - 1 : a / b;
    }

    function _max(int256 a, int256 b) private pure returns (int256) {
        return a > b ? a : b;
    }

    function _min(int256 a, int256 b) private pure returns (int256) {
        return a < b ? a : b;
    }
}
