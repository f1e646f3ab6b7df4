// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";

/// @title MockPair
/// @notice A constant-product pair with the swap semantics of Uniswap v2 and a fee in basis points.
/// @dev Pays out first and then demands that the product of the fee-adjusted balances has not fallen.
contract MockPair is ReentrancyGuard {
    using SafeERC20 for IERC20;

    IERC20 public immutable token0;
    IERC20 public immutable token1;
    uint256 public immutable feeBps;
    uint112 private _reserve0;
    uint112 private _reserve1;
    uint32 private _updatedAt;

    event Sync(uint112 reserve0, uint112 reserve1);
    event Swap(
        address indexed sender,
        uint256 amount0In,
        uint256 amount1In,
        uint256 amount0Out,
        uint256 amount1Out,
        address indexed to
    );

    error BadConfiguration();
    error ReserveOverflow();
    error InsufficientOutput();
    error InsufficientLiquidity();
    error InsufficientInput();
    error ProductFell();

    /// @param feeBps_ Fee taken from the input, in basis points.
    constructor(IERC20 token0_, IERC20 token1_, uint256 feeBps_) {
        if (address(token0_) == address(token1_) || feeBps_ >= 10_000) revert BadConfiguration();
        token0 = token0_;
        token1 = token1_;
        feeBps = feeBps_;
    }

    /// @notice Reserves as of the last swap or sync.
    function getReserves() external view returns (uint112, uint112, uint32) {
        return (_reserve0, _reserve1, _updatedAt);
    }

    /// @notice Takes the present balances as reserves; whoever sent tokens before has added liquidity.
    function sync() external nonReentrant {
        _update(token0.balanceOf(address(this)), token1.balanceOf(address(this)));
    }

    /// @notice Pays the outputs to `to` against input that was transferred before.
    function swap(uint256 amount0Out, uint256 amount1Out, address to) external nonReentrant {
        if (amount0Out == 0 && amount1Out == 0) revert InsufficientOutput();
        (uint256 reserve0, uint256 reserve1) = (_reserve0, _reserve1);
        if (amount0Out >= reserve0 || amount1Out >= reserve1) revert InsufficientLiquidity();
        if (amount0Out > 0) token0.safeTransfer(to, amount0Out);
        if (amount1Out > 0) token1.safeTransfer(to, amount1Out);
        uint256 balance0 = token0.balanceOf(address(this));
        uint256 balance1 = token1.balanceOf(address(this));
        uint256 in0 = balance0 > reserve0 - amount0Out ? balance0 - (reserve0 - amount0Out) : 0;
        uint256 in1 = balance1 > reserve1 - amount1Out ? balance1 - (reserve1 - amount1Out) : 0;
        if (in0 == 0 && in1 == 0) revert InsufficientInput();
        uint256 adjusted0 = balance0 * 10_000 - in0 * feeBps;
        uint256 adjusted1 = balance1 * 10_000 - in1 * feeBps;
        if (adjusted0 * adjusted1 < reserve0 * reserve1 * 10_000 ** 2) revert ProductFell();
        _update(balance0, balance1);
        emit Swap(msg.sender, in0, in1, amount0Out, amount1Out, to);
    }

    function _update(uint256 balance0, uint256 balance1) private {
        if (balance0 > type(uint112).max || balance1 > type(uint112).max) revert ReserveOverflow();
        _reserve0 = uint112(balance0);
        _reserve1 = uint112(balance1);
        _updatedAt = uint32(block.timestamp);
        emit Sync(uint112(balance0), uint112(balance1));
    }
}
