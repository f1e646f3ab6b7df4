// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @dev What is called of a Uniswap v3 pool.
interface IV3Pool {
    function swap(
        address recipient,
        bool zeroForOne,
        int256 amountSpecified,
        uint160 sqrtPriceLimitX96,
        bytes calldata data
    ) external returns (int256 amount0, int256 amount1);
}

/// @title V3Swapper
/// @notice Swaps in Uniswap v3 pools for callers that cannot take the pools' callback, such as the settlement.
/// @dev Has no owner, holds nothing and keeps no state beyond a call: the input goes from the caller to the pool, the
/// output from the pool to the receiver. The pool is the caller's choice and not trusted: it can take at most
/// `amountIn` of `tokenIn` from the caller, once, and the receiver gets at least `minOut` or everything reverts.
/// Nobody else's allowance can be reached.
contract V3Swapper {
    using SafeERC20 for IERC20;

    uint160 private constant MIN_SQRT_PRICE = 4295128739;
    uint160 private constant MAX_SQRT_PRICE = 1461446703485210103287273052203988822378723970342;

    address private transient _pool; // the only one who may call back, until it has
    address private transient _payer;
    address private transient _token;
    uint256 private transient _most;

    error Busy();
    error NotTheExpectedPool(address caller);
    error TooMuchAsked(uint256 asked, uint256 most);
    error TooLittleReceived(uint256 received, uint256 least);

    /// @notice Sells exactly `amountIn`, or as much of it as the pool has liquidity for.
    /// @param pool The pool.
    /// @param tokenIn What is sold, approved to this contract by the caller.
    /// @param tokenOut What is bought.
    /// @param amountIn The amount to sell.
    /// @param minOut The least that the receiver must get, measured by its balance.
    /// @param receiver Where the output goes.
    function swap(IV3Pool pool, IERC20 tokenIn, IERC20 tokenOut, uint256 amountIn, uint256 minOut, address receiver)
        external
    {
        if (_pool != address(0)) revert Busy();
        if (amountIn > uint256(type(int256).max)) revert TooMuchAsked(amountIn, uint256(type(int256).max));
        (_pool, _payer, _token, _most) = (address(pool), msg.sender, address(tokenIn), amountIn);
        uint256 before = tokenOut.balanceOf(receiver);
        bool zeroForOne = address(tokenIn) < address(tokenOut);
        uint160 limit = zeroForOne ? MIN_SQRT_PRICE + 1 : MAX_SQRT_PRICE - 1;
        pool.swap(receiver, zeroForOne, int256(amountIn), limit, "");
        _pool = address(0); // a pool that did not call back must not do so later in the transaction
        uint256 received = tokenOut.balanceOf(receiver) - before;
        if (received < minOut) revert TooLittleReceived(received, minOut);
    }

    /// @notice Pays the pool of the running swap, once.
    function uniswapV3SwapCallback(int256 amount0Delta, int256 amount1Delta, bytes calldata) external {
        if (_pool == address(0) || msg.sender != _pool) revert NotTheExpectedPool(msg.sender);
        _pool = address(0);
        int256 owed = amount0Delta > 0 ? amount0Delta : amount1Delta;
        if (owed > 0) {
            if (uint256(owed) > _most) revert TooMuchAsked(uint256(owed), _most);
            IERC20(_token).safeTransferFrom(_payer, msg.sender, uint256(owed));
        }
    }
}
