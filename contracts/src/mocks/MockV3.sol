// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {V3Swapper} from "../V3Swapper.sol";

/// @dev What is called of a Uniswap v3 pool.
interface IV3PoolFull {
    function token0() external view returns (IERC20);
    function token1() external view returns (IERC20);
    function mint(address recipient, int24 tickLower, int24 tickUpper, uint128 amount, bytes calldata data)
        external
        returns (uint256 amount0, uint256 amount1);
    function swap(
        address recipient,
        bool zeroForOne,
        int256 amountSpecified,
        uint160 sqrtPriceLimitX96,
        bytes calldata data
    ) external returns (int256 amount0, int256 amount1);
}

/// @title MockTrader
/// @notice For local chains: provides liquidity and swaps in Uniswap v3 pools, out of its own balance.
/// @dev Pays whoever calls back; never give it anything of value.
contract MockTrader {
    /// @notice Opens a position of this contract.
    function mint(IV3PoolFull pool, int24 lower, int24 upper, uint128 liquidity) external {
        pool.mint(address(this), lower, upper, liquidity, "");
    }

    /// @notice The pool's own swap with all its arguments.
    function swap(IV3PoolFull pool, bool zeroForOne, int256 amount, uint160 limit) external {
        pool.swap(address(this), zeroForOne, amount, limit, "");
    }

    function uniswapV3MintCallback(uint256 owed0, uint256 owed1, bytes calldata) external {
        _pay(int256(owed0), int256(owed1));
    }

    function uniswapV3SwapCallback(int256 delta0, int256 delta1, bytes calldata) external {
        _pay(delta0, delta1);
    }

    function _pay(int256 owed0, int256 owed1) private {
        IV3PoolFull pool = IV3PoolFull(msg.sender);
        if (owed0 > 0) pool.token0().transfer(msg.sender, uint256(owed0));
        if (owed1 > 0) pool.token1().transfer(msg.sender, uint256(owed1));
    }
}

/// @title HostilePool
/// @notice Calls a swapper back as often and for as much as it was told, and pays out what it was told.
contract HostilePool {
    IERC20 public immutable tokenOut;
    int256 public asked;
    uint256 public times;
    uint256 public paid;
    bool public bothSides;

    constructor(IERC20 tokenOut_) {
        tokenOut = tokenOut_;
    }

    /// @notice How the next swaps go.
    function plan(int256 asked_, uint256 times_, uint256 paid_, bool bothSides_) external {
        (asked, times, paid, bothSides) = (asked_, times_, paid_, bothSides_);
    }

    function swap(address recipient, bool, int256, uint160, bytes calldata) external returns (int256, int256) {
        for (uint256 i = 0; i < times; ++i) {
            again(V3Swapper(msg.sender));
        }
        if (paid > 0) tokenOut.transfer(recipient, paid);
        return (0, 0);
    }

    /// @notice One more callback, at any time.
    function again(V3Swapper swapper) public {
        swapper.uniswapV3SwapCallback(asked, bothSides ? asked : int256(0), "");
    }
}
